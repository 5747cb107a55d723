//! How soon must an idle processor be at work again? The kernel's "CPU latency quality of service"
//! (`Documentation/power/pm_qos_interface.rst`).

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};

const DEVICE: &str = "/dev/cpu_dma_latency";
const DRIVER: &str = "/sys/devices/system/cpu/cpuidle/current_driver";

/// A limit that holds for all processors of the machine until this is dropped, or the process ends in whatever way.
#[derive(Debug)]
pub struct CpuLatency {
    _open: File,
}

impl CpuLatency {
    /// Idle processors choose only states that they leave within this many microseconds; 0: they do not sleep.
    ///
    /// # Errors
    /// The kernel has no such device, or this process may not use it.
    pub fn limit(microseconds: u16) -> io::Result<Self> {
        let mut open = OpenOptions::new().write(true).open(DEVICE)?;
        open.write_all(&i32::from(microseconds).to_ne_bytes())?;
        Ok(Self { _open: open })
    }
}

/// Whether idle processors are those of a virtual machine whose hypervisor says that it has processors enough: only then, or when
/// the administrator asks for it, the kernel takes this driver (`drivers/cpuidle/cpuidle-haltpoll.c`).
pub fn halts_to_a_willing_hypervisor() -> bool {
    std::fs::read_to_string(DRIVER).is_ok_and(|driver| driver.trim() == "haltpoll")
}
