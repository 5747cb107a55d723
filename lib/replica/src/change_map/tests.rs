//! Marks, generations, bounds, and files that cannot be trusted.

use super::*;
use crate::op::{Owner, Time};
use crate::tree::BLOCK;
use proptest::prelude::*;

const T: Time = Time(1, 2);

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn write(ino: u64, name: &str, offset: u64) -> Op {
    Op::Write { dir: 0, path: path(name), ino, offset, mtime: T }
}

fn create(ino: u64, name: &str) -> Op {
    let owner = Owner { mode: 0o644, uid: 0, gid: 0 };
    Op::Create { dir: 0, path: path(name), ino, kind: Kind::File, owner, rdev: 0, mtime: T, parent_mtime: T }
}

fn rename(ino: u64, from: &str, to: &str) -> Op {
    Op::Rename { dir: 0, from: path(from), path: path(to), ino, flags: 0, from_mtime: T, parent_mtime: T }
}

#[test]
fn generations_retire_in_order() {
    let mut map = ChangeMap::default();
    map.record(&write(1, "a", 0), 10);
    map.seal(1);
    map.record(&write(2, "b", BLOCK * 70), 10);
    map.seal(2);
    map.record(&write(3, "c", 0), 10);
    assert_eq!(map.all().files().count(), 3);
    map.retire(1);
    assert_eq!(map.all().files().map(|(k, _)| k.1).collect::<Vec<_>>(), [2, 3]);
    assert_eq!(map.all().files[&(0, 2)].blocks.runs(1000), [(70, 1)]);
    map.retire(2);
    assert_eq!(map.all().files().map(|(k, _)| k.1).collect::<Vec<_>>(), [3]);
}

#[test]
fn overflow_means_everything() {
    let mut map = ChangeMap::new(10);
    for ino in 0..20 {
        map.record(&write(ino, "a", 0), 10);
    }
    assert!(map.all().everything());
    map.seal(1);
    map.record(&write(1, "a", 0), 1);
    assert!(map.all().everything());
    map.retire(1);
    assert!(!map.all().everything());
    let mut map = ChangeMap::default();
    for place in 0..5000 {
        map.record(&write(1, "a", place * BLOCK * 64), 1);
    }
    assert!(map.all().files[&(0, 1)].blocks.is_whole());
}

#[test]
fn what_came_and_went_leaves_no_entry() {
    let mut map = ChangeMap::default();
    for ino in 0..1000 {
        map.record(&create(ino, "d/tmp"), 0);
        map.record(&write(ino, "d/tmp", 0), 5);
        map.record(&rename(ino, "d/tmp", "d/target"), 0);
    }
    assert_eq!(map.all().files().count(), 1);
    map.record(&Op::Unlink { dir: 0, path: path("d/target"), ino: 999, parent_mtime: T }, 0);
    let set = map.all();
    assert_eq!((set.files().count(), set.moved().count(), set.names().count()), (0, 0, 1));
}

#[test]
fn a_hard_link_keeps_the_mark_of_an_unlinked_name() {
    let mut map = ChangeMap::default();
    map.record(&create(5, "a"), 0);
    map.record(&Op::Link { dir: 0, from: path("a"), path: path("d/b"), ino: 5, parent_mtime: T }, 0);
    map.record(&Op::Unlink { dir: 0, path: path("a"), ino: 5, parent_mtime: T }, 0);
    let set = map.all();
    assert!(set.files().any(|(k, _)| k.1 == 5));
    assert!(set.moved().any(|((_, p), _)| *p == path("d/b")));
    assert_eq!(set.names().count(), 2);
}

#[test]
fn a_damaged_set_is_never_believed() {
    let mut map = ChangeMap::default();
    map.record(&write(1, "a/b", 5), 10);
    map.record(&create(2, "a/c"), 0);
    let good = map.all().to_bytes();
    assert_eq!(DirtySet::from_bytes(&good), Some(map.all()));
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 1;
        assert_eq!(DirtySet::from_bytes(&bad), None, "byte {at}");
        assert_eq!(DirtySet::from_bytes(&good[..at]), None, "cut at {at}");
    }
}

#[test]
fn received_changes_are_found_by_their_paths() {
    let mut map = ChangeMap::default();
    map.record(&write(1, "mine", 5), 10);
    map.set_foreign(true);
    map.record(&write(1, "theirs", 5), 10);
    map.record(&write(2, "gone", 5), 10);
    let mut set = map.all();
    let here = |_: u16, at: &RelPath| Ok::<_, ()>((*at == path("theirs")).then_some(77));
    set.localise(here).unwrap();
    let found: Vec<_> = set.files().map(|((_, ino), change)| (*ino, change.path.clone())).collect();
    assert_eq!(found, [(1, path("mine")), (77, path("theirs"))]);
    assert!(set.moved().any(|((_, at), ino)| *at == path("gone") && ino == 0));
}

proptest! {
    #[test]
    fn runs_hold_every_marked_block(marks in proptest::collection::vec((0u64..40_000_000, 1u64..3_000_000), 0..20), tail in proptest::option::of(0u64..50_000_000)) {
        let mut blocks = Blocks::default();
        let mut naive = std::collections::BTreeSet::new();
        let end = 400;
        for (offset, len) in marks {
            blocks.mark(offset, len);
            naive.extend((offset / BLOCK..=(offset + len - 1) / BLOCK).filter(|b| *b < end));
        }
        if let Some(tail) = tail {
            blocks.mark_tail(tail);
            naive.extend(tail / BLOCK..end);
        }
        let got: Vec<u64> = blocks.runs(end).iter().flat_map(|(first, count)| *first..*first + *count).collect();
        prop_assert_eq!(got, naive.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn garbage_is_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(DirtySet::from_bytes(&bytes).is_none());
        let mut signed = MAGIC.to_vec();
        signed.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
        signed.extend_from_slice(&bytes);
        let sum = blake3::hash(&signed);
        signed.extend_from_slice(sum.as_bytes());
        if let Some(set) = DirtySet::from_bytes(&signed) {
            prop_assert_eq!(DirtySet::from_bytes(&set.to_bytes()), Some(set));
        }
    }
}
