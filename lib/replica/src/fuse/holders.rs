//! Which processes have files beneath a directory in use, so that their writes would bypass a mount over it?

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::front::Holder;

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// What could change the directory behind a new mount: files open for writing, shared writable mappings, open directories,
    /// working and root directories.
    Changing,
    /// Everything that keeps a mount busy.
    Any,
}

const O_PATH: u32 = 0o10_000_000;

/// Processes other than this one, by pid. What cannot be looked at (it ended meanwhile) is left out.
pub fn holders(path: &Path, wanted: Use) -> Vec<Holder> {
    let mut found = Vec::new();
    let Ok(entries) = std::fs::read_dir("/proc") else { return found };
    let me = std::process::id().cast_signed();
    for entry in entries.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<i32>().ok()) else { continue };
        if pid == me {
            continue;
        }
        if let Some(what) = inspect(&entry.path(), path, wanted) {
            let command = std::fs::read_to_string(entry.path().join("comm")).unwrap_or_default();
            found.push(Holder { pid, command: command.trim_end().to_owned(), what });
        }
    }
    found.sort_by_key(|h| h.pid);
    found
}

fn beneath(link: &Path, path: &Path) -> bool {
    let bytes = link.as_os_str().as_bytes();
    let bytes = bytes.strip_suffix(b" (deleted)").unwrap_or(bytes);
    bytes.strip_prefix(path.as_os_str().as_bytes()).is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
}

fn inspect(proc: &Path, path: &Path, wanted: Use) -> Option<String> {
    for (link, what) in [("cwd", "working directory"), ("root", "root directory")] {
        if let Ok(target) = std::fs::read_link(proc.join(link))
            && beneath(&target, path)
        {
            return Some(format!("{} ({what})", target.display()));
        }
    }
    for entry in std::fs::read_dir(proc.join("fd")).into_iter().flatten().flatten() {
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if !beneath(&target, path) {
            continue;
        }
        let info = std::fs::read_to_string(proc.join("fdinfo").join(entry.file_name())).unwrap_or_default();
        let flags = info
            .lines()
            .find_map(|l| l.strip_prefix("flags:"))
            .map_or(0, |f| u32::from_str_radix(f.trim(), 8).unwrap_or(0));
        let directory = std::fs::metadata(entry.path()).is_ok_and(|m| m.is_dir());
        // The descriptor by which a directory is served beneath its mount is O_PATH, and kept by the process that started us.
        if wanted == Use::Any || flags & O_PATH == 0 && (directory || flags & 3 != 0) {
            return Some(target.display().to_string());
        }
    }
    let maps = std::fs::read(proc.join("maps")).unwrap_or_default();
    for line in maps.split(|b| *b == b'\n') {
        let mut fields = line.splitn(6, |b| *b == b' ');
        let Some(access) = fields.nth(1) else { continue };
        let Some(name) = fields.nth(3) else { continue };
        let name = Path::new(std::ffi::OsStr::from_bytes(name.trim_ascii_start()));
        if beneath(name, path) && (wanted == Use::Any || access.contains(&b'w') && access.contains(&b's')) {
            return Some(format!("{} (mapped)", name.display()));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn names_who_could_change_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        assert_eq!(holders(&path, Use::Changing), []);
        let file = path.join("log");
        let open = std::fs::File::create(&file).unwrap();
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(open).spawn().unwrap();
        let pid = child.id().cast_signed();
        let found = holders(&path, Use::Changing);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(found.iter().any(|h| h.pid == pid && h.what == file.display().to_string()), "{found:?}");

        let mut child = Command::new("cat").stdin(Stdio::piped()).current_dir(&path).spawn().unwrap();
        let found = holders(&path, Use::Changing);
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(found.iter().any(|h| h.what.ends_with("(working directory)")), "{found:?}");

        let reader = std::fs::File::open(&file).unwrap();
        let mut child = Command::new("sleep").arg("60").stdin(reader).spawn().unwrap();
        let (changing, any) = (holders(&path, Use::Changing), holders(&path, Use::Any));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(changing, []);
        assert_eq!(any.len(), 1);
    }

    #[test]
    fn neighbours_with_the_same_beginning_are_not_beneath() {
        assert!(beneath(Path::new("/a/b"), Path::new("/a/b")));
        assert!(beneath(Path::new("/a/b/c (deleted)"), Path::new("/a/b")));
        assert!(!beneath(Path::new("/a/bc"), Path::new("/a/b")));
    }
}
