//! How does the editable configuration of a module travel: a tar of `conf` and `bin`, bounded, and nothing in it leads elsewhere?

use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Component, Path, PathBuf};
use tar::{Archive, Builder, EntryType, Header};
use wire::node::ARCHIVE_LIMIT;

/// More files than this are no module.
const ENTRIES_LIMIT: usize = 4096;

/// Why a module cannot be packed or unpacked. Each message names the file.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{0} is no plain file, directory or link inside the module; it cannot be brought to another node")]
    Kind(PathBuf),
    #[error("{0} leads out of the module")]
    Outside(PathBuf),
    #[error("the module has more than {ENTRIES_LIMIT} files")]
    Entries,
    #[error("the module is larger than {} MiB", ARCHIVE_LIMIT >> 20)]
    Size,
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the archive is damaged: {0}")]
    Damaged(io::Error),
}

/// Packs `conf` and `bin` below `root`.
pub fn pack(root: &Path) -> Result<Vec<u8>, ArchiveError> {
    let mut builder = Builder::new(Vec::new());
    let mut count = 0;
    for part in ["conf", "bin"] {
        if root.join(part).is_dir() {
            add(&mut builder, root, Path::new(part), &mut count)?;
        }
    }
    builder.into_inner().map_err(ArchiveError::Damaged)
}

fn add(builder: &mut Builder<Vec<u8>>, root: &Path, name: &Path, count: &mut usize) -> Result<(), ArchiveError> {
    let path = root.join(name);
    let failed = |source| ArchiveError::Io { path: path.clone(), source };
    *count += 1;
    if *count > ENTRIES_LIMIT {
        return Err(ArchiveError::Entries);
    }
    let metadata = fs::symlink_metadata(&path).map_err(failed)?;
    let mut header = Header::new_gnu();
    header.set_mode(metadata.permissions().mode() & 0o777);
    header.set_mtime(0);
    header.set_size(0);
    if metadata.is_dir() {
        header.set_entry_type(EntryType::Directory);
        builder.append_data(&mut header, name, io::empty()).map_err(ArchiveError::Damaged)?;
        let mut children: Vec<_> = fs::read_dir(&path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)?;
        // The same files always make the same archive.
        children.sort_by_key(fs::DirEntry::file_name);
        for child in children {
            add(builder, root, &name.join(child.file_name()), count)?;
        }
    } else if metadata.is_symlink() {
        let target = fs::read_link(&path).map_err(failed)?;
        if !is_inside(&target) {
            return Err(ArchiveError::Outside(path));
        }
        header.set_entry_type(EntryType::Symlink);
        builder.append_link(&mut header, name, &target).map_err(ArchiveError::Damaged)?;
    } else if metadata.is_file() {
        if builder.get_ref().len() as u64 + metadata.len() > ARCHIVE_LIMIT {
            return Err(ArchiveError::Size);
        }
        let content = sys::files::read_bounded(&path, ARCHIVE_LIMIT).map_err(failed)?;
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content.as_slice()).map_err(ArchiveError::Damaged)?;
    } else {
        return Err(ArchiveError::Kind(path));
    }
    Ok(())
}

/// Only names downwards.
fn is_inside(path: &Path) -> bool {
    path.components().next().is_some() && path.components().all(|c| matches!(c, Component::Normal(_)))
}

