//! Good packages arrive as they were; bad ones leave nothing behind.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use package::{Contents, Error, pack, unpack};
use proptest::prelude::*;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

const CONFIGURATION: &str = "conf/userconfig.xml";

fn module(root: &Path) {
    for directory in ["conf", "bin/sub", "web"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    fs::write(root.join(CONFIGURATION), "<safe/>").unwrap();
    fs::write(root.join("README.md"), "words").unwrap();
    fs::write(root.join("web/page"), "left out").unwrap();
    for (name, mode) in [("start_prim", 0o755), ("common.sh", 0o644), ("sub/ä b", 0o600)] {
        let path = root.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n# {name}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }
}

/// An archive of these entries; a mode of 0 says nothing. Names are written as they are, whatever the library thinks of them.
fn archive(path: &Path, entries: &[(&str, u32, &[u8])]) {
    let mut writer = ZipWriter::new(File::create(path).unwrap());
    let mut names = Vec::new();
    for (number, (name, mode, content)) in entries.iter().enumerate() {
        // A placeholder of the same length is overwritten afterwards, in both places where names stand.
        let mut placeholder = format!("{number:0>width$}", width = name.len());
        assert_eq!(placeholder.len(), name.len(), "{name} is too short for this test");
        if name.ends_with('/') {
            placeholder.replace_range(name.len() - 1.., "/");
        }
        let options = if *mode == 0 {
            SimpleFileOptions::default()
        } else {
            SimpleFileOptions::default().unix_permissions(*mode)
        };
        writer.start_file(placeholder.as_str(), options).unwrap();
        writer.write_all(content).unwrap();
        names.push((placeholder, *name, *mode));
    }
    writer.finish().unwrap();
    let mut bytes = fs::read(path).unwrap();
    for (placeholder, name, mode) in names {
        let mut found = 0;
        for at in 0..bytes.len().saturating_sub(name.len()) {
            let header = |signature: &[u8], length: usize| at >= length && bytes[at - length..].starts_with(signature);
            let length = |back: usize| usize::from(u16::from_le_bytes([bytes[at - back], bytes[at - back + 1]]));
            let local = header(b"PK\x03\x04", 30) && length(4) == name.len();
            let central = header(b"PK\x01\x02", 46) && length(18) == name.len();
            if (local || central) && bytes[at..].starts_with(placeholder.as_bytes()) {
                bytes[at..at + name.len()].copy_from_slice(name.as_bytes());
                found += 1;
                if central && mode & 0o170_000 != 0 {
                    // The kind of file stands in the upper half of the external attributes.
                    bytes[at - 46 + 40..at - 46 + 42].copy_from_slice(&u16::try_from(mode).unwrap().to_le_bytes());
                }
            }
        }
        assert_eq!(found, 2, "{name}");
    }
    fs::write(path, bytes).unwrap();
}

fn place() -> (TempDir, PathBuf, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let (package, into) = (directory.path().join("m.safe"), directory.path().join("into"));
    (directory, package, into)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_module_arrives_as_it_was_packed() {
    let (directory, package, into) = place();
    let source = directory.path().join("source");
    module(&source);
    symlink("start_prim", source.join("bin/start_both")).unwrap();
    let names = pack(&source, Some(7), &package).unwrap();
    let wanted = ["README.md", "bin/common.sh", "bin/start_both", "bin/start_prim", "bin/sub/ä b", CONFIGURATION];
    assert_eq!(names, wanted);
    let contents = unpack(&package, &into).unwrap();
    assert_eq!(contents, Contents { id: Some(7), files: wanted.map(str::to_owned).into(), left_out: vec![] });
    for name in wanted {
        assert_eq!(fs::read(source.join(name)).unwrap(), fs::read(into.join(name)).unwrap(), "{name}");
    }
    assert_eq!(mode(&into.join("bin/start_prim")), 0o755);
    assert_eq!(mode(&into.join("bin/start_both")), 0o755);
    assert_eq!(mode(&into.join("bin/common.sh")), 0o644);
    assert!(into.join("bin/start_both").symlink_metadata().unwrap().is_file(), "a link is packed as what it points to");
    let again = directory.path().join("again.safe");
    pack(&into, Some(7), &again).unwrap();
    assert_eq!(fs::read(&package).unwrap(), fs::read(&again).unwrap(), "the same files give the same package");
    assert!(matches!(pack(&source, None, &package), Err(Error::File { .. })), "an existing file is never replaced");
}

#[test]
fn a_package_of_other_tools_is_taken() {
    let (_directory, package, into) = place();
    archive(
        &package,
        &[
            ("bin/", 0, b""),
            ("bin/start_prim", 0, b"#!/bin/sh\n"),
            ("bin/readme.txt", 0, b"words"),
            ("bin/setuid", 0o104_755, b"x"),
            ("conf/userconfig.xml", 0, b"<safe/>"),
            ("web/index.html", 0, b"x"),
            ("manifest.xml", 0, b"x"),
        ],
    );
    let contents = unpack(&package, &into).unwrap();
    assert_eq!(contents.left_out, ["web/index.html", "manifest.xml"]);
    assert_eq!(contents.id, None);
    assert_eq!(mode(&into.join("bin/setuid")), 0o755, "no bit that gives rights");
    assert!(!into.join("web").exists());
}

#[test]
fn scripts_without_a_mode_are_known_by_their_first_line() {
    let (_directory, package, into) = place();
    archive(
        &package,
        &[
            ("bin/start_prim", 0, b"#!/bin/sh\n"),
            ("bin/readme.txt", 0, b"words"),
            ("conf/userconfig.xml", 0, b"<safe/>"),
        ],
    );
    // The library writes a mode in any case: none is what an archive says that was made on another system.
    let mut bytes = fs::read(&package).unwrap();
    let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"PK\x01\x02")).collect();
    for at in starts {
        bytes[at + 5] = 0;
        bytes[at + 38..at + 42].fill(0);
    }
    fs::write(&package, bytes).unwrap();
    unpack(&package, &into).unwrap();
    assert_eq!(mode(&into.join("bin/start_prim")), 0o755);
    assert_eq!(mode(&into.join("bin/readme.txt")), 0o644);
}

fn refused(entries: &[(&str, u32, &[u8])], words: &str) {
    let (directory, package, into) = place();
    archive(&package, entries);
    let error = unpack(&package, &into).unwrap_err();
    assert!(error.to_string().contains(words), "{entries:?}: {words:?} in {error}");
    assert!(error.hint().is_some() && !error.is_system(), "{error}");
    let left: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert_eq!(left, ["m.safe"], "{entries:?}: nothing stays");
}

#[test]
fn what_leads_out_of_the_module_is_refused() {
    let good: (&str, u32, &[u8]) = (CONFIGURATION, 0o644, b"<safe/>");
    for (name, words) in [
        ("../evil", "has . or .."),
        ("bin/../../evil", "has . or .."),
        ("/etc/cron.d/evil", "absolute"),
        ("bin\\..\\evil", "backslash"),
        ("bin/a\nb", "control"),
        ("bin//evil", "empty"),
        ("web/../bin/evil", "has . or .."),
    ] {
        refused(&[good, (name, 0o644, b"x")], words);
        refused(&[(name, 0o644, b"x"), good], words);
    }
    for mode in [0o120_777, 0o010_644, 0o020_644, 0o060_644, 0o140_644] {
        refused(&[good, ("bin/link", mode, b"/etc/passwd")], "link or a special file");
    }
    refused(&[good, ("web/link", 0o120_777, b"/")], "link or a special file");
    refused(&[good, ("bin/a", 0o644, b"x"), ("bin/a/b", 0o644, b"x")], "twice");
    refused(&[good, ("bin/a/b", 0o644, b"x"), ("bin/a", 0o644, b"x")], "twice");
    refused(&[("id", 0o644, b"1001"), good], "no number");
    refused(&[("bin/start_prim", 0o755, b"x")], "has no conf/userconfig.xml");
    refused(&[("mirror/conf/userconfig.xml", 0o644, b"<safe/>")], "but mirror/conf/userconfig.xml");
}

#[test]
fn entries_of_the_same_name_do_not_hide_each_other() {
    let (_directory, package, into) = place();
    archive(&package, &[(CONFIGURATION, 0o644, b"<good/>"), (CONFIGURATION, 0o644, b"<evil/>")]);
    assert!(unpack(&package, &into).is_err(), "which of the two would another tool have shown?");
    assert!(!into.exists());
}

#[test]
fn bombs_are_refused_before_they_fill_the_disk() {
    let zeros = vec![0_u8; 20 << 20];
    refused(&[(CONFIGURATION, 0o644, b"<safe/>"), ("bin/zeros", 0o644, &zeros)], "too big");
    let (_directory, package, into) = place();
    let mut writer = ZipWriter::new(File::create(&package).unwrap());
    for number in 0..=package::ENTRIES_MAX {
        writer.start_file(format!("bin/{number}"), SimpleFileOptions::default()).unwrap();
    }
    writer.finish().unwrap();
    assert!(unpack(&package, &into).unwrap_err().to_string().contains("entries"));
    assert!(!into.exists());
}

#[test]
fn a_lie_about_the_length_is_of_no_use() {
    let (_directory, package, into) = place();
    let zeros = vec![0_u8; 20 << 20];
    archive(&package, &[(CONFIGURATION, 0o644, b"<safe/>"), ("bin/zeros", 0o644, &zeros)]);
    let mut bytes = fs::read(&package).unwrap();
    let length = u32::try_from(zeros.len()).unwrap().to_le_bytes();
    let places: Vec<usize> = (0..bytes.len() - 4).filter(|at| bytes[*at..].starts_with(&length)).collect();
    assert!(!places.is_empty());
    for at in places {
        bytes[at..at + 4].copy_from_slice(&100_u32.to_le_bytes());
    }
    fs::write(&package, bytes).unwrap();
    assert!(unpack(&package, &into).is_err());
    assert!(!into.exists());
}

#[test]
fn a_module_that_cannot_be_packed_is_named() {
    let (directory, package, _) = place();
    let source = directory.path().join("source");
    module(&source);
    let refused = |name: &str, words: &str| {
        let error = pack(&source, None, &package).unwrap_err();
        assert!(error.to_string().contains(name) && error.to_string().contains(words), "{error}");
        assert!(!package.exists());
    };
    symlink("/etc/passwd", source.join("bin/out")).unwrap();
    refused("bin/out", "leads out");
    fs::remove_file(source.join("bin/out")).unwrap();
    symlink("absent", source.join("bin/dangling")).unwrap();
    refused("bin/dangling", "No such file");
    fs::remove_file(source.join("bin/dangling")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(source.join("bin/socket")).unwrap();
    refused("bin/socket", "neither a file");
    fs::remove_file(source.join("bin/socket")).unwrap();
    fs::write(source.join("bin/zeros"), vec![0; 20 << 20]).unwrap();
    let error = pack(&source, None, &package).unwrap_err();
    assert!(matches!(error, Error::TooBig(_)), "it could not be installed: {error}");
    fs::remove_file(source.join("bin/zeros")).unwrap();
    fs::remove_file(source.join(CONFIGURATION)).unwrap();
    assert!(matches!(pack(&source, None, &package), Err(Error::NoConfiguration { .. })));
    assert!(!package.exists());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Damaged packages: an error or fewer files, never a panic, and never anything outside.
    #[test]
    fn damage_is_survived(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8), cut in proptest::option::of(any::<prop::sample::Index>())) {
        let (directory, package, into) = place();
        let source = directory.path().join("source");
        module(&source);
        pack(&source, Some(3), &package).unwrap();
        let mut bytes = fs::read(&package).unwrap();
        for (at, value) in flips {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        fs::write(&package, bytes).unwrap();
        let result = unpack(&package, &into);
        prop_assert_eq!(result.is_ok(), into.exists());
        let mut names: Vec<_> = fs::read_dir(directory.path()).unwrap().flatten().map(|e| e.file_name()).collect();
        names.retain(|n| n != "into");
        names.sort();
        prop_assert_eq!(names, ["m.safe", "source"]);
    }

    #[test]
    fn garbage_is_no_package(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let (_directory, package, into) = place();
        fs::write(&package, bytes).unwrap();
        prop_assert!(unpack(&package, &into).is_err());
        prop_assert!(!into.exists());
    }
}
