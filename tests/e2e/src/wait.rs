//! How does a scenario wait? For a condition, with a deadline, and it says what it last saw.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Calls `probe` until it gives `Ok`. After `deadline`: an error with `what` and the probe's last `Err`.
pub fn until<T>(what: &str, deadline: Duration, mut probe: impl FnMut() -> Result<T, String>) -> Result<T> {
    let began = Instant::now();
    loop {
        match probe() {
            Ok(value) => return Ok(value),
            Err(seen) if began.elapsed() >= deadline => {
                bail!("{what}: not within {} s; last seen: {seen}", deadline.as_secs_f32())
            }
            Err(_) => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}
