//! What would the next synchronisation cost? Asks the running engine.

use crate::inquiry::{self, Question};
use crate::show::module_name;
use crate::{Show, Trouble};
use replica::engine::estimate::Estimate;
use serde_json::Value;
use std::ops::ControlFlow;
use sys::failure::put;
use sys::roots::Roots;

/// `sk-replicate diff`.
pub fn estimate(order: &Show) -> Result<(), Trouble> {
    module_name(&order.module)?;
    let roots = Roots::from_environment();
    let mut meter = inquiry::Meter::new(!order.json);
    inquiry::ask(&roots, &order.module, &Question::Estimate, |kind, event, line| {
        let read = |event: Value| serde_json::from_value::<Estimate>(event).map_err(std::io::Error::from);
        meter.clear();
        match kind {
            "progress" => {
                let so_far = read(event)?;
                meter.show(&format!("{} files, {} MiB", so_far.files, so_far.bytes >> 20));
            }
            "estimate" if order.json => {
                put(line)?;
                return Ok(ControlFlow::Break(()));
            }
            "estimate" => {
                for line in words(&read(event)?) {
                    put(&line)?;
                }
                return Ok(ControlFlow::Break(()));
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })
}

fn words(estimate: &Estimate) -> Vec<String> {
    let mut lines = Vec::new();
    if estimate.everything {
        lines.push("nothing is known about the other node: all will be compared, and what differs copied".to_owned());
    }
    lines.push(format!("directories {}", estimate.directories));
    lines.push(format!("files       {}", estimate.files));
    lines.push(format!("bytes       {}", estimate.bytes));
    lines.push(match (estimate.seconds, estimate.rate_bytes_s) {
        (Some(seconds), Some(rate)) => format!("time        {seconds} s at {} KiB/s", rate / 1024),
        _ => "time        unknown: this engine has not synchronised yet, and no limit is set".to_owned(),
    });
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_in_words() {
        let known = Estimate {
            files: 2,
            directories: 1,
            bytes: 9000,
            rate_bytes_s: Some(4096),
            seconds: Some(3),
            ..Estimate::default()
        };
        assert_eq!(words(&known), ["directories 1", "files       2", "bytes       9000", "time        3 s at 4 KiB/s"]);
        let nothing = Estimate { everything: true, ..Estimate::default() };
        assert!(words(&nothing)[0].contains("all will be compared") && words(&nothing)[4].contains("unknown"));
    }
}
