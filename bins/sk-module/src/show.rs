//! What does an operator see: states, lists, logs.

use crate::boot::applied_modules;
use crate::{Failure, client, log};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;
use sys::failure::{put, put_live};
use sys::lines::bar;
use sys::roots::Roots;

pub(crate) struct StateView {
    pub verbose: bool,
    pub quiet: bool,
    pub watch: bool,
    pub json: bool,
}

/// SafeKit's exit codes of `state -lq`.
fn state_code(state: &str) -> u8 {
    match state {
        "WAIT" => 1,
        "ALONE" | "UP" => 2,
        "PRIM" => 3,
        "SECOND" => 4,
        _ => 0,
    }
}

pub(crate) fn state(roots: &Roots, module: &str, view: &StateView) -> Result<u8, Failure> {
    if view.watch {
        return watch(roots, module, view.json);
    }
    let (state, readiness, reply) = client::state_pair(roots, module)?;
    if reply.is_null() && !roots.module_var(module).exists() && !roots.module_source(module).exists() {
        return Err(Failure::new(crate::exit::REFUSED, format!("there is no module {module} on this node"))
            .hint("sk-module list shows the modules"));
    }
    if view.json {
        let value =
            if reply.is_null() { json!({"module": module, "state": state, "readiness": readiness}) } else { reply };
        put(&value.to_string())?;
    } else {
        put(&bar(&summary(module, &state, &readiness, &reply)))?;
        if view.verbose {
            for resource in reply["resources"].as_array().into_iter().flatten() {
                let (name, value, t) = (text(&resource["name"]), text(&resource["value"]), text(&resource["t"]));
                put(&crate::history::columns(&name, &value, &t))?;
            }
            if reply.is_null() {
                for kept in crate::history::latest(&roots.module_var(module)).values() {
                    put(&crate::history::line(kept))?;
                }
            }
            crate::support::script_output(roots, module, "state")?;
        }
    }
    Ok(if view.quiet { state_code(&state) } else { 0 })
}

/// The applied modules of this node, one after the other.
pub(crate) fn states(roots: &Roots, view: &StateView) -> Result<u8, Failure> {
    for module in applied_modules(roots)? {
        state(roots, &module, view)?;
    }
    Ok(0)
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| if value.is_null() { "-".into() } else { value.to_string() }, str::to_owned)
}

/// Parts of one line: state, remote state, data, resynchronisation.
fn summary(module: &str, state: &str, readiness: &str, reply: &Value) -> Vec<String> {
    let mut parts = vec![format!("{module}: {state} ({readiness})")];
    if reply.is_null() {
        return parts;
    }
    if let Some(rule) = reply["rule"].as_str() {
        parts.push(format!("rule {rule}"));
    }
    if let Some(peer) = reply["peer"].as_str() {
        parts.push(match reply["remote"]["state"].as_str() {
            Some(remote) => format!("{peer} {remote} ({})", text(&reply["remote"]["readiness"])),
            None => format!("{peer} UNKNOWN"),
        });
        parts.push(text(&reply["data"]));
    }
    for group in reply["farm"]["groups"].as_array().into_iter().flatten() {
        parts.push(format!(
            "{} {}% ({}/{})",
            text(&group["group"]),
            text(&group["percent"]),
            text(&group["owned"]),
            text(&group["of"])
        ));
    }
    let list = |name: &str| -> Vec<String> { reply["farm"][name].as_array().into_iter().flatten().map(text).collect() };
    if !list("members").is_empty() {
        parts.push(format!("open {} of {}", list("open").join(" "), list("members").join(" ")));
    }
    let resync = &reply["replica"]["resync"];
    if resync.is_object() {
        parts.push(format!(
            "resync {}/{} files, {}/{} MiB, {} s left",
            text(&resync["files"]),
            text(&resync["files_total"]),
            resync["bytes"].as_u64().unwrap_or(0) >> 20,
            resync["bytes_total"].as_u64().unwrap_or(0) >> 20,
            text(&resync["left_s"])
        ));
    }
    parts
}

