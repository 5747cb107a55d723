//! The replicated directories: are they there, opened beneath every mount of ours, blocked or free.

use super::block::Block;
use super::spec::{Directory, Exclude as Rule, Failure};
use crate::tree::{self, Exclude};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;

/// Fails with a sentence for people when a directory cannot be replicated as it is.
pub fn check(directories: &[Directory]) -> Result<(), Failure> {
    for directory in directories {
        let path = &directory.path;
        match std::fs::metadata(path) {
            Ok(m) if m.is_dir() => {}
            Ok(_) => {
                return Err(Failure::new(
                    format!("replicated directory {} is not a directory", path.display()),
                    "correct its path",
                ));
            }
            Err(e) => {
                return Err(Failure::new(
                    format!("replicated directory {}: {e}", path.display()),
                    "create it or mount its file system",
                ));
            }
        }
        for needed in &directory.to_check {
            let needed = path.join(needed);
            if let Err(e) = std::fs::symlink_metadata(&needed) {
                return Err(Failure::new(
                    format!("{} must exist in the replicated directory: {e}", needed.display()),
                    "mount the file system that holds it, or correct the list of paths to check",
                ));
            }
        }
    }
    Ok(())
}

/// Opens a directory for use beneath mounts that come later.
pub fn open(path: &Path) -> Result<OwnedFd, Failure> {
    rustix::fs::open(path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        Failure::new(format!("replicated directory {}: {e}", path.display()), "create it or mount its file system")
    })
}

/// A descriptor for reading of the directory that `root` leads to.
pub fn reopen(root: impl AsFd) -> Result<OwnedFd, Failure> {
    rustix::fs::openat(root, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).map_err(|e| {
        Failure::new(format!("the directory beneath the mount cannot be opened: {e}"), "restart the module")
    })
}

pub fn duplicate(roots: &[OwnedFd]) -> Result<Vec<OwnedFd>, Failure> {
    roots
        .iter()
        .map(OwnedFd::try_clone)
        .collect::<Result<_, _>>()
        .map_err(|e| Failure::new(format!("descriptors: {e}"), "raise the limit of open files"))
}

/// Rules of what is not replicated, one set a directory.
pub fn excludes(directories: &[Directory]) -> Result<Vec<Arc<Exclude>>, Failure> {
    directories
        .iter()
        .map(|directory| {
            let rules: Vec<_> = directory
                .exclude
                .iter()
                .map(|rule| match rule {
                    Rule::Path(path) => tree::Rule::Path(path.clone()),
                    Rule::Regex(expression) => tree::Rule::Regex(expression.clone()),
                })
                .collect();
            Exclude::new(&rules).map(Arc::new).map_err(|e| Failure::new(e, "correct the module's configuration"))
        })
        .collect()
}

/// Blocks directories and notes it in `file`; takes back what was done when one of them fails.
pub fn block(directories: &[Directory], file: &Path) -> Result<Vec<Block>, Failure> {
    let mut blocks = Vec::new();
    for directory in directories.iter().filter(|d| d.read_only) {
        match Block::new(&directory.path) {
            Ok(block) => blocks.push(block),
            Err(e) => {
                let failure =
                    Failure::new(format!("{} cannot be made read-only: {e}", directory.path.display()), "run as root");
                let _ = unblock(&blocks, file);
                return Err(failure);
            }
        }
        note(&blocks, file)?;
    }
    Ok(blocks)
}

fn note(blocks: &[Block], file: &Path) -> Result<(), Failure> {
    let bytes = serde_json::to_vec(blocks).unwrap_or_default();
    sys::files::write_atomically(file, &bytes, 0o600)
        .map_err(|e| Failure::new(format!("{}: {e}", file.display()), "the state directory must be writable"))
}

pub fn unblock(blocks: &[Block], file: &Path) -> Result<(), Failure> {
    for block in blocks {
        block.remove().map_err(|e| {
            Failure::new(format!("a replicated directory cannot be released: {e}"), "unmount it by hand")
        })?;
    }
    if !blocks.is_empty() {
        let _ = std::fs::remove_file(file);
    }
    Ok(())
}

/// Blocks every directory because the application may go on without its engine: what it wrote into the plain directory would be on no
/// other node, and nobody would know. Removed by the next order that needs the directory.
pub fn seal(directories: &[Directory], file: &Path) -> Result<(), Failure> {
    let mut blocks = Vec::new();
    for directory in directories {
        // Busy: opened for writing between the end of the mount and now; then the next attempt, after which that file is out of reach.
        let mut tries = 0;
        let block = loop {
            match Block::new(&directory.path) {
                Err(e) if e.raw_os_error() == Some(libc::EBUSY) && tries < 100 => tries += 1,
                other => break other,
            }
        };
        blocks.push(block.map_err(|e| {
            Failure::new(
                format!("{} cannot be made read-only: {e}", directory.path.display()),
                "stop the programs that use it",
            )
        })?);
    }
    note(&blocks, file)
}

/// Removes what a former process left.
pub fn unblock_stale(file: &Path) {
    let left: Vec<Block> = std::fs::read(file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default();
    for block in left.iter().rev() {
        let _ = block.remove();
    }
    let _ = std::fs::remove_file(file);
}
