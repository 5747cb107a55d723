//! How is a small file replaced so that after any crash it has either its old or its new content?

use rustix::fs::{AtFlags, CWD, linkat};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Replaces `path` durably by `content` with the given permission bits. On return content and name are on the disk.
pub fn write_durably(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace(path, content, mode, true)
}

/// The same without waiting for the disk: readers see the old or the new content, a power failure may lose the new one
/// or leave it empty. For `/run`.
pub fn write_atomically(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    replace(path, content, mode, false)
}

fn replace(path: &Path, content: &[u8], mode: u32, durable: bool) -> io::Result<()> {
    let temporary = temporary_name(path)?;
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .custom_flags(libc::O_NOFOLLOW)
            .open(&temporary)?;
        file.write_all(content)?;
        if durable {
            file.sync_all()?;
        }
        std::fs::rename(&temporary, path)?;
        if durable { sync_directory(parent(path)) } else { Ok(()) }
    })();
    if written.is_err() {
        // The first error is the one to tell; after the rename there is nothing to remove.
        let _ = std::fs::remove_file(&temporary);
    }
    written
}

/// Makes the new file `path` with the given permission bits; `fill` writes its content. Name and content are on the disk on return; who is
/// killed before leaves nothing, where the file system has files without names, and never a part under this name. A file that is there
/// already is an error of kind `AlreadyExists` and stays as it is.
pub fn create_new(path: &Path, mode: u32, fill: impl FnOnce(&File) -> io::Result<()>) -> io::Result<()> {
    // Said before the work, too.
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(mode);
    let unnamed = options.clone().custom_flags(libc::O_TMPFILE).open(parent(path));
    create_from(unnamed, path, &options, fill)
}

/// `unnamed`: the file without a name that becomes `path`, or why there is none.
fn create_from(
    unnamed: io::Result<File>,
    path: &Path,
    options: &OpenOptions,
    fill: impl FnOnce(&File) -> io::Result<()>,
) -> io::Result<()> {
    let (file, temporary) = match unnamed {
        Ok(file) => (file, None),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EISDIR | libc::EINVAL)) => {
            let name = temporary_name(path)?;
            (options.clone().create_new(true).custom_flags(libc::O_NOFOLLOW).open(&name)?, Some(name))
        }
        Err(e) => return Err(e),
    };
    let made = fill(&file).and_then(|()| file.sync_all()).and_then(|()| {
        let now = temporary.clone().unwrap_or_else(|| format!("/proc/self/fd/{}", file.as_raw_fd()).into());
        linkat(CWD, &now, CWD, path, AtFlags::SYMLINK_FOLLOW)?;
        Ok(())
    });
    if let Some(name) = &temporary {
        // The first error is the one to tell.
        let _ = std::fs::remove_file(name);
    }
    made?;
    sync_directory(parent(path))
}

/// Makes the names in a directory durable.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Makes everything durable that was written to the file system of this directory. For trees of files: one wait for all of them.
pub fn sync_file_system(directory: &Path) -> io::Result<()> {
    Ok(nix::unistd::syncfs(File::open(directory)?)?)
}

/// Removes a file; one that is not there is as good.
pub fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Reads a file of at most `limit` bytes; a longer one is an error of kind `FileTooLarge`.
pub fn read_bounded(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    File::open(path)?.take(limit.saturating_add(1)).read_to_end(&mut content)?;
    if content.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("longer than {limit} bytes")));
    }
    Ok(content)
}

