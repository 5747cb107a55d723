//! In what do two states of one place of the stream differ?

use super::FINE;
use super::question::{Content, Object};
use crate::op::{Kind, RelPath};
use crate::resync::ask::unpack;
use crate::tree::EMPTY;
use serde::{Deserialize, Serialize};

/// A difference between the replicas.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// Number of the replicated directory, from 0.
    pub dir: u16,
    /// Relative to it.
    pub path: RelPath,
    #[serde(flatten)]
    pub what: What,
}

/// What differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum What {
    /// The secondary does not have it.
    Missing,
    /// Only the secondary has it.
    Extra,
    /// `kind`, `mode`, `owner`, `size`, `mtime`, `links`, `device`, `target`, `xattrs`.
    Attributes { attributes: Vec<String> },
    /// Offset and length of the content that differs, in whole pages of 4096 bytes (but at the file's end).
    Content { ranges: Vec<(u64, u64)> },
}

/// What differs between an entry here and there. `partial`: something is excluded, so that directories' times and counts of names may differ.
pub(super) fn objects(ours: Option<&Object>, theirs: Option<&Object>, partial: bool) -> Option<What> {
    let (ours, theirs) = match (ours, theirs) {
        (None, None) => return None,
        (Some(_), None) => return Some(What::Missing),
        (None, Some(_)) => return Some(What::Extra),
        (Some(ours), Some(theirs)) => (ours, theirs),
    };
    if ours.mount || theirs.mount {
        return None;
    }
    let changing = partial && ours.kind == Kind::Directory;
    let found = [
        ("kind", ours.kind != theirs.kind),
        ("mode", ours.mode != theirs.mode),
        ("owner", (ours.uid, ours.gid) != (theirs.uid, theirs.gid)),
        ("size", ours.size != theirs.size),
        ("mtime", ours.mtime != theirs.mtime && !changing),
        ("links", ours.links != theirs.links && !partial),
        ("device", ours.rdev != theirs.rdev),
        ("target", ours.target != theirs.target),
        ("xattrs", ours.xattrs != theirs.xattrs),
    ];
    let attributes: Vec<String> = found.into_iter().filter(|(_, d)| *d).map(|(name, _)| name.to_owned()).collect();
    (!attributes.is_empty()).then_some(What::Attributes { attributes })
}

/// Numbers of the units, of those asked, that differ. A file is an endless array that is zero beyond its end.
pub(super) fn units(ours: &Content, theirs: &Content, first: u64, count: u64) -> Vec<u64> {
    let (Some(a), Some(b)) = (unpack(&ours.hashes), unpack(&theirs.hashes)) else {
        // An answer that cannot be read says nothing: look at everything.
        return (first..first.saturating_add(count)).collect();
    };
    let at = |hashes: &[u128], n: u64| hashes.get(n as usize).copied().unwrap_or(EMPTY);
    (0..count).filter(|n| at(&a, *n) != at(&b, *n)).map(|n| first + n).collect()
}

/// Pages as ranges, neighbours joined, nothing beyond `size` bytes.
pub(super) fn ranges(pages: impl IntoIterator<Item = u64>, size: u64) -> Vec<(u64, u64)> {
    let mut found: Vec<(u64, u64)> = Vec::new();
    for page in pages {
        let start = page.saturating_mul(FINE);
        let length = FINE.min(size.saturating_sub(start));
        match found.last_mut() {
            _ if length == 0 => {}
            Some(last) if last.0 + last.1 == start => last.1 += length,
            _ => found.push((start, length)),
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::op::Time;
    use crate::resync::ask::pack;

    fn file() -> Object {
        Object {
            kind: Kind::File,
            mode: 0o644,
            uid: 1,
            gid: 2,
            size: Some(3),
            mtime: Time(4, 5),
            links: Some(1),
            rdev: None,
            target: None,
            xattrs: None,
            mount: false,
        }
    }

    #[test]
    fn each_attribute_counts_and_is_named() {
        let ours = file();
        assert_eq!(objects(Some(&ours), Some(&ours), false), None);
        assert_eq!(objects(Some(&ours), None, false), Some(What::Missing));
        assert_eq!(objects(None, Some(&ours), false), Some(What::Extra));
        for (name, theirs) in [
            ("kind", Object { kind: Kind::Fifo, ..file() }),
            ("mode", Object { mode: 0o600, ..file() }),
            ("owner", Object { gid: 3, ..file() }),
            ("size", Object { size: Some(4), ..file() }),
            ("mtime", Object { mtime: Time(4, 6), ..file() }),
            ("links", Object { links: Some(2), ..file() }),
            ("device", Object { rdev: Some(1), ..file() }),
            ("target", Object { target: Some(String::new()), ..file() }),
            ("xattrs", Object { xattrs: Some(String::new()), ..file() }),
        ] {
            let found = objects(Some(&ours), Some(&theirs), false);
            assert_eq!(found, Some(What::Attributes { attributes: vec![name.into()] }));
        }
        let directory = |seconds| Object { kind: Kind::Directory, mtime: Time(seconds, 0), ..file() };
        assert_eq!(objects(Some(&directory(1)), Some(&directory(2)), true), None);
        assert!(objects(Some(&directory(1)), Some(&directory(2)), false).is_some());
    }

    #[test]
    fn units_beyond_an_end_are_zero_and_ranges_are_exact() {
        let content = |hashes: &[u128]| Content { found: true, size: 0, hashes: pack(hashes) };
        assert_eq!(units(&content(&[1, 2, 0]), &content(&[1, 3]), 8, 4), [9]);
        assert_eq!(units(&content(&[1, 2, 7]), &content(&[1]), 8, 4), [9, 10]);
        let broken = Content { hashes: "x".into(), ..Content::default() };
        assert_eq!(units(&content(&[]), &broken, 8, 2), [8, 9]);
        assert_eq!(ranges([1, 2, 4], 5 * FINE - 10), [(FINE, 2 * FINE), (4 * FINE, FINE - 10)]);
        assert_eq!(ranges([9], 10), []);
    }
}
