//! A snapshot for somebody who may not know whose it is: addresses and names are replaced, and what stands for what stays here.

mod names;

use crate::support::new_file;
use crate::{Failure, exit};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use names::Anonymiser;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use tar::{Archive, Builder, Header};

/// A snapshot has less.
const CONTENT_MAX: u64 = 256 << 20;
const ENTRIES_MAX: usize = 16_384;

/// `sk-module anonymise`.
pub(crate) fn anonymise(snapshot: &Path, target: &Path) -> Result<u8, Failure> {
    let catalogue = PathBuf::from(format!("{}.catalogue", target.display()));
    let unreadable = |e: io::Error| {
        Failure::new(exit::REFUSED, format!("{} is no snapshot: {e}", snapshot.display()))
            .hint("make one with: sk-module snapshot /tmp/snapshot.tar.gz")
    };
    let file = File::open(snapshot).map_err(|e| Failure::system(snapshot.display(), e))?;
    let entries = read(file).map_err(unreadable)?;
    let patterns = |e| Failure::system("patterns of names", e);
    let mut names = Anonymiser::new().map_err(patterns)?;
    for (name, text) in &entries {
        // snapshot_HOST_2026_11_20_10_00_00
        if let Some(host) = name.strip_prefix("snapshot_").and_then(|n| n.split('/').next()).and_then(host_of) {
            names.learn_name(host).map_err(patterns)?;
        }
        if Path::new(name).extension().is_some_and(|e| e == "xml") {
            names.learn(text).map_err(patterns)?;
        }
    }
    new_file(target, 0o600, |file| pack(file, &entries, &mut names))?;
    let written = new_file(&catalogue, 0o600, |mut file| {
        for (word, original) in names.catalogue() {
            writeln!(file, "{word}\t{original}")?;
        }
        Ok(())
    });
    if written.is_err() {
        // Without its catalogue nobody here could read the answer.
        let _ = std::fs::remove_file(target);
    }
    written?;
    say!("{}", target.display());
    say!("{} (stays here: what stands for what)", catalogue.display());
    Ok(0)
}

fn host_of(directory: &str) -> Option<&str> {
    // The date and time that follow are six numbers.
    directory.rsplitn(7, '_').nth(6)
}

/// Names and texts of the plain files in a snapshot.
fn read(file: File) -> io::Result<Vec<(String, String)>> {
    let too_large = || io::Error::other("it holds more than a snapshot may");
    // One byte more shows that there is more.
    let mut archive = Archive::new(GzDecoder::new(file).take(CONTENT_MAX + 1));
    let (mut entries, mut left) = (Vec::new(), CONTENT_MAX);
    for entry in archive.entries()? {
        let mut entry = entry?;
        if !entry.header().entry_type().is_file() {
            continue;
        }
        left = left.checked_sub(entry.size()).ok_or_else(too_large)?;
        if entries.len() >= ENTRIES_MAX {
            return Err(too_large());
        }
        let name = entry.path()?.to_string_lossy().into_owned();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes)?;
        entries.push((name, String::from_utf8_lossy(&bytes).into_owned()));
    }
    if entries.is_empty() {
        return Err(io::Error::other("there is nothing in it"));
    }
    Ok(entries)
}

fn pack(file: &File, entries: &[(String, String)], names: &mut Anonymiser) -> io::Result<()> {
    let mut builder = Builder::new(GzEncoder::new(file, Compression::default()));
    for (name, text) in entries {
        let text = names.apply(text);
        let mut header = Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, names.apply(name), text.as_bytes())?;
    }
    builder.into_inner()?.finish().map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(path: &Path, entries: &[(&str, &str)]) {
        let mut builder = Builder::new(GzEncoder::new(File::create(path).unwrap(), Compression::default()));
        for (name, text) in entries {
            let mut header = Header::new_gnu();
            header.set_size(text.len() as u64);
            builder.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        builder.into_inner().unwrap().finish().unwrap();
    }

    #[test]
    fn names_are_replaced_in_texts_and_file_names_and_the_catalogue_stays() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("s.tar.gz"), dir.path().join("a.tar.gz"));
        let root = "snapshot_db_paris_2026_11_20_10_00_00";
        snapshot(
            &from,
            &[
                (&format!("{root}/cluster/cluster.xml"), r#"<node name="lyon" addr="10.9.8.7"/>"#),
                (&format!("{root}/web/run/lyon.json"), r#"{"peer":"lyon","to":"10.9.8.7:5600","node":"db_paris"}"#),
            ],
        );
        anonymise(&from, &to).unwrap_or_else(|e| panic!("{}", e.message));
        let entries = read(File::open(&to).unwrap()).unwrap();
        let all = format!("{entries:?}");
        assert!(!all.contains("lyon") && !all.contains("paris") && !all.contains("10.9.8.7"), "{all}");
        assert!(entries[1].0.contains("web/run/node-2.json") && entries[1].1.contains("address-1:5600"), "{all}");
        let catalogue = std::fs::read_to_string(dir.path().join("a.tar.gz.catalogue")).unwrap();
        assert!(catalogue.contains("node-1\tdb_paris\n") && catalogue.contains("address-1\t10.9.8.7\n"), "{catalogue}");
        let again = anonymise(&from, &to).map_err(|e| e.message);
        assert!(again.unwrap_err().contains("exists already"));
    }

    #[test]
    fn what_is_no_snapshot_is_refused_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("s.tar.gz"), dir.path().join("a.tar.gz"));
        for garbage in [&b""[..], b"not a gzip file", &[0x1f, 0x8b, 8, 0, 1, 2, 3]] {
            std::fs::write(&from, garbage).unwrap();
            assert!(anonymise(&from, &to).is_err());
            assert!(!to.exists());
        }
        snapshot(&from, &[]);
        assert!(anonymise(&from, &to).is_err() && !to.exists());
    }
}
