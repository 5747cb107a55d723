//! `safekit -r errdpoll_running`: the running processes as errd sees them, into `SAFEVAR/errdpoll_reserrd`.

use crate::cli::Failure;
use crate::paths::Place;
use std::fmt::Write;

pub fn run(place: &Place) -> Result<u8, Failure> {
    let processes = sys::table::scan().map_err(|e| Failure::sys("/proc".to_owned(), e))?;
    let path = place.roots.var.join("errdpoll_reserrd");
    let mut text = String::new();
    for p in processes {
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{} {} {} (parent={})",
            p.pid,
            p.comm.escape_debug(),
            p.command_line.escape_debug(),
            p.parent
        );
    }
    sys::files::write_atomically(&path, text.as_bytes(), 0o600)
        .map_err(|e| Failure::sys(path.display().to_string(), e))?;
    crate::verbs::put(&path.display().to_string()).map(|()| 0)
}