/// A line at each change. Survives the runner: shows STOP while there is none.
fn watch(roots: &Roots, module: &str, as_json: bool) -> Result<u8, Failure> {
    let mut last = Vec::new();
    let mut show = |reply: &Value| -> Result<(), Failure> {
        let (state, readiness) = if reply.is_null() {
            ("STOP".into(), "NotReady".into())
        } else {
            (text(&reply["state"]), text(&reply["readiness"]))
        };
        let parts = if as_json { vec![reply.to_string()] } else { summary(module, &state, &readiness, reply) };
        if parts != last {
            if as_json {
                put_live(&parts.concat())?;
            } else {
                let mut stamped = parts.clone();
                if let Some(first) = stamped.first_mut() {
                    first.insert_str(0, &sys::clock::local_time("%H:%M:%S "));
                }
                put_live(&bar(&stamped))?;
            }
            last = parts;
        }
        Ok(())
    };
    loop {
        let Some(mut stream) = client::connect(roots, module)? else {
            show(&Value::Null)?;
            std::thread::sleep(Duration::from_millis(300));
            continue;
        };
        if stream.set_read_timeout(None).and_then(|()| stream.write_all(b"{\"verb\":\"watch\"}\n")).is_err() {
            continue;
        }
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { break };
            if let Ok(reply) = serde_json::from_str::<Value>(&line) {
                show(&reply)?;
            }
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Modules of this node, applied or not, by name.
pub(crate) fn module_names(roots: &Roots) -> Result<Vec<String>, Failure> {
    let mut names = applied_modules(roots)?;
    if let Ok(entries) = std::fs::read_dir(roots.etc.join("modules")) {
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if sys::roots::is_module_name(&name) && !names.contains(&name) {
                names.push(name);
            }
        }
    }
    names.sort();
    Ok(names)
}

/// `sk-module list`.
pub(crate) fn list(roots: &Roots, as_json: bool) -> Result<u8, Failure> {
    for name in module_names(roots)? {
        let id = crate::instance::applied_id(roots, &name);
        let applied = roots.module_active(&name).exists();
        let (state, readiness, _) = client::state_pair(roots, &name)?;
        if as_json {
            put(&json!({"module": name, "id": id, "applied": applied, "state": state, "readiness": readiness})
                .to_string())?;
        } else if applied {
            put(&format!("{name:<24} {:>4}  {state} ({readiness})", id.map_or("-".into(), |i| i.to_string())))?;
        } else {
            put(&format!("{name:<24}    -  NOT CONFIGURED"))?;
        }
    }
    Ok(0)
}

/// The last lines of the module's log.
pub(crate) fn log(
    roots: &Roots,
    module: &str,
    lines: usize,
    all: bool,
    follow: bool,
    as_json: bool,
) -> Result<u8, Failure> {
    let write = if follow { put_live } else { put };
    let put_line = |line: &str| if as_json { write(&log::as_json(line).to_string()) } else { write(line) };
    let path = roots.module_var(module).join("log");
    let mut shown = std::collections::VecDeque::new();
    let mut position = 0;
    for file in [path.with_extension("1"), path.clone()] {
        let Ok(handle) = std::fs::File::open(&file) else { continue };
        let mut reader = BufReader::new(handle);
        let mut line = Vec::new();
        position = 0;
        while reader.read_until(b'\n', &mut line).map_err(|e| Failure::system(file.display(), e))? > 0 {
            position += line.len() as u64;
            let shown_line = String::from_utf8_lossy(&line).trim_end().to_owned();
            line.clear();
            if all || wanted(&shown_line) {
                shown.push_back(shown_line);
                if shown.len() > lines {
                    shown.pop_front();
                }
            }
        }
    }
    if shown.is_empty() && !path.exists() {
        return Err(Failure::new(crate::exit::REFUSED, format!("module {module} has no log yet ({})", path.display())));
    }
    for line in &shown {
        put_line(line)?;
    }
    if follow { follow_log(&path, position, all, &put_line) } else { Ok(0) }
}

fn wanted(line: &str) -> bool {
    line.split(" | ").nth(2).is_none_or(log::is_shown_by_default)
}

fn follow_log(
    path: &Path,
    mut position: u64,
    all: bool,
    put_line: &dyn Fn(&str) -> Result<(), Failure>,
) -> Result<u8, Failure> {
    let interactive = std::io::stdout().is_terminal();
    let mut rest = String::new();
    loop {
        let size = std::fs::metadata(path).map_or(0, |m| m.len());
        if size < position {
            position = 0;
        }
        if size > position {
            let mut file = std::fs::File::open(path).map_err(|e| Failure::system(path.display(), e))?;
            file.seek(SeekFrom::Start(position)).map_err(|e| Failure::system(path.display(), e))?;
            let mut bytes = Vec::new();
            position += file.read_to_end(&mut bytes).map_err(|e| Failure::system(path.display(), e))? as u64;
            rest.push_str(&String::from_utf8_lossy(&bytes));
            while let Some(end) = rest.find('\n') {
                let line: String = rest.drain(..=end).collect();
                if all || wanted(line.trim_end()) {
                    put_line(line.trim_end())?;
                }
            }
        }
        std::thread::sleep(Duration::from_millis(if interactive { 100 } else { 300 }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fits(said: &str) {
        let wide: Vec<&str> = said.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty(), "{wide:#?}");
    }

    #[test]
    fn a_farm_of_32_nodes_with_many_groups_fits_80_columns() {
        let nodes: Vec<String> = (1..=32).map(|n| format!("server-with-a-name-{n}")).collect();
        let group = |n: usize| json!({"group": format!("a_group_of_requests_to_a_port_{n}"), "percent": 100, "owned": 256, "of": 256});
        let groups: Vec<Value> = (0..8).map(group).collect();
        let reply = json!({"rule": "interface_failure", "farm": {"groups": groups, "open": nodes, "members": nodes}});
        let said = bar(&summary("web", "UP", "NotReady", &reply));
        fits(&said);
        assert!(said.starts_with("web: UP (NotReady) | rule interface_failure"), "{said}");
        assert_eq!(said.split_whitespace().filter(|word| *word == "(256/256)").count(), 8);
    }

    #[test]
    fn a_mirror_that_copies_much_fits_80_columns() {
        let reply = json!({"rule": "rfs_notuptodate_server", "peer": "server-with-a-name-1", "data": "not uptodate",
            "remote": {"state": "ALONE", "readiness": "NotReady"}, "replica": {"resync": {"files": u64::MAX, "files_total": u64::MAX,
            "bytes": u64::MAX, "bytes_total": u64::MAX, "left_s": u64::MAX}}});
        fits(&bar(&summary("a-module-with-a-long-name", "SECOND", "NotReady", &reply)));
    }
}
