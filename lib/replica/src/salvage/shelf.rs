//! What is in a salvage directory, how does it come back, and how does it go away?
//!
//! Nothing is removed by itself: what was put aside may be the only copy.

use super::{date, fill_copy};
use crate::op::RelPath;
use crate::tree::read_full;
use rustix::fs::{Mode, OFlags};
use std::collections::BTreeMap;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, SystemTime};

/// One file in the salvage directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The resynchronisation's date, as in the directory's name.
    pub date: String,
    /// Below the date: replicated directory and path.
    pub path: PathBuf,
    /// Its size.
    pub bytes: u64,
    /// Bytes it occupies on the disk.
    pub occupied: u64,
}

impl Listed {
    /// Date and path as one text, bytes that are not UTF-8 written as `%XX`; [`restore`] takes it.
    pub fn id(&self) -> String {
        let path = Path::new(&self.date).join(&self.path);
        let text = RelPath::opaque(path.as_os_str().as_bytes()).and_then(|p| serde_json::to_value(p).ok());
        text.and_then(|v| v.as_str().map(str::to_owned)).unwrap_or_else(|| path.display().to_string())
    }
}

/// Everything in a salvage directory, oldest first. A directory that does not exist is empty.
pub fn list(directory: &Path) -> io::Result<Vec<Listed>> {
    let mut found = Vec::new();
    let dates = match std::fs::read_dir(directory) {
        Ok(dates) => dates,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e),
    };
    for date in dates {
        let date = date?;
        for (path, meta) in walk(&date.path())? {
            if let Ok(path) = path.strip_prefix(date.path())
                && !meta.is_dir()
            {
                let date = date.file_name().to_string_lossy().into_owned();
                let occupied = meta.blocks().saturating_mul(512);
                found.push(Listed { date, path: path.to_path_buf(), bytes: meta.size(), occupied });
            }
        }
    }
    found.sort_by(|a, b| (&a.date, &a.path).cmp(&(&b.date, &b.path)));
    Ok(found)
}

/// A file or directory with everything beneath, parents first. What disappears meanwhile is left out.
fn walk(top: &Path) -> io::Result<Vec<(PathBuf, std::fs::Metadata)>> {
    let mut found = Vec::new();
    let mut queue = vec![top.to_path_buf()];
    while let Some(next) = queue.pop() {
        let meta = match next.symlink_metadata() {
            Ok(meta) => meta,
            Err(e) if e.kind() == io::ErrorKind::NotFound && next != top => continue,
            Err(e) => return Err(e),
        };
        if meta.is_dir() {
            for entry in std::fs::read_dir(&next)? {
                queue.push(entry?.path());
            }
        }
        found.push((next, meta));
    }
    Ok(found)
}

/// Why nothing (more) was restored.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0} is not in the salvage directory")]
    Unknown(String),
    #[error("{} exists, and nothing is ever restored over what exists", .0.display())]
    Exists(PathBuf),
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
}

/// What was restored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub files: u64,
    pub bytes: u64,
    /// Files of these that were there already, equal: of a restoration that was interrupted.
    pub present: u64,
}

impl Restored {
    fn add(&mut self, meta: &std::fs::Metadata) {
        self.files += 1;
        self.bytes += meta.size();
    }
}