/// Unpacks into a directory that exists and is empty. After an error it holds whatever had come until then.
pub fn unpack(bytes: &[u8], root: &Path) -> Result<(), ArchiveError> {
    let mut archive = Archive::new(bytes);
    let mut left = ARCHIVE_LIMIT;
    for (number, entry) in archive.entries().map_err(ArchiveError::Damaged)?.enumerate() {
        if number >= ENTRIES_LIMIT {
            return Err(ArchiveError::Entries);
        }
        let mut entry = entry.map_err(ArchiveError::Damaged)?;
        let name = entry.path().map_err(ArchiveError::Damaged)?.into_owned();
        if !is_inside(&name) || !(name.starts_with("conf") || name.starts_with("bin")) {
            return Err(ArchiveError::Outside(name));
        }
        let path = root.join(&name);
        // A link that came earlier must not lead what comes later elsewhere.
        let mut parent = root.to_owned();
        for part in name.parent().into_iter().flat_map(Path::components) {
            parent.push(part);
            match fs::symlink_metadata(&parent) {
                Ok(m) if m.is_dir() => {}
                Ok(_) => return Err(ArchiveError::Outside(name)),
                Err(_) => {
                    fs::create_dir(&parent).map_err(|source| ArchiveError::Io { path: parent.clone(), source })?;
                }
            }
        }
        let failed = |source| ArchiveError::Io { path: path.clone(), source };
        let mode = entry.header().mode().map_err(ArchiveError::Damaged)? & 0o777;
        match entry.header().entry_type() {
            EntryType::Directory => match fs::create_dir(&path) {
                Err(e) if e.kind() != io::ErrorKind::AlreadyExists || !path.is_dir() || path.is_symlink() => {
                    return Err(failed(e));
                }
                _ => fs::set_permissions(&path, fs::Permissions::from_mode(mode | 0o700)).map_err(failed)?,
            },
            EntryType::Symlink => {
                let target = entry.link_name().map_err(ArchiveError::Damaged)?.map(std::borrow::Cow::into_owned);
                let target = target.filter(|t| is_inside(t)).ok_or_else(|| ArchiveError::Outside(name.clone()))?;
                std::os::unix::fs::symlink(target, &path).map_err(failed)?;
            }
            EntryType::Regular => {
                left = left.checked_sub(entry.size()).ok_or(ArchiveError::Size)?;
                let mut file = fs::OpenOptions::new()
                    .write(true)
                    .create_new(true)
                    .mode(mode | 0o400)
                    .open(&path)
                    .map_err(failed)?;
                let size = entry.size();
                let copied = io::copy(&mut entry.by_ref().take(size), &mut file).map_err(failed)?;
                if copied != size {
                    return Err(ArchiveError::Damaged(io::ErrorKind::UnexpectedEof.into()));
                }
                file.set_permissions(fs::Permissions::from_mode(mode | 0o400)).map_err(failed)?;
            }
            _ => return Err(ArchiveError::Kind(name)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn module(root: &Path) {
        fs::create_dir_all(root.join("conf")).unwrap();
        fs::create_dir_all(root.join("bin/lib")).unwrap();
        fs::write(root.join("conf/userconfig.xml"), "<safe/>").unwrap();
        fs::write(root.join("bin/start_prim"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(root.join("bin/start_prim"), fs::Permissions::from_mode(0o755)).unwrap();
        fs::write(root.join("bin/lib/data"), vec![7; 100_000]).unwrap();
        std::os::unix::fs::symlink("start_prim", root.join("bin/start_both")).unwrap();
        fs::write(root.join("elsewhere"), "not a part of it").unwrap();
    }

    #[test]
    fn a_module_arrives_as_it_was() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        module(from.path());
        let bytes = pack(from.path()).unwrap();
        assert_eq!(bytes, pack(from.path()).unwrap());
        unpack(&bytes, to.path()).unwrap();
        assert_eq!(fs::read(to.path().join("bin/lib/data")).unwrap(), vec![7; 100_000]);
        assert_eq!(fs::read_to_string(to.path().join("bin/start_both")).unwrap(), "#!/bin/sh\n");
        let mode = fs::metadata(to.path().join("bin/start_prim")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o755);
        assert!(!to.path().join("elsewhere").exists());
    }

    #[test]
    fn what_leads_elsewhere_is_refused_on_both_sides() {
        let from = tempfile::tempdir().unwrap();
        module(from.path());
        std::os::unix::fs::symlink("/etc/shadow", from.path().join("bin/secret")).unwrap();
        assert!(matches!(pack(from.path()), Err(ArchiveError::Outside(_))));
        let entry = |kind: EntryType, name: &str, link: Option<&str>, mode: u32| {
            let mut header = Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(0);
            // append_data would refuse what an attacker does not.
            header.as_gnu_mut().unwrap().name[..name.len()].copy_from_slice(name.as_bytes());
            if let Some(link) = link {
                header.as_gnu_mut().unwrap().linkname[..link.len()].copy_from_slice(link.as_bytes());
            }
            header.set_cksum();
            header
        };
        let archive = |headers: &[Header]| {
            let mut builder = Builder::new(Vec::new());
            for header in headers {
                builder.append(header, io::empty()).unwrap();
            }
            builder.into_inner().unwrap()
        };
        for headers in [
            vec![entry(EntryType::Regular, "../x", None, 0o644)],
            vec![entry(EntryType::Regular, "/etc/x", None, 0o644)],
            vec![entry(EntryType::Regular, "conf/../../x", None, 0o644)],
            vec![entry(EntryType::Regular, "other/x", None, 0o644)],
            vec![entry(EntryType::Symlink, "conf/x", Some("../../etc"), 0o777)],
            vec![entry(EntryType::Symlink, "conf/x", Some("/etc"), 0o777)],
            vec![
                entry(EntryType::Symlink, "conf/x", Some("y"), 0o777),
                entry(EntryType::Regular, "conf/x/z", None, 0o644),
            ],
            vec![entry(EntryType::Link, "conf/x", Some("/etc/shadow"), 0o644)],
            vec![entry(EntryType::Char, "conf/x", None, 0o644)],
            vec![entry(EntryType::Fifo, "conf/x", None, 0o644)],
        ] {
            let to = tempfile::tempdir().unwrap();
            assert!(unpack(&archive(&headers), to.path()).is_err(), "{headers:?}");
        }
        // Neither setuid nor a size that is not there.
        let to = tempfile::tempdir().unwrap();
        unpack(&archive(&[entry(EntryType::Regular, "bin/x", None, 0o4755)]), to.path()).unwrap();
        assert_eq!(fs::metadata(to.path().join("bin/x")).unwrap().permissions().mode() & 0o7777, 0o755);
        let mut huge = entry(EntryType::Regular, "bin/y", None, 0o644);
        huge.set_size(ARCHIVE_LIMIT + 1);
        huge.set_cksum();
        assert!(unpack(huge.as_bytes(), to.path()).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_damaged_archive_writes_nothing_outside(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
            fs::create_dir_all(from.path().join("bin")).unwrap();
            fs::write(from.path().join("bin/x"), "y").unwrap();
            let mut bytes = pack(from.path()).unwrap();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            bytes.truncate(cut.index(bytes.len()) + 1);
            let root = to.path().join("root");
            fs::create_dir(&root).unwrap();
            let _ = unpack(&bytes, &root);
            prop_assert_eq!(fs::read_dir(to.path()).unwrap().count(), 1);
        }
    }
}
