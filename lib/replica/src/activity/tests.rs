//! Records on the disk and what they mean for the tree afterwards, with and without lies.

use super::*;
use crate::op::Owner;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;

const LOG: StreamId = StreamId(5);
const T: Time = Time(1, 2);

fn worth() -> Worth {
    Worth { id: StreamId(9), base: Some(EpochId(1)), also: None }
}

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

struct Place {
    state: tempfile::TempDir,
    tree: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { state: tempfile::tempdir().unwrap(), tree: tempfile::tempdir().unwrap() }
    }

    fn open(&self, expected: Option<StreamId>) -> (Activity, Recovered) {
        Activity::open(self.state.path(), expected, LOG).unwrap()
    }

    /// A log that starts with a common checkpoint.
    fn started(&self, strict: bool) -> Activity {
        let activity = self.open(None).0;
        activity.restart(worth(), &DirtySet::default(), strict).unwrap();
        activity.retire(activity.bump(), worth()).unwrap();
        activity
    }

    fn resolved(&self) -> DirtySet {
        let roots: Vec<OwnedFd> = vec![fs::File::open(self.tree.path()).unwrap().into()];
        self.open(Some(LOG)).1.resolve(&roots).unwrap()
    }

    fn ino(&self, name: &str) -> u64 {
        fs::metadata(self.tree.path().join(name)).unwrap().ino()
    }
}

fn overwrite(activity: &Activity, ino: u64, name: &str, links: u64) {
    let state = || Ok(State { size: 1 << 30, links });
    let path = path(name);
    let touch = Touch::Content { dir: 0, ino, path: &path, offset: 20 << 20, end: (20 << 20) + 5, state: &state };
    activity.about_to(&touch).unwrap();
}

fn names(activity: &Activity, directory: &str) {
    activity.about_to(&Touch::Names { dir: 0, parent: 1, path: &path(directory) }).unwrap();
}

/// A file with its blocks.
type Changed = (String, Vec<(u64, u64)>);

/// Paths to compare, directories to list, files.
fn told(set: &DirtySet) -> (Vec<String>, Vec<String>, Vec<Changed>) {
    let text = |p: &RelPath| String::from_utf8_lossy(p.as_bytes()).into_owned();
    (
        set.moved().map(|((_, p), _)| text(p)).collect(),
        set.names().map(|(_, p)| text(p)).collect(),
        set.files().map(|(_, c)| (text(&c.path), c.blocks.runs(1 << 20))).collect(),
    )
}

#[test]
fn a_crash_tells_exactly_what_was_touched() {
    let place = Place::new();
    let tree = place.tree.path();
    for name in ["old", "touched", "d"] {
        fs::create_dir(tree.join(name)).unwrap();
    }
    fs::write(tree.join("old/untouched"), b"x").unwrap();
    fs::write(tree.join("touched/before"), b"x").unwrap();
    fs::write(tree.join("d/base"), b"x").unwrap();
    // Change times are compared with a margin.
    let long_ago = std::time::Instant::now() + std::time::Duration::from_millis(4100);
    while std::time::Instant::now() < long_ago {
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
    let activity = place.started(true);
    overwrite(&activity, place.ino("d/base"), "d/base", 1);
    names(&activity, "touched");
    fs::write(tree.join("touched/new"), b"y").unwrap();
    fs::create_dir(tree.join("touched/dir")).unwrap();
    drop(activity);
    let (moved, listed, files) = told(&place.resolved());
    assert_eq!(moved, ["touched/dir", "touched/new"]);
    assert_eq!(listed, ["touched"]);
    assert_eq!(files, [("d/base".to_owned(), vec![(128, 128)])]);
}

#[test]
fn nothing_but_a_common_checkpoint_moves_the_time_on() {
    let place = Place::new();
    let known = DirtySet::default();
    {
        let activity = place.open(None).0;
        assert_eq!(activity.since(), Time::default());
        activity.restart(worth(), &known, false).unwrap();
        assert_eq!(activity.since(), Time::default(), "copied to, and no checkpoint yet");
        names(&activity, "d");
        assert_eq!(activity.since(), Time::default());
    }
    let since = {
        let activity = place.open(Some(LOG)).0;
        activity.restart(worth(), &known, false).unwrap();
        let begun = activity.bump();
        assert_eq!(activity.since(), Time::default(), "not common yet");
        activity.retire(begun, worth()).unwrap();
        activity.since()
    };
    assert!(since > Time::default() && since < now(), "{since:?}");
    for strict in [false, true] {
        let activity = place.open(Some(LOG)).0;
        assert_eq!(activity.since(), since);
        activity.restart(worth(), &known, strict).unwrap();
        activity.bump();
        assert_eq!(activity.since(), since);
    }
    let activity = place.open(Some(LOG)).0;
    activity.restart(worth(), &DirtySet::all_of_it(), false).unwrap();
    assert_eq!(activity.since(), Time::default());
    drop(activity);
    assert_eq!(place.open(Some(LOG)).0.since(), Time::default());
}

#[test]
fn a_file_is_found_by_any_of_its_names_and_looked_for_when_it_had_several() {
    let place = Place::new();
    let tree = place.tree.path();
    for name in ["a", "b", "c"] {
        fs::write(tree.join(name), b"x").unwrap();
    }
    fs::create_dir(tree.join("far")).unwrap();
    fs::hard_link(tree.join("c"), tree.join("far/other")).unwrap();
    let (a, b, c) = (place.ino("a"), place.ino("b"), place.ino("c"));
    let activity = place.started(true);
    // The rename did not reach the disk.
    let renamed = Touch::Renamed { dir: 0, ino: a, from: &path("a"), path: &path("a2"), directory: false };
    activity.about_to(&renamed).unwrap();
    overwrite(&activity, a, "a2", 1);
    // It was removed; somebody else has its name.
    overwrite(&activity, b, "b", 1);
    fs::remove_file(tree.join("b")).unwrap();
    fs::write(tree.join("b3"), b"keeps the number from being used again").unwrap();
    fs::write(tree.join("b"), b"other").unwrap();
    // It lost the name by which it was written to.
    overwrite(&activity, c, "c", 2);
    fs::remove_file(tree.join("c")).unwrap();
    drop(activity);
    let (_, _, files) = told(&place.resolved());
    let names: Vec<_> = files.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.contains(&"a") && names.contains(&"far/other"), "{names:?}");
}

