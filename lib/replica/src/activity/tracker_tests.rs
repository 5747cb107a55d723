//! What needs a record, when, and what of it survives a checkpoint.

use super::*;
use proptest::prelude::*;

const NOW: Time = Time(1_000, 0);

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn tracker() -> Tracker {
    Tracker::new(earlier(NOW), true, 10_000)
}

/// Records that an overwrite of a file of 100 extents needs.
fn overwrite(tracker: &mut Tracker, name: &str, ino: u64, offset: u64) -> Vec<Record> {
    content(tracker, name, ino, offset, 100 * EXTENT)
}

fn content(tracker: &mut Tracker, name: &str, ino: u64, offset: u64, size: u64) -> Vec<Record> {
    let path = path(name);
    let state = || Ok(State { size, links: 1 });
    let touch = Touch::Content { dir: 0, ino, path: &path, offset, end: offset + 10, state: &state };
    let mut out = Vec::new();
    tracker.touch(&touch, NOW, &mut out).unwrap();
    out
}

fn names(tracker: &mut Tracker, directory: &str, parent: u64) -> Vec<Record> {
    let path = path(directory);
    let mut out = Vec::new();
    tracker.touch(&Touch::Names { dir: 0, parent, path: &path }, NOW, &mut out).unwrap();
    out
}

fn listed(directory: &str) -> Vec<Record> {
    vec![Record::Names { dir: 0, path: path(directory) }]
}

#[test]
fn a_second_overwrite_of_an_extent_needs_nothing() {
    let mut t = tracker();
    assert_eq!(overwrite(&mut t, "d/f", 7, 0).len(), 1);
    assert!(overwrite(&mut t, "d/f", 7, 5).is_empty());
    assert_eq!(overwrite(&mut t, "d/f", 7, 9 * EXTENT).len(), 1);
    // It is one extent behind: one ahead.
    assert_eq!(overwrite(&mut t, "d/f", 7, 10 * EXTENT).len(), 1);
    assert!(overwrite(&mut t, "d/f", 7, 11 * EXTENT).is_empty());
}

#[test]
fn what_was_born_emptied_or_prolonged_is_found_by_its_directory_until_the_next_generation() {
    let mut t = tracker();
    assert_eq!(names(&mut t, "d", 2), listed("d"));
    t.born(0, 7);
    assert!(overwrite(&mut t, "d/f", 7, 0).is_empty());
    assert_eq!(content(&mut t, "e/g", 8, 100, 100), listed("e"), "prolonged");
    assert!(content(&mut t, "e/g", 8, 150, 200).is_empty(), "within what was added");
    assert_eq!(content(&mut t, "e/g", 8, 50, 200).len(), 1, "what was there before");
    t.bump(NOW);
    assert_eq!(overwrite(&mut t, "d/f", 7, 0).len(), 1, "its blocks may be durable in the older generation");
    assert_eq!(content(&mut t, "e/g", 8, 150, 200), [], "the extent is recorded by now");
}

#[test]
fn entries_of_a_new_directory_need_nothing() {
    let mut t = tracker();
    assert_eq!(names(&mut t, "", 2), listed(""));
    t.born(0, 9);
    assert!(names(&mut t, "new", 9).is_empty());
    t.bump(NOW);
    assert_eq!(names(&mut t, "new", 9), listed("new"));
}

#[test]
fn a_retired_generation_keeps_what_was_touched_since() {
    let mut t = tracker();
    t.most = 10;
    overwrite(&mut t, "old", 1, 0);
    // Too many to keep any longer than needed.
    t.entries = FEW + 1;
    let sealed = t.bump(NOW);
    overwrite(&mut t, "new", 2, 0);
    let mut kept = Vec::new();
    t.retire(sealed, &mut kept);
    assert!(matches!(&kept[..], [Record::Content { ino: 2, .. }]), "{kept:?}");
    assert!(overwrite(&mut t, "new", 2, 0).is_empty());
    assert_eq!(overwrite(&mut t, "old", 1, 0).len(), 1);
}

