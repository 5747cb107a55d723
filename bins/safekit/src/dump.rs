//! Where does `dump` leave what a helper needs? In the node's directory of dumps, the last three of each module.

use crate::cli::Failure;
use crate::paths::Place;
use crate::verbs::{noted, put};
use std::path::{Path, PathBuf};
use std::process::Command;

const KEPT: usize = 3;

/// Makes a snapshot under a name with the time, prints its path, and removes the oldest ones.
pub fn run(place: &Place) -> Result<u8, Failure> {
    let module = place.module()?;
    let logged = sys::commands::Command::start(&place.roots, "safekit", module, &["dump".to_owned()]);
    noted(logged, || dump(place, module).map(|()| 0))
}

fn dump(place: &Place, module: &str) -> Result<(), Failure> {
    let directory = place.roots.var.join("dumps").join(module);
    let failed = |what: &str, path: &Path, e| Failure::sys(format!("cannot {what} {}", path.display()), e);
    std::fs::create_dir_all(&directory).map_err(|e| failed("make", &directory, e))?;
    let file = directory.join(format!("dump_{}.tar.gz", sys::clock::local_time("%Y_%m_%d_%H_%M_%S")));
    let program = place.program("sk-module");
    let status = Command::new(&program)
        .args(["snapshot", "-m", module])
        .arg(&file)
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(|e| failed("run", &program, e))?;
    if !status.success() {
        let code = status.code().and_then(|c| u8::try_from(c).ok()).unwrap_or(1);
        return Err(Failure::new(code, format!("no dump of module {module} was made in {}", directory.display())));
    }
    let mut dumps: Vec<PathBuf> = std::fs::read_dir(&directory)
        .map_err(|e| failed("read", &directory, e))?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.starts_with("dump_")))
        .collect();
    // Their names are their times.
    dumps.sort();
    for old in dumps.iter().rev().skip(KEPT) {
        sys::files::remove(old).map_err(|e| failed("remove", old, e))?;
    }
    put(&file.display().to_string())
}
