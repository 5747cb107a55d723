//! Are both replicas equal? Asks the running engine, and says what it finds.

use crate::inquiry::{self, Meter, Question};
use crate::show::module_name;
use crate::{Trouble, Verify, logged};
use replica::verify::{Difference, Summary, What};
use serde_json::Value;
use std::ops::ControlFlow;
use sys::failure::put;
use sys::roots::Roots;

/// `sk-replicate verify`. A repair belongs into the log of commands.
pub fn verify(order: &Verify) -> Result<(), Trouble> {
    module_name(&order.module)?;
    let roots = Roots::from_environment();
    logged(&roots, &order.module, order.repair, || compare(&roots, order))
}

fn compare(roots: &Roots, order: &Verify) -> Result<(), Trouble> {
    let question = Question::Verify { bandwidth_kbs: Some(order.bandwidth), repair: order.repair };
    let mut meter = Meter::new(!order.json);
    inquiry::ask(roots, &order.module, &question, |kind, event, line| {
        meter.clear();
        if order.json {
            put(line)?;
        }
        match kind {
            "progress" => meter.show(&so_far(&serde_json::from_value(event).map_err(std::io::Error::from)?)),
            "difference" if !order.json => {
                put(&words(&serde_json::from_value(event).map_err(std::io::Error::from)?))?;
            }
            "verified" => {
                let summary: Summary = serde_json::from_value(event).map_err(std::io::Error::from)?;
                if !order.json {
                    put(&verdict(&summary))?;
                }
                if summary.differences == 0 {
                    return Ok(ControlFlow::Break(()));
                }
                if !order.repair {
                    let module = &order.module;
                    let text = format!("the replicas differ; to mend it: sk-replicate verify -m {module} --repair");
                    return Err(Trouble::new(1, text));
                }
            }
            "repairing" => {
                let figure =
                    |name: &str| event.pointer(&format!("/resync/{name}")).and_then(Value::as_u64).unwrap_or(0);
                meter.show(&format!("repairing: {} files of {}", figure("files"), figure("files_total")));
            }
            "repaired" => {
                if !order.json {
                    put("repaired: the secondary was copied anew where it differed, and is in sync")?;
                }
                return Ok(ControlFlow::Break(()));
            }
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    })
}

/// A difference as a line.
fn words(difference: &Difference) -> String {
    let path =
        serde_json::to_value(&difference.path).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default();
    let place = format!("{}:{}", difference.dir, if path.is_empty() { "." } else { &path });
    match &difference.what {
        What::Missing => format!("missing     {place}"),
        What::Extra => format!("extra       {place}"),
        What::Attributes { attributes } => format!("attributes  {place}  {}", attributes.join(" ")),
        What::Content { ranges } => {
            let ranges: Vec<_> = ranges.iter().map(|(offset, length)| format!("{offset}+{length}")).collect();
            format!("content     {place}  {}", ranges.join(" "))
        }
    }
}

fn verdict(summary: &Summary) -> String {
    let equal =
        if summary.differences == 0 { "equal".to_owned() } else { format!("{} differences", summary.differences) };
    let skipped = match summary.skipped {
        0 => String::new(),
        n => format!(", {n} files were renamed or removed meanwhile and not compared to their end"),
    };
    let (objects, bytes) = (summary.objects, summary.bytes);
    format!("{equal}: {objects} objects, {bytes} bytes compared in {:.1} s{skipped}", summary.ms as f64 / 1000.0)
}

fn so_far(summary: &Summary) -> String {
    format!("{} objects, {} MiB compared, {} differences", summary.objects, summary.bytes >> 20, summary.differences)
}

#[cfg(test)]
mod tests {
    use super::*;
    use replica::op::RelPath;

    #[test]
    fn differences_as_lines() {
        let what = What::Content { ranges: vec![(4096, 8192), (65536, 10)] };
        let difference = Difference { dir: 0, path: RelPath::new("a b").unwrap_or_default(), what };
        assert_eq!(words(&difference), "content     0:a b  4096+8192 65536+10");
        let root =
            Difference { dir: 1, path: RelPath::default(), what: What::Attributes { attributes: vec!["mode".into()] } };
        assert_eq!(words(&root), "attributes  1:.  mode");
    }
}
