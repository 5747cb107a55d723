//! How does the configuration of a module come to other nodes, so that it is edited on one?

use crate::archive;
use crate::hosts::Hosts;
use crate::{Failure, exit, nodes};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use sys::lock::LockFile;
use sys::roots::Roots;
use wire::node::Ask;

/// Longest time for a node to apply a module: its own scripts have five minutes each.
const CONFIG: Duration = Duration::from_mins(11);

/// `sk-cluster push -m AM`.
pub fn push(hosts: &Hosts, to: Option<&str>, module: &str, only_files: bool) -> Result<u8, Failure> {
    let roots = hosts.roots;
    let source = roots.module_source(module);
    if !source.join("conf/userconfig.xml").is_file() {
        return Err(Failure::new(
            exit::REFUSED,
            format!("{} does not exist", source.join("conf/userconfig.xml").display()),
        )
        .hint("sk-module list shows the modules of this node"));
    }
    let bytes = archive::pack(&source).map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    let question = Ask::Module {
        module: module.to_owned(),
        id: id(roots, module),
        configure: !only_files && roots.module_active(module).join("conf/userconfig.xml").exists(),
        origin: sys::commands::who(),
    };
    let targets = hosts.named(to)?;
    let outcomes = nodes::ask_quietly(&targets, &hosts.psk()?, &question, &bytes);
    nodes::print(&targets, &outcomes)
}

/// The number given at `config`.
pub fn id(roots: &Roots, module: &str) -> Option<u16> {
    let bytes = sys::files::read_bounded(&roots.module_active(module).join("id"), 16).ok()?;
    String::from_utf8(bytes).ok()?.trim().parse().ok()
}

/// Makes what was pushed the editable configuration of this node, in one step, and applies it; what happened, in words.
pub fn take(
    roots: &Roots,
    module: &str,
    id: Option<u16>,
    configure: bool,
    bytes: &[u8],
    who: &str,
) -> Result<Vec<String>, Failure> {
    if !sys::roots::is_module_name(module) {
        return Err(Failure::new(exit::USAGE, format!("{module:?} is no name of a module")));
    }
    let target = roots.module_source(module);
    let parent = roots.etc.join("modules");
    fs::create_dir_all(&parent).map_err(|e| Failure::system(parent.display(), e))?;
    let lock_path = parent.join(".lock");
    let lock = LockFile::open(&lock_path).map_err(|e| Failure::system(lock_path.display(), e))?;
    if !lock.try_exclusive().map_err(|e| Failure::system(lock_path.display(), e))? {
        return Err(Failure::new(exit::REFUSED, "another module is being pushed to this node").hint("try again"));
    }
    // No name of a module: nobody sees it before it is whole.
    let fresh = parent.join(format!(".{module}.new"));
    remove(&fresh)?;
    fs::create_dir(&fresh).map_err(|e| Failure::system(fresh.display(), e))?;
    let done = archive::unpack(bytes, &fresh)
        .map_err(|e| Failure::new(exit::REFUSED, e.to_string()))
        .and_then(|()| {
            if fresh.join("conf/userconfig.xml").is_file() {
                return Ok(());
            }
            Err(Failure::new(exit::REFUSED, "the archive holds no conf/userconfig.xml"))
        })
        .and_then(|()| exchange(&fresh, &target).map_err(|e| Failure::system(target.display(), e)));
    remove(&fresh)?;
    done?;
    let mut words = vec![format!("{} is written", target.display())];
    if configure {
        words.extend(apply(roots, module, id, who)?);
    }
    Ok(words)
}

fn exchange(fresh: &Path, target: &Path) -> std::io::Result<()> {
    sys::files::sync_file_system(fresh)?;
    if target.exists() {
        if renameat_with(CWD, fresh, CWD, target, RenameFlags::EXCHANGE).is_err() {
            // A file system without exchange.
            fs::remove_dir_all(target)?;
            fs::rename(fresh, target)?;
        }
    } else {
        fs::rename(fresh, target)?;
    }
    sys::files::sync_directory(target.parent().unwrap_or(target))
}

fn remove(path: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(Failure::system(path.display(), e)),
        _ => Ok(()),
    }
}

/// The files are there; what `config` says against them is told, and the applied configuration stays.
fn apply(roots: &Roots, module: &str, id: Option<u16>, who: &str) -> Result<Vec<String>, Failure> {
    let errors = tempfile_in(roots)?;
    let mut command = Command::new(roots.program("sk-module"));
    command.args(["config", "-m", module]).env("SK_ORIGIN", who).env_remove("SAFEMODULE");
    if let Some(id) = id {
        command.args(["--id", &id.to_string()]);
    }
    command.stderr(Stdio::from(errors.0));
    let outcome =
        sys::bounded::run(&mut command, CONFIG, 256 * 1024).map_err(|e| Failure::system("sk-module config", e));
    let complaints = sys::files::read_bounded(&errors.1, 256 * 1024).unwrap_or_default();
    // Only an open descriptor is needed, and it is closed.
    let _ = fs::remove_file(&errors.1);
    let outcome = outcome?;
    let lines = |bytes: &[u8]| String::from_utf8_lossy(bytes).lines().map(str::to_owned).collect::<Vec<_>>();
    match outcome.status {
        Some(status) if status.success() => Ok(lines(&outcome.output)),
        Some(_) => Err(Failure::new(exit::REFUSED, format!("the files of {module} are there, and were not applied"))
            .hint(lines(&complaints).join("\n  "))),
        None => Err(Failure::new(exit::REFUSED, format!("config of {module} did not end within {CONFIG:?}"))),
    }
}

/// A file for words on stderr, which `bounded` leaves alone.
fn tempfile_in(roots: &Roots) -> Result<(fs::File, std::path::PathBuf), Failure> {
    let directory = roots.cluster_run();
    fs::create_dir_all(&directory).map_err(|e| Failure::system(directory.display(), e))?;
    let path = directory.join(format!("config.{}.{:?}", std::process::id(), std::thread::current().id()));
    fs::File::create(&path).map(|file| (file, path.clone())).map_err(|e| Failure::system(path.display(), e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pushed_replaces_the_files_in_one_step_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots {
            etc: dir.path().join("etc"),
            var: dir.path().join("var"),
            run: dir.path().join("run"),
            safe: dir.path().into(),
        };
        let source = dir.path().join("source");
        fs::create_dir_all(source.join("conf")).unwrap();
        fs::write(source.join("conf/userconfig.xml"), "one").unwrap();
        let one = archive::pack(&source).unwrap();
        let read = || fs::read_to_string(roots.module_source("web").join("conf/userconfig.xml")).unwrap();
        take(&roots, "web", None, false, &one, "x").unwrap();
        assert_eq!(read(), "one");
        fs::write(source.join("conf/userconfig.xml"), "two").unwrap();
        fs::write(roots.module_source("web").join("conf/old"), "").unwrap();
        take(&roots, "web", None, false, &archive::pack(&source).unwrap(), "x").unwrap();
        assert_eq!(read(), "two");
        assert!(!roots.module_source("web").join("conf/old").exists());
        let empty = archive::pack(dir.path()).unwrap();
        for bad in [one[..one.len() / 2].to_vec(), b"garbage".to_vec(), empty] {
            assert!(take(&roots, "web", None, false, &bad, "x").is_err());
            assert_eq!(read(), "two");
        }
        assert!(take(&roots, "../web", None, false, &one, "x").is_err());
        let left: Vec<_> = fs::read_dir(roots.etc.join("modules")).unwrap().flatten().map(|e| e.file_name()).collect();
        assert_eq!(left.len(), 2, "{left:?}");
    }
}
