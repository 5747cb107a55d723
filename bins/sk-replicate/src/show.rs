//! What is known about a module's replica, read without disturbing it.

use crate::Trouble;
use replica::engine::state_dir;
use replica::store::{self, Remembered};
use serde_json::{Value, json};
use sys::failure::put;
use sys::roots::{Roots, is_module_name};

/// Refuses what cannot be a module's name.
pub fn module_name(module: &str) -> Result<(), Trouble> {
    if is_module_name(module) {
        return Ok(());
    }
    Err(Trouble::new(100, format!("{module:?} is not a module's name: letters, digits, '_', '-' and '.' are allowed")))
}

fn remembered(roots: &Roots, module: &str) -> Result<Remembered, Trouble> {
    module_name(module)?;
    let directory = state_dir(roots, module);
    if !directory.is_dir() {
        let text = format!(
            "module {module} has no replica on this node ({} does not exist); apply its configuration first",
            directory.display()
        );
        return Err(Trouble::new(2, text));
    }
    store::read(&directory).map_err(|e| Trouble::new(2, e))
}

/// What the runner says of the replica now; null when the module does not run.
pub fn live(roots: &Roots, module: &str) -> Value {
    let state = std::fs::read(roots.module_run(module).join("state.json")).ok();
    let mut state: Value = state.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or(Value::Null);
    state.get_mut("replica").map_or(Value::Null, Value::take)
}

fn word(value: impl serde::Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_default()
}

/// `sk-replicate status`.
pub fn status(module: &str, as_json: bool) -> Result<(), Trouble> {
    let roots = Roots::from_environment();
    let known = remembered(&roots, module)?;
    let live = live(&roots, module);
    let position = live.get("position").and_then(Value::as_u64).unwrap_or(known.position);
    let epoch = known.lineage.head().map(|id| id.to_string());
    if as_json {
        let line = json!({
            "module": module, "standing": known.standing, "up_to_date": known.standing.is_up_to_date(), "epoch": epoch,
            "position": position, "unshared": known.unshared, "replica": live,
        });
        return Ok(put(&line.to_string())?);
    }
    let text = |name: &str| live.get(name).and_then(Value::as_str).unwrap_or("-").to_owned();
    put(&format!("module      {module}"))?;
    put(&format!(
        "standing    {}{}",
        word(known.standing),
        if known.standing.is_up_to_date() { " (up to date)" } else { " (not up to date)" }
    ))?;
    put(&format!("epoch       {}", epoch.as_deref().unwrap_or("-")))?;
    put(&format!("position    {position}"))?;
    put(&format!("peer        {}", text("peer")))?;
    let frozen = live.get("frozen").and_then(Value::as_bool).map_or("-", |f| if f { "yes" } else { "no" });
    put(&format!("frozen      {frozen}"))?;
    for (title, name) in [("in B/s", "in_bytes_s"), ("out B/s", "out_bytes_s"), ("lag B", "lag_bytes")] {
        let figure = live.get(name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |n| n.to_string());
        put(&format!("{title:<11} {figure}"))?;
    }
    if let Some(resync) = live.get("resync").filter(|r| r.is_object()) {
        let figure = |name: &str| resync.get(name).and_then(Value::as_u64).unwrap_or_default();
        put(&format!(
            "resync      {} files of {}, {} bytes of {}",
            figure("files"),
            figure("files_total"),
            figure("bytes"),
            figure("bytes_total")
        ))?;
    }
    Ok(())
}

/// `sk-replicate lineage`.
pub fn lineage(module: &str, as_json: bool) -> Result<(), Trouble> {
    let known = remembered(&Roots::from_environment(), module)?;
    for epoch in &known.lineage.0 {
        if as_json {
            put(&json!({ "id": epoch.id, "start": epoch.start }).to_string())?;
        } else {
            put(&format!("{}  from operation {}", epoch.id, epoch.start))?;
        }
    }
    Ok(())
}
