//! The replicated directories: are they there, opened beneath every mount of ours, blocked or free.
//!
//! Blocks are noted in a file of the state directory. Its room is taken when the engine starts and is never given back: what a dead process blocked
//! and could not note, because the disk was full, nobody could release.

use super::block::Block;
use super::spec::{Directory, Exclude as Rule, Failure};
use crate::tree::{self, Exclude};
use rustix::fs::{Mode, OFlags, StatVfsMountFlags};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::Arc;

/// Fails with a sentence for people when a directory cannot be replicated as it is. Nothing of ours lies over it but, if they are
/// `blocked`, blocks.
pub fn check(directories: &[Directory], blocked: bool) -> Result<(), Failure> {
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
        let flags = rustix::fs::statvfs(path).map_or(StatVfsMountFlags::empty(), |fs| fs.f_flag);
        if flags.contains(StatVfsMountFlags::RDONLY) && !blocked {
            return Err(Failure::new(
                format!("replicated directory {} is mounted read-only", path.display()),
                "mount its file system writable, or unmount what lies over it",
            ));
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
        if let Err(failure) = note(&blocks, file) {
            let _ = unblock(&blocks, file);
            return Err(failure);
        }
    }
    Ok(blocks)
}

/// Bytes of the file in which this is noted.
fn room(blocks: &[u8]) -> usize {
    blocks.len().max(1).next_multiple_of(4096)
}

/// Takes the room for the note of all these directories: each may be blocked beneath a mount and over it.
pub fn reserve(directories: &[Directory], file: &Path) -> std::io::Result<()> {
    let widest: Vec<Block> =
        directories.iter().flat_map(|d| [Block::widest(&d.path), Block::widest(&d.path)]).collect();
    let room = room(&serde_json::to_vec(&widest)?);
    let mut noted = match std::fs::read(file) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Vec::new(),
        other => other?,
    };
    if noted.len() >= room {
        return Ok(());
    }
    if noted.is_empty() {
        noted.extend(b"[]");
    }
    noted.resize(room, b' ');
    sys::files::write_durably(file, &noted, 0o600)
}

fn note(blocks: &[Block], file: &Path) -> Result<(), Failure> {
    let written = (|| {
        let mut bytes = serde_json::to_vec(blocks)?;
        // In its room, and all of it: nothing of a former note is left behind.
        let noted = std::fs::metadata(file).map_or(0, |m| m.len() as usize);
        bytes.resize(room(&bytes).max(noted), b' ');
        let to = std::fs::File::options().write(true).create(true).truncate(false).mode(0o600).open(file)?;
        to.write_all_at(&bytes, 0)
    })();
    written.map_err(|e| Failure::new(format!("{}: {e}", file.display()), "the state directory must be writable"))
}

/// What is noted.
fn noted(file: &Path) -> Vec<Block> {
    std::fs::read(file).ok().and_then(|b| serde_json::from_slice(&b).ok()).unwrap_or_default()
}

/// Before the mounts over the directories end: each that a secondary blocks is blocked from that moment on, so that a program that is
/// still there writes into no plain directory. `beneath`: a descriptor of each directory, in their order. An error, and nothing is
/// blocked: the kernel is older than Linux 6.5, for one.
pub fn block_beneath<'a>(
    directories: &[Directory],
    beneath: impl Iterator<Item = BorrowedFd<'a>>,
    file: &Path,
) -> std::io::Result<()> {
    let mut blocks = noted(file);
    for (directory, beneath) in directories.iter().zip(beneath).filter(|(d, _)| d.read_only) {
        if !blocks.iter().any(|b| b.path() == directory.path && b.is_there()) {
            blocks.push(Block::under(beneath, &directory.path)?);
        }
        // What is noted is found and removed, whatever becomes of this process.
        note(&blocks, file).map_err(|e| std::io::Error::other(e.reason))?;
    }
    Ok(())
}

/// If all directories that a secondary blocks are blocked already: descriptors of all directories, and the blocks. `None` also where the
/// kernel cannot open what is blocked (before Linux 5.12).
pub fn blocked(directories: &[Directory], file: &Path) -> Option<(Vec<OwnedFd>, Vec<Block>)> {
    let noted = noted(file);
    let (mut roots, mut blocks) = (Vec::new(), Vec::new());
    for directory in directories {
        if !directory.read_only {
            roots.push(open(&directory.path).ok()?);
            continue;
        }
        let block = noted.iter().find(|b| b.path() == directory.path && b.is_on_top())?;
        roots.push(block.open().ok()?);
        blocks.push(block.clone());
    }
    (!blocks.is_empty()).then_some((roots, blocks))
}

pub fn unblock(blocks: &[Block], file: &Path) -> Result<(), Failure> {
    for block in blocks {
        block.remove().map_err(|e| {
            Failure::new(format!("a replicated directory cannot be released: {e}"), "unmount it by hand")
        })?;
    }
    if blocks.is_empty() { Ok(()) } else { note(&[], file) }
}

/// Blocks every directory because the application may go on without its engine: what it wrote into the plain directory would be on no
/// other node, and nobody would know. Removed by the next order that needs the directory.
pub fn seal(directories: &[Directory], file: &Path) -> Result<(), Failure> {
    let mut blocks: Vec<Block> = noted(file).into_iter().filter(Block::is_there).collect();
    for directory in directories {
        if blocks.iter().any(|b| b.path() == directory.path && b.is_on_top()) {
            continue;
        }
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

/// The same without an instant at which the plain directory could be written: the block comes over the mount that is about to end. `beneath`: a
/// descriptor of each directory, in their order. An error, and nothing is blocked: the kernel is older than Linux 5.12, for one.
pub fn cover<'a>(
    directories: &[Directory],
    beneath: impl Iterator<Item = BorrowedFd<'a>>,
    file: &Path,
) -> std::io::Result<()> {
    let mut blocks: Vec<Block> = Vec::new();
    for (directory, beneath) in directories.iter().zip(beneath) {
        match Block::over(beneath, &directory.path) {
            Ok(block) => blocks.push(block),
            Err(e) => {
                for block in &blocks {
                    let _ = block.remove();
                }
                return Err(e);
            }
        }
    }
    let mut all = noted(file);
    all.retain(Block::is_there);
    all.extend(blocks);
    // Not noted, it is removed all the same, with the dead mount beneath it.
    let _ = note(&all, file);
    Ok(())
}

/// Removes what a former process left. What lies beneath a mount stays noted until that is gone.
pub fn unblock_stale(file: &Path) {
    let left = noted(file);
    for block in left.iter().rev() {
        let _ = block.remove();
    }
    let covered: Vec<Block> = left.iter().filter(|b| b.is_there()).cloned().collect();
    if covered.len() < left.len() {
        let _ = note(&covered, file);
    }
}
