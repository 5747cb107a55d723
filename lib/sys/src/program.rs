//! Which file is this program, and which are beside it, also after an upgrade has replaced them while it runs?

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// What the kernel appends to the name of a file that was replaced or removed.
const REPLACED: &[u8] = b" (deleted)";

/// The file of this program: after an upgrade, the one that has taken its place.
pub fn own() -> io::Result<PathBuf> {
    std::env::current_exe().map(|path| present(&path))
}

/// Another file of the product in the directory of this program, if it is there.
pub fn beside(name: impl AsRef<Path>) -> Option<PathBuf> {
    let file = own().ok()?.parent()?.join(name);
    file.is_file().then_some(file)
}

fn present(path: &Path) -> PathBuf {
    match path.as_os_str().as_bytes().strip_suffix(REPLACED) {
        Some(name) if !path.exists() => PathBuf::from(OsString::from_vec(name.to_vec())),
        _ => path.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_found_under_its_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sk-module");
        let marked = directory.path().join("sk-module (deleted)");
        assert_eq!(present(&path), path);
        assert_eq!(present(&marked), path, "replaced");
        std::fs::write(&marked, b"").unwrap();
        assert_eq!(present(&marked), marked, "a file that is really called so");
    }

    /// What an upgrade does: the file of a running program is replaced by a rename.
    #[test]
    fn a_running_program_finds_its_successor() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("sleeper");
        std::fs::copy("/bin/sleep", &file).unwrap();
        let mut child = std::process::Command::new(&file).arg("60").spawn().unwrap();
        let link = format!("/proc/{}/exe", child.id());
        // The child is this test's copy until it has become the program.
        while std::fs::read_link(&link).unwrap() != file {
            std::thread::yield_now();
        }
        let fresh = directory.path().join("fresh");
        std::fs::copy("/bin/sleep", &fresh).unwrap();
        std::fs::rename(&fresh, &file).unwrap();
        let told = std::fs::read_link(&link).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_ne!(told, file);
        assert_eq!(present(&told), file);
    }
}
