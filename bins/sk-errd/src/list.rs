//! Which running processes would a configuration match?

use crate::ListArgs;
use crate::spec::Matcher;
use serde_json::json;
use sys::failure::{Failure, put};

/// Prints the matching processes; `false` when there are none.
pub(crate) fn list(args: &ListArgs) -> Result<bool, Failure> {
    let matcher = Matcher::new(args.name.as_deref(), args.name_regex.as_deref(), args.arg_regex.as_deref())
        .map_err(Failure::usage)?;
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let mut found = sys::table::scan_named(|comm| matcher.fits_name(comm)).map_err(|e| Failure::system("/proc", e))?;
    found.retain(|p| p.pid != own && matcher.fits(p));
    if !args.json && !found.is_empty() {
        put(&format!("{:>8} {:>8} {:<15} {}", "PID", "PARENT", "NAME", "COMMAND LINE"))?;
    }
    for p in &found {
        let line = if args.json {
            let object = json!({"pid": p.pid, "parent": p.parent, "name": p.comm, "command_line": p.command_line});
            object.to_string()
        } else {
            format!("{:>8} {:>8} {:<15} {}", p.pid, p.parent, p.comm.escape_debug(), p.command_line.escape_debug())
        };
        put(&line)?;
    }
    Ok(!found.is_empty())
}
