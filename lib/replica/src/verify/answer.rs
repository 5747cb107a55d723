//! What is the state of an object here? The same for both sides, so that equal objects give equal answers.

use super::question::{Content, Object, Objects, Question, Reply};
use super::{FINE, NAMES, PAGE, STEP};
use crate::op::{Kind, RelPath};
use crate::resync::ask::pack;
use crate::tree::{self, BLOCK, EMPTY, Meta, Place};
use rustix::fs::{Advice, OFlags, RawDir, SeekFrom};
use std::io;
use std::mem::MaybeUninit;
use std::num::NonZeroU64;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use xxhash_rust::xxh3::xxh3_128;

/// Answers as the tree beneath `root` is now. None: nobody may ask that.
pub(crate) fn answer(root: BorrowedFd<'_>, question: &Question) -> Option<Reply> {
    let (Question::Objects { path, .. } | Question::Content { path, .. } | Question::Names { path, .. }) = question;
    if !path.is_walkable() {
        return None;
    }
    let answered = match question {
        Question::Objects { names, .. } => {
            let single = |name: &RelPath| name.is_walkable() && !name.as_bytes().contains(&b'/');
            if names.len() > NAMES || !names.iter().all(single) {
                return None;
            }
            objects(root, path, names).map(Reply::Objects)
        }
        Question::Content { first, count, unit, ahead, .. } => {
            let bytes = count.checked_mul(*unit).filter(|bytes| *bytes <= STEP * BLOCK);
            if !matches!(*unit, FINE | BLOCK) || bytes.is_none() {
                return None;
            }
            content(root, path, *first, *count, *unit, *ahead).map(Reply::Content)
        }
        Question::Names { from, .. } => tree::open_dir(root, path)
            .and_then(|here| list(&here, *from, PAGE))
            .or_else(|e| if is_absent(&e) { Ok((Vec::new(), None)) } else { Err(e) })
            .map(|(names, next)| Reply::Names { names: names.into_iter().filter_map(RelPath::opaque).collect(), next }),
    };
    Some(answered.unwrap_or_else(|e| Reply::Trouble(format!("{}: {e}", String::from_utf8_lossy(path.as_bytes())))))
}

/// Another object than expected is there, or none.
pub(super) fn is_absent(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP | libc::EXDEV | libc::EINVAL))
}

/// The states of entries; an empty name is the directory itself.
pub(super) fn objects(root: BorrowedFd<'_>, path: &RelPath, names: &[RelPath]) -> io::Result<Objects> {
    let here = match tree::open_dir(root, path) {
        Ok(here) => here,
        Err(e) if is_absent(&e) => return Ok(vec![None; names.len()]),
        Err(e) => return Err(e),
    };
    let device = rustix::fs::fstat(&here)?.st_dev;
    names.iter().map(|name| object(&here, device, name.as_bytes())).collect()
}

fn object(here: &OwnedFd, device: u64, name: &[u8]) -> io::Result<Option<Object>> {
    if name.is_empty() {
        let stat = rustix::fs::fstat(here)?;
        return describe(Place::Fd(here.as_fd()), &stat).map(Some);
    }
    let found = tree::stat_at(here, name).and_then(|stat| {
        let object = describe(Place::At(here.as_fd(), name), &stat)?;
        Ok(Object { mount: stat.st_dev != device, ..object })
    });
    match found {
        Ok(object) => Ok(Some(object)),
        Err(e) if is_absent(&e) => Ok(None),
        Err(e) => Err(e),
    }
}

fn describe(place: Place<'_>, stat: &rustix::fs::Stat) -> io::Result<Object> {
    let meta = Meta::read(place, stat)?;
    let mut target = None;
    if let (Kind::Symlink, Place::At(parent, name)) = (meta.kind, place) {
        let points = rustix::fs::readlinkat(parent, name, Vec::new())?;
        target = Some(format!("{:032x}", xxh3_128(points.to_bytes())));
    }
    let mut bytes = Vec::new();
    for xattr in &meta.xattrs {
        for part in [xattr.name.as_bytes(), &xattr.value] {
            bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
            bytes.extend_from_slice(part);
        }
    }
    Ok(Object {
        kind: meta.kind,
        mode: meta.owner.mode,
        uid: meta.owner.uid,
        gid: meta.owner.gid,
        size: meta.size,
        mtime: meta.mtime,
        links: (meta.kind != Kind::Directory).then_some(stat.st_nlink),
        rdev: matches!(meta.kind, Kind::CharDevice | Kind::BlockDevice).then_some(stat.st_rdev),
        target,
        xattrs: (!bytes.is_empty()).then(|| format!("{:032x}", xxh3_128(&bytes))),
        mount: false,
    })
}

/// A file's size, and hashes of some of its content.
pub(super) fn content(
    root: BorrowedFd<'_>,
    path: &RelPath,
    first: u64,
    count: u64,
    unit: u64,
    ahead: u64,
) -> io::Result<Content> {
    let file = match tree::open_file(root, path, OFlags::RDONLY) {
        Ok(file) => file,
        Err(e) if is_absent(&e) => return Ok(Content::default()),
        Err(e) => return Err(e),
    };
    let stat = rustix::fs::fstat(&file)?;
    let size = stat.st_size as u64;
    let end = size.div_ceil(unit).min(first.saturating_add(count));
    let mut buffer = vec![0; unit as usize];
    let (mut hashes, mut data) = (Vec::new(), None);
    for number in first..end {
        let start = number.saturating_mul(unit);
        // The next place with data, asked again only when passed.
        if data.is_none_or(|at| at < start) {
            data = Some(tree::next_data(&file, start)?.unwrap_or(u64::MAX));
        }
        if data.is_some_and(|at| at >= start.saturating_add(unit)) {
            hashes.push(EMPTY);
        } else {
            let read = tree::read_full(&file, start, &mut buffer)?;
            hashes.push(tree::hash_bytes(buffer.get(..read).unwrap_or_default()));
        }
    }
    if let Some(ahead) = NonZeroU64::new(ahead.min(STEP * BLOCK)) {
        // Only advice: the next question should not wait for the disk.
        let _ = rustix::fs::fadvise(&file, end.saturating_mul(unit), Some(ahead), Advice::WillNeed);
    }
    Ok(Content { found: true, size, hashes: pack(&hashes) })
}

/// At most `most` names from the place `from` on, and the place behind them; None: that were all. Places stay good while
/// other names come and go.
pub(super) fn list(here: &OwnedFd, from: u64, most: usize) -> io::Result<(Vec<Vec<u8>>, Option<u64>)> {
    let _ = rustix::fs::seek(here, SeekFrom::Start(from))?;
    let mut buffer = vec![MaybeUninit::uninit(); 32 * 1024];
    let mut entries = RawDir::new(here, &mut buffer);
    let mut names = Vec::new();
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push(name.to_vec());
        }
        if names.len() >= most {
            return Ok((names, Some(entry.next_entry_cookie())));
        }
    }
    Ok((names, None))
}
