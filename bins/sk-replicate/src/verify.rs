//! Are both replicas equal? Asks the running engine, and says what it finds.

use crate::inquiry::{self, Question};
use crate::show::module_name;
use crate::{Trouble, Verify};
use replica::verify::{Difference, Summary, What};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, IsTerminal as _, Write as _};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use sys::roots::Roots;

/// The engine says something each second.
const SILENCE: Duration = Duration::from_mins(1);

/// `sk-replicate verify`.
pub fn verify(order: &Verify) -> Result<(), Trouble> {
    module_name(&order.module)?;
    let path = inquiry::path(&Roots::from_environment(), &order.module);
    let stream = UnixStream::connect(&path).map_err(|e| {
        let text = format!(
            "module {} does not replicate on this node ({}: {e}); start it first",
            order.module,
            path.display()
        );
        Trouble::new(3, text)
    })?;
    stream.set_read_timeout(Some(SILENCE))?;
    let question = serde_json::to_string(&Question::Verify { bandwidth_kbs: Some(order.bandwidth) });
    writeln!(&stream, "{}", question.map_err(std::io::Error::from)?)?;
    let mut out = std::io::stdout().lock();
    let mut meter = Meter { shown: !order.json && std::io::stderr().is_terminal(), width: 0 };
    for line in BufReader::new(&stream).lines() {
        let line =
            line.map_err(|e| Trouble::new(3, format!("the engine of module {} does not answer: {e}", order.module)))?;
        let event: Value = serde_json::from_str(&line).map_err(std::io::Error::from)?;
        let kind = event.get("kind").and_then(Value::as_str).unwrap_or_default();
        meter.clear();
        if kind == "failed" {
            let word = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
            return Err(Trouble::new(3, format!("{}; {}", word("reason"), word("hint"))));
        }
        if order.json {
            writeln!(out, "{line}")?;
            out.flush()?;
        }
        match kind {
            "progress" => meter.show(&serde_json::from_value(event).map_err(std::io::Error::from)?),
            "difference" if !order.json => {
                writeln!(out, "{}", words(&serde_json::from_value(event).map_err(std::io::Error::from)?))?;
            }
            "verified" => {
                let summary = serde_json::from_value(event).map_err(std::io::Error::from)?;
                if !order.json {
                    writeln!(out, "{}", verdict(&summary))?;
                }
                let different = || {
                    Trouble::new(
                        1,
                        "the replicas differ; a full resynchronisation mends it: sk-module second -m AM --fullsync on the secondary",
                    )
                };
                return if summary.differences > 0 { Err(different()) } else { Ok(()) };
            }
            _ => {}
        }
    }
    Err(Trouble::new(
        3,
        format!("the engine of module {} ended before the comparison did; compare again", order.module),
    ))
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

/// How far it is, for who watches a terminal.
struct Meter {
    shown: bool,
    width: usize,
}

impl Meter {
    fn show(&mut self, summary: &Summary) {
        if self.shown {
            let text = format!(
                "{} objects, {} MiB compared, {} differences",
                summary.objects,
                summary.bytes >> 20,
                summary.differences
            );
            eprint!("\r{text}");
            self.width = text.len();
        }
    }

    fn clear(&mut self) {
        if self.width > 0 {
            eprint!("\r{:1$}\r", "", self.width);
            self.width = 0;
        }
    }
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