/// The last `limit` bytes of a file, and how many bytes before them were left out.
pub fn read_end(path: &Path, limit: u64) -> io::Result<(u64, Vec<u8>)> {
    let mut file = File::open(path)?;
    let skipped = file.metadata()?.len().saturating_sub(limit);
    file.seek(SeekFrom::Start(skipped))?;
    let mut content = Vec::new();
    file.take(limit).read_to_end(&mut content)?;
    Ok((skipped, content))
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

/// In the same directory, since a rename cannot cross file systems.
fn temporary_name(path: &Path) -> io::Result<PathBuf> {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let name = path.file_name().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "not a file name"))?;
    let mut temporary = OsString::from(".");
    temporary.push(name);
    temporary.push(format!(".{}-{}.tmp", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed)));
    Ok(parent(path).join(temporary))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_end_of_a_file_is_read_and_what_is_left_out_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "0123456789").unwrap();
        assert_eq!(read_end(&path, 4).unwrap(), (6, b"6789".to_vec()));
        assert_eq!(read_end(&path, 40).unwrap(), (0, b"0123456789".to_vec()));
        assert_eq!(read_end(dir.path().join("none").as_path(), 4).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn a_file_is_removed_once_and_what_is_no_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "").unwrap();
        remove(&path).unwrap();
        assert!(!path.exists());
        remove(&path).unwrap();
        remove(dir.path()).unwrap_err();
        assert!(dir.path().exists());
    }

    #[test]
    fn content_and_mode_are_replaced_and_nothing_else_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("core.json");
        write_durably(&path, b"one", 0o600).unwrap();
        write_atomically(&path, b"two", 0o640).unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert_eq!(read_bounded(&path, 2).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }

    #[test]
    fn a_new_file_has_its_name_when_it_is_whole_and_replaces_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new");
        let filled = create_new(&path, 0o640, |mut file| {
            file.write_all(b"half")?;
            assert!(!path.exists());
            Err(io::Error::other("no more"))
        });
        assert_eq!(
            (filled.unwrap_err().to_string(), std::fs::read_dir(dir.path()).unwrap().count()),
            ("no more".into(), 0)
        );
        create_new(&path, 0o640, |mut file| file.write_all(b"whole")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        let again = create_new(&path, 0o640, |mut file| file.write_all(b"other"));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        // Somebody else was faster.
        let late = dir.path().join("late");
        let again = create_new(&late, 0o640, |_| std::fs::write(&late, b"first"));
        assert_eq!(again.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(
            (std::fs::read(&path).unwrap(), std::fs::read(&late).unwrap()),
            (b"whole".to_vec(), b"first".to_vec())
        );
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn where_all_files_have_names_a_new_one_has_another_until_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true).mode(0o640);
        let names = || -> Vec<_> {
            std::fs::read_dir(dir.path())
                .unwrap()
                .map(|entry| entry.unwrap().file_name().into_string().unwrap())
                .collect()
        };
        for refusal in [libc::EOPNOTSUPP, libc::EISDIR, libc::EINVAL] {
            let none = || Err(io::Error::from_raw_os_error(refusal));
            let path = dir.path().join(refusal.to_string());
            let failed = create_from(none(), &path, &options, |mut file| {
                file.write_all(b"half")?;
                assert!(names().len() == 1 && !path.exists());
                Err(io::Error::other("no more"))
            });
            assert_eq!((failed.unwrap_err().to_string(), names().len()), ("no more".into(), 0));
            create_from(none(), &path, &options, |mut file| file.write_all(b"whole")).unwrap();
            assert_eq!((std::fs::read(&path).unwrap(), names()), (b"whole".to_vec(), vec![refusal.to_string()]));
            let late = create_from(none(), &path, &options, |mut file| file.write_all(b"other"));
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
            assert_eq!((std::fs::read(&path).unwrap(), names().len()), (b"whole".to_vec(), 1));
            std::fs::remove_file(&path).unwrap();
        }
        let full = create_from(
            Err(io::Error::from_raw_os_error(libc::ENOSPC)),
            &dir.path().join("full"),
            &options,
            |_| Ok(()),
        );
        assert_eq!((full.unwrap_err().raw_os_error(), names().len()), (Some(libc::ENOSPC), 0));
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_content() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("occupied");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("inside"), b"x").unwrap();
        assert!(write_durably(&path, b"new", 0o600).is_err());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        assert!(write_durably(Path::new("/"), b"new", 0o600).is_err());
    }
}