/// Copies what `item` names into the directory `to` (made when missing), under its last name, with owner, mode, attributes and times.
/// `item`: a [`Listed::id`], a directory above one (a date, say), or a path beneath the salvage directory. The copy in the salvage
/// directory stays. When something else exists where a file is to be made, nothing is restored; an equal file is left as it is, so that
/// what was interrupted can be given again. A file has its name when it is whole.
pub fn restore(directory: &Path, item: &str, to: &Path) -> Result<Restored, RestoreError> {
    let unknown = || RestoreError::Unknown(item.to_owned());
    let from = locate(directory, item).ok_or_else(unknown)?;
    let failed = |path: &Path| {
        let path = path.to_path_buf();
        move |source: io::Error| match source.kind() {
            io::ErrorKind::AlreadyExists => RestoreError::Exists(path),
            _ => RestoreError::Io { path, source },
        }
    };
    let (Some(above), Ok(_)) = (from.parent(), from.symlink_metadata()) else { return Err(unknown()) };
    let mut wanted = Vec::new();
    let mut done = Restored::default();
    for (path, meta) in walk(&from).map_err(failed(&from))? {
        let target = to.join(path.strip_prefix(above).map_err(|_| unknown())?);
        match target.symlink_metadata() {
            Ok(there) if meta.is_dir() && there.is_dir() => {}
            Ok(there) if is_copy(&path, &meta, &target, &there).map_err(failed(&target))? => {
                done.present += 1;
                done.add(&meta);
            }
            Ok(_) => return Err(RestoreError::Exists(target)),
            Err(_) => wanted.push((path, meta, target)),
        }
    }
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(to).map_err(failed(to))?;
    for (path, meta, target) in wanted {
        if meta.is_dir() {
            match std::fs::DirBuilder::new().mode(0o700).create(&target) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists && target.is_dir() => {}
                other => other.map_err(failed(&target))?,
            }
            continue;
        }
        if meta.is_symlink() {
            let points = std::fs::read_link(&path).map_err(failed(&path))?;
            std::os::unix::fs::symlink(points, &target).map_err(failed(&target))?;
        } else {
            let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let file = rustix::fs::open(&path, flags, Mode::empty()).map_err(io::Error::from).map_err(failed(&path))?;
            sys::files::create_new(&target, 0o600, |new| fill_copy(&file, new)).map_err(failed(&target))?;
        }
        done.add(&meta);
    }
    Ok(done)
}