#[test]
fn a_log_of_somebody_else_or_that_ended_means_everything() {
    let place = Place::new();
    drop(place.started(true));
    assert!(!place.resolved().everything());
    let roots: Vec<OwnedFd> = Vec::new();
    for expected in [None, Some(StreamId(6))] {
        assert!(place.open(expected).1.resolve(&roots).unwrap().everything(), "{expected:?}");
    }
    let activity = place.started(true);
    for n in 0..MAX_ENTRIES as u64 + 10 {
        let name = path(&format!("d{n}"));
        activity.lock().note(&Touch::Names { dir: 0, parent: 1, path: &name }).unwrap();
    }
    names(&activity, "one more");
    assert!(activity.is_useless());
    assert!(place.resolved().everything());
    // The next common checkpoint begins a new one.
    let generation = activity.bump();
    names(&activity, "later");
    activity.retire(generation, worth()).unwrap();
    assert_eq!(told(&place.resolved()).1, ["later"]);
}

#[test]
fn a_window_is_worth_something_once_the_peer_has_adopted_our_epoch() {
    let place = Place::new();
    let activity = place.open(None).0;
    activity.restart(Worth { base: None, ..worth() }, &DirtySet::all_of_it(), true).unwrap();
    names(&activity, "before");
    activity.open_window();
    names(&activity, "within");
    assert!(place.resolved().everything());
    activity.pair(StreamId(1), Some(EpochId(8))).unwrap();
    names(&activity, "after");
    let (_, recovered) = place.open(Some(LOG));
    assert_eq!(recovered.header.base, Some(EpochId(8)));
    assert_eq!(told(&place.resolved()).1, ["after", "within"]);
    // A log that is worth something keeps that, and is also worth the new epoch.
    activity.pair(StreamId(1), Some(EpochId(9))).unwrap();
    let header = place.open(Some(LOG)).1.header;
    assert_eq!((header.base, header.also), (Some(EpochId(8)), Some(EpochId(9))));
}

#[test]
fn many_who_touch_at_once_all_find_their_records() {
    let place = Place::new();
    let activity = Arc::new(place.started(true));
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let activity = activity.clone();
            std::thread::spawn(move || {
                for n in 0..40 {
                    names(&activity, &format!("{thread}/{n}"));
                    if n % 16 == thread {
                        let generation = activity.bump();
                        // Of no generation that is in use.
                        activity.retire(generation.saturating_sub(200), worth()).unwrap();
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
    drop(activity);
    assert_eq!(told(&place.resolved()).1.len(), 320);
}

#[test]
fn a_secondary_writes_without_waiting_and_knows_files_by_their_paths() {
    let place = Place::new();
    fs::create_dir(place.tree.path().join("d")).unwrap();
    fs::write(place.tree.path().join("d/f"), b"x").unwrap();
    let activity = place.started(false);
    let write = Op::Write { dir: 0, path: path("d/f"), ino: 4711, offset: 0, mtime: T };
    activity.follow(&write, 10).unwrap();
    let owner = Owner { mode: 0o755, uid: 0, gid: 0 };
    let kind = Kind::Directory;
    activity
        .follow(&Op::Create { dir: 0, path: path("e"), ino: 3, kind, owner, rdev: 0, mtime: T, parent_mtime: T }, 0)
        .unwrap();
    activity.flush().unwrap();
    drop(activity);
    let set = place.resolved();
    let (moved, listed, files) = told(&set);
    assert_eq!(files, [("d/f".to_owned(), vec![(0, 128)])]);
    assert!(moved.contains(&"e".to_owned()) && listed.contains(&String::new()), "{moved:?} {listed:?}");
    assert_eq!(set.files().next().unwrap().0.1, place.ino("d/f"));
}

#[test]
fn a_log_that_cannot_be_written_is_an_error_until_it_is_given_up() {
    let place = Place::new();
    let activity = place.open(None).0;
    fs::remove_dir_all(place.state.path()).unwrap();
    assert!(activity.restart(worth(), &DirtySet::default(), true).is_err());
    let touch = Touch::Names { dir: 0, parent: 1, path: &path("d") };
    assert!(activity.about_to(&touch).is_err());
    activity.disable(StreamId(77));
    activity.about_to(&touch).unwrap();
    assert_eq!(activity.log(), StreamId(77));
}