#[test]
fn what_is_used_again_and_again_is_written_once() {
    let mut t = tracker();
    let mut written = 0;
    for _ in 0..50 {
        written += overwrite(&mut t, "base/1", 1, 0).len() + names(&mut t, "base", 2).len();
        let sealed = t.bump(NOW);
        t.retire(sealed, &mut Vec::new());
    }
    assert_eq!(written, 2);
}

#[test]
fn a_renamed_file_is_known_by_both_names_and_what_was_recorded_is_recorded_again() {
    let mut t = tracker();
    overwrite(&mut t, "a", 1, 0);
    let (a, b) = (path("a"), path("b"));
    let mut out = Vec::new();
    t.touch(&Touch::Renamed { dir: 0, ino: 1, from: &a, path: &b, directory: false }, NOW, &mut out).unwrap();
    let Some(Record::Content { paths, extents, .. }) = out.first() else { panic!("{out:?}") };
    assert_eq!((&paths[..], *extents), (&[b, a][..], Extents::Some { first: 0, last: 0 }));
    assert!(overwrite(&mut t, "b", 1, 0).is_empty());
    let mut out = Vec::new();
    t.records(&mut out);
    assert_eq!(out.len(), 1);
}

#[test]
fn a_clock_that_is_set_back_is_recorded() {
    let mut t = tracker();
    let root = path("");
    let mut out = Vec::new();
    let touch = Touch::Names { dir: 0, parent: 0, path: &root };
    t.touch(&touch, Time(500, 0), &mut out).unwrap();
    assert_eq!(out.first(), Some(&Record::Since(Time(497, 0))));
    assert_eq!(t.since(), Time(497, 0));
    let mut again = Vec::new();
    t.touch(&touch, Time(500, 0), &mut again).unwrap();
    assert!(again.is_empty());
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Rename(u64),
    Bump,
    Retire,
}

proptest! {
    /// Whatever was overwritten since the last retired generation is in the records, by a name that it has or had.
    #[test]
    fn records_cover_every_overwrite_that_is_not_retired(steps in proptest::collection::vec(prop_oneof![
        4 => (0..4u64, 0..6u64).prop_map(|(f, e)| Step::Write(f, e)),
        1 => (0..4u64).prop_map(Step::Rename),
        1 => Just(Step::Bump),
        1 => Just(Step::Retire),
    ], 1..80)) {
        let mut t = tracker();
        let mut log: Vec<Record> = Vec::new();
        let mut name: Vec<String> = (0..4).map(|n| format!("f{n}")).collect();
        let mut changed: Vec<(u64, u64, u64)> = Vec::new();
        let (mut generation, mut sealed, mut renamed) = (1, Vec::new(), 0);
        for step in steps {
            match step {
                Step::Write(file, extent) => {
                    log.extend(overwrite(&mut t, &name[file as usize], file + 10, extent * EXTENT));
                    changed.push((generation, file, extent));
                }
                Step::Rename(file) => {
                    renamed += 1;
                    let (from, to) = (path(&name[file as usize]), path(&format!("r{renamed}")));
                    let touch = Touch::Renamed { dir: 0, ino: file + 10, from: &from, path: &to, directory: false };
                    t.touch(&touch, NOW, &mut log).unwrap();
                    name[file as usize] = format!("r{renamed}");
                }
                Step::Bump => {
                    sealed.push(t.bump(NOW));
                    generation += 1;
                }
                Step::Retire => {
                    let Some(number) = sealed.pop() else { continue };
                    sealed.clear();
                    changed.retain(|(when, _, _)| *when > number);
                    log.clear();
                    t.retire(number, &mut log);
                }
            }
            for (_, file, extent) in &changed {
                let covered = log.iter().any(|record| matches!(record,
                    Record::Content { ino, paths, extents: Extents::Some { first, last }, .. }
                        if *ino == file + 10 && first <= extent && extent <= last
                            && paths.contains(&path(&name[*file as usize]))));
                prop_assert!(covered, "file {file} extent {extent} is missing in {log:?}");
            }
        }
    }
}