/// Whether the file `there` has the kind and the content of `path`.
fn is_copy(path: &Path, meta: &std::fs::Metadata, there: &Path, other: &std::fs::Metadata) -> io::Result<bool> {
    if meta.file_type() != other.file_type() || meta.size() != other.size() {
        return Ok(false);
    }
    if meta.is_symlink() {
        return Ok(std::fs::read_link(path)? == std::fs::read_link(there)?);
    }
    if !meta.is_file() {
        return Ok(false);
    }
    let (one, two) = (std::fs::File::open(path)?, std::fs::File::open(there)?);
    let (mut left, mut right) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut offset = 0;
    loop {
        let count = read_full(&one, offset, &mut left)?;
        if read_full(&two, offset, &mut right)? != count || left.get(..count) != right.get(..count) {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
        offset += count as u64;
    }
}

/// The path that a person's words mean; never outside of the salvage directory.
fn locate(directory: &Path, item: &str) -> Option<PathBuf> {
    let plain = |path: &Path| path.components().all(|c| matches!(c, Component::Normal(_)));
    if Path::new(item).is_absolute() {
        let below = Path::new(item).strip_prefix(directory).ok()?;
        return (plain(below) && !below.as_os_str().is_empty()).then(|| directory.join(below));
    }
    let id: RelPath = serde_json::from_value(serde_json::Value::String(item.trim_end_matches('/').into())).ok()?;
    let below = Path::new(std::ffi::OsStr::from_bytes(id.as_bytes()));
    (plain(below) && !below.as_os_str().is_empty()).then(|| directory.join(below))
}

/// Dates of resynchronisations with what they occupy: files and bytes on the disk.
pub type Resyncs = BTreeMap<String, (u64, u64)>;

/// What [`prune`] would remove: every resynchronisation whose date is at least `age` before `now`.
pub fn prunable(directory: &Path, now: SystemTime, age: Duration) -> io::Result<Resyncs> {
    // Names order as dates do. Longer ago than there are dates: nothing is that old.
    let newest = now.checked_sub(age).map(date).unwrap_or_default();
    let mut found = Resyncs::new();
    let dates = match std::fs::read_dir(directory) {
        Ok(dates) => dates,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(e) => return Err(e),
    };
    for entry in dates {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if is_date(&name) && name <= newest {
            let mut sum = (0, 0);
            for (_, meta) in walk(&entry.path())?.iter().filter(|(_, meta)| !meta.is_dir()) {
                sum.0 += 1;
                sum.1 += meta.blocks().saturating_mul(512);
            }
            found.insert(name, sum);
        }
    }
    Ok(found)
}

/// Removes what one resynchronisation put aside. Only names that are dates are removed: what else is there is not ours.
pub fn prune(directory: &Path, date: &str) -> io::Result<()> {
    if !is_date(date) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    std::fs::remove_dir_all(directory.join(date))
}

/// Whether it looks as [`date`] writes.
fn is_date(name: &str) -> bool {
    const FORM: &[u8] = b"0000-00-00T000000Z";
    name.len() == FORM.len()
        && name.bytes().zip(FORM).all(|(b, form)| if *form == b'0' { b.is_ascii_digit() } else { b == *form })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::time::UNIX_EPOCH;

    fn shelf() -> (tempfile::TempDir, PathBuf) {
        let at = tempfile::tempdir().unwrap();
        let aside = at.path().join("salvage");
        for (date, name, bytes) in
            [("1970-01-02T000000Z", "data/a/one", 10), ("1970-02-01T000000Z", "data/100%", 20), ("notes", "x", 1)]
        {
            let path = aside.join(date).join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, vec![b'c'; bytes]).unwrap();
        }
        std::os::unix::fs::symlink("/nowhere", aside.join("1970-01-02T000000Z/data/a/link")).unwrap();
        (at, aside)
    }

    #[test]
    fn what_is_listed_can_be_restored_but_over_nothing() {
        let (at, aside) = shelf();
        let to = at.path().join("back");
        let listed = list(&aside).unwrap();
        let percent = listed.iter().find(|l| l.path.ends_with("100%")).unwrap();
        assert_eq!(percent.id(), "1970-02-01T000000Z/data/100%25");
        let restored = |files, bytes, present| Restored { files, bytes, present };
        assert_eq!(restore(&aside, &percent.id(), &to).unwrap(), restored(1, 20, 0));
        assert_eq!(std::fs::read(to.join("100%")).unwrap(), vec![b'c'; 20]);
        std::fs::write(to.join("100%"), b"mine").unwrap();
        assert!(matches!(restore(&aside, &percent.id(), &to), Err(RestoreError::Exists(_))));
        assert_eq!(std::fs::read(to.join("100%")).unwrap(), b"mine");
        let whole = aside.join("1970-01-02T000000Z/data");
        assert_eq!(restore(&aside, whole.to_str().unwrap(), &to).unwrap(), restored(2, 18, 0));
        assert_eq!(std::fs::read_link(to.join("data/a/link")).unwrap(), Path::new("/nowhere"));
        // What is there and equal is left as it is.
        std::fs::remove_file(to.join("data/a/link")).unwrap();
        assert_eq!(restore(&aside, "1970-01-02T000000Z/data", &to).unwrap(), restored(2, 18, 1));
        // One file in the way, and nothing of the rest is made.
        std::fs::remove_file(to.join("data/a/link")).unwrap();
        std::fs::write(to.join("data/a/one"), b"cccccccccX").unwrap();
        assert!(matches!(restore(&aside, "1970-01-02T000000Z/data", &to), Err(RestoreError::Exists(_))));
        assert!(to.join("data/a/link").symlink_metadata().is_err());
    }

    #[test]
    fn nothing_outside_is_restored() {
        let (at, aside) = shelf();
        std::fs::write(at.path().join("secret"), b"x").unwrap();
        let outside = at.path().join("secret");
        for item in ["../secret", "notes/../../secret", outside.to_str().unwrap(), "", "/", ".", "none", "notes/none"] {
            let refused = restore(&aside, item, &at.path().join("back"));
            assert!(matches!(refused, Err(RestoreError::Unknown(_))), "{item}: {refused:?}");
        }
        assert!(!at.path().join("back").exists());
    }

    #[test]
    fn only_what_is_old_and_ours_is_pruned() {
        let (_at, aside) = shelf();
        let day = Duration::from_hours(24);
        let now = UNIX_EPOCH + 40 * day;
        let old: Vec<_> = prunable(&aside, now, 30 * day).unwrap().into_iter().collect();
        assert_eq!(old.iter().map(|(d, _)| d.as_str()).collect::<Vec<_>>(), ["1970-01-02T000000Z"]);
        assert_eq!(old.first().map(|(_, sum)| sum.0), Some(2));
        assert_eq!(prunable(&aside, now, Duration::ZERO).unwrap().len(), 2);
        assert!(prunable(&aside, now, Duration::MAX).unwrap().is_empty());
        prune(&aside, "1970-01-02T000000Z").unwrap();
        assert!(prune(&aside, "notes").is_err() && prune(&aside, "..").is_err());
        assert_eq!(list(&aside).unwrap().len(), 2);
    }

    proptest! {
        #[test]
        fn no_words_lead_out(item in ".{0,40}") {
            if let Some(path) = locate(Path::new("/s"), &item) {
                let below = path.strip_prefix("/s").unwrap();
                prop_assert!(below.components().all(|c| matches!(c, Component::Normal(_))));
            }
        }
    }
}
