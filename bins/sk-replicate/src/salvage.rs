//! What was put aside before a resynchronisation replaced it: listed, brought back, removed.

use crate::show::{live, module_name};
use crate::{Prune, Restore, SalvageCommand, Trouble, logged};
use replica::salvage::{self, Listed, RestoreError, Restored};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use sys::failure::put;
use sys::roots::Roots;

/// `sk-replicate salvage`. What restores or removes belongs into the log of commands.
pub fn salvage(module: &str, command: &SalvageCommand) -> Result<(), Trouble> {
    module_name(module)?;
    let roots = Roots::from_environment();
    let changes = match command {
        SalvageCommand::List(_) => false,
        SalvageCommand::Restore(_) => true,
        SalvageCommand::Prune(order) => order.yes,
    };
    logged(&roots, module, changes, || act(&roots, module, command))
}

fn act(roots: &Roots, module: &str, command: &SalvageCommand) -> Result<(), Trouble> {
    let known = roots.module_var(module);
    if !known.is_dir() {
        let text = format!("module {module} is not configured on this node ({} does not exist)", known.display());
        return Err(Trouble::new(2, text));
    }
    let directory = known.join("salvage");
    match command {
        SalvageCommand::List(list) => show(&directory, list.json),
        SalvageCommand::Restore(order) => restore(&directory, order),
        SalvageCommand::Prune(order) => {
            if order.yes && is_resynchronising(roots, module) {
                let text =
                    format!("module {module} is resynchronising and may be putting content aside; try again later");
                return Err(Trouble::new(3, text));
            }
            prune(&directory, order)
        }
    }
}

fn is_resynchronising(roots: &Roots, module: &str) -> bool {
    live(roots, module).get("resync").is_some_and(Value::is_object)
}

fn cannot_read(directory: &Path) -> impl FnOnce(std::io::Error) -> Trouble {
    let directory = directory.display().to_string();
    move |e| Trouble::new(111, format!("{directory}: {e}"))
}

fn show(directory: &Path, as_json: bool) -> Result<(), Trouble> {
    let listed = salvage::list(directory).map_err(cannot_read(directory))?;
    if as_json {
        for file in &listed {
            let line = json!({
                "id": file.id(), "date": file.date, "bytes": file.bytes, "occupied": file.occupied,
                "path": directory.join(&file.date).join(&file.path).to_string_lossy(),
            });
            put(&line.to_string())?;
        }
        return Ok(());
    }
    let width = listed.iter().map(|f| size(f.bytes).len()).max().unwrap_or_default();
    for file in &listed {
        put(&format!("{:>width$}  {}", size(file.bytes), file.id()))?;
    }
    let occupied = listed.iter().map(|f: &Listed| f.occupied).sum();
    put(&format!("{} in {}, {} on the disk", count(listed.len() as u64), directory.display(), size(occupied)))?;
    Ok(())
}

fn count(files: u64) -> String {
    if files == 1 { "1 file".into() } else { format!("{files} files") }
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "KiB", "MiB", "GiB"] {
        if value < 1024.0 {
            return if unit == "B" { format!("{bytes} B") } else { format!("{value:.1} {unit}") };
        }
        value /= 1024.0;
    }
    format!("{value:.1} TiB")
}

fn restore(directory: &Path, order: &Restore) -> Result<(), Trouble> {
    let to = std::path::absolute(&order.to).unwrap_or_else(|_| PathBuf::from(&order.to));
    if to.starts_with(directory) {
        return Err(Trouble::new(100, format!("{} is inside the salvage directory; choose another", to.display())));
    }
    let Restored { files, bytes, present } = salvage::restore(directory, &order.item, &to).map_err(|e| match e {
        RestoreError::Unknown(_) => Trouble::new(4, format!("{e}; see: sk-replicate salvage -m AM list")),
        RestoreError::Exists(_) => Trouble::new(5, format!("{e}; choose another directory with --to")),
        RestoreError::Io { .. } => Trouble::new(111, e),
    })?;
    if order.json {
        put(&json!({ "restored": order.item, "to": to.to_string_lossy(), "files": files, "bytes": bytes, "present": present }).to_string())?;
    } else {
        let already = if present == 0 { String::new() } else { format!(" ({present} there already)") };
        put(&format!("{} restored to {}, {}{already}", count(files), to.display(), size(bytes)))?;
    }
    Ok(())
}

fn prune(directory: &Path, order: &Prune) -> Result<(), Trouble> {
    let age = if order.all { Duration::ZERO } else { order.older_than.unwrap_or(Duration::MAX) };
    let old = salvage::prunable(directory, SystemTime::now(), age).map_err(cannot_read(directory))?;
    for (date, (files, bytes)) in &old {
        if order.yes {
            salvage::prune(directory, date).map_err(cannot_read(&directory.join(date)))?;
        }
        if order.json {
            put(&json!({ "date": date, "files": files, "occupied": bytes, "removed": order.yes }).to_string())?;
        } else {
            let word = if order.yes { "removed" } else { "would remove" };
            put(&format!("{word} {date}: {}, {}", count(*files), size(*bytes)))?;
        }
    }
    if old.is_empty() && !order.json {
        put("nothing is that old")?;
    }
    if !order.yes && !old.is_empty() {
        return Err(Trouble::new(3, "nothing was removed; add --yes to remove what is listed"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #[test]
    fn sizes() {
        for (bytes, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (1 << 30, "1.0 GiB"), (5 << 40, "5.0 TiB")]
        {
            assert_eq!(super::size(bytes), text);
        }
    }
}
