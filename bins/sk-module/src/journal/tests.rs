//! Whatever is told to a core: its journal replays to the same decisions, from every file, and damage is survived.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use super::replay::{Replayer, Taken, replay};
use super::write::Journal;
use super::{file, files, read::Reader};
use crate::exit;
use automaton::{Action, Core, Event, Persisted, Settings};
use proptest::prelude::*;
use serde_json::json;
use std::path::Path;

fn settings() -> Settings {
    Settings {
        node: "node1".into(),
        peer: "node2".into(),
        replicated: true,
        has_vip: true,
        has_scripts: true,
        heartbeat_timeout_ms: 2_000,
        ..Settings::default()
    }
}

/// Inputs as they come from outside; number 0 answers what the core waits for.
fn event(choice: u8, a: u64, open: &mut Vec<Event>) -> Event {
    if choice < 12 && !open.is_empty() {
        return open.remove(0);
    }
    let names = ["STOP", "WAIT", "ALONE", "PRIM", "SECOND"];
    let standings = ["blank", "inconsistent", "outdated", "paired", "alone"];
    let verbs = ["start", "prim", "primforce", "second", "stop", "restart", "stopstart", "swap", "wait", "forcestop"];
    let pick = |list: &[&str], by: u64| list[usize::try_from(by).unwrap() % list.len()].to_owned();
    let lineage = json!([{"id": format!("{:032x}", a % 3), "start": 0}]);
    let value = match choice % 8 {
        0 => json!({"event": "command", "verb": pick(&verbs, a), "origin": "root"}),
        1 => json!({"event": "command", "verb": "restart", "identity": "errd", "origin": "errd"}),
        2 | 3 => json!({"event": "peer_state", "state": {
            "state": {"name": pick(&names, a), "readiness": if a.is_multiple_of(2) { "Ready" } else { "Transient" }},
            "incarnation": a % 4, "standing": pick(&standings, a / 5), "lineage": lineage, "position": a % 9,
            "was_primary": a.is_multiple_of(3), "partner": 1}}),
        4 => json!({"event": "peer_down"}),
        5 => json!({"event": "replica", "report": {
            "role": pick(&["idle", "primary", "secondary"], a), "standing": pick(&standings, a / 3), "lineage": lineage,
            "peer": pick(&["absent", "syncing", "in_sync", "lost", "left"], a / 7), "frozen": false, "position": a}}),
        6 => {
            json!({"event": "resource", "name": "intf.10.0.0.0", "value": pick(&["up", "down"], a), "origin": "intfcheck"})
        }
        _ => json!({"event": "tick"}),
    };
    serde_json::from_value(value).unwrap()
}

/// Writes a journal of these inputs; every life of a runner has `life` of them.
fn write(directory: &Path, inputs: &[(u8, u64)], limit: u64, life: usize) -> Core {
    let mut core = Core::default();
    let mut journal = Journal::with_limit(directory, limit);
    let mut open = vec![];
    let mut persisted = Persisted::default();
    for (step, (choice, a)) in inputs.iter().enumerate() {
        if step.is_multiple_of(life) {
            core = Core::new(settings(), persisted.clone(), step as u64 + 1);
            journal.begin(&settings(), &persisted, step as u64 + 1);
            open = vec![];
        }
        let input = event(*choice, *a, &mut open);
        let (now, wall) = (step as u64 * 700, 1_700_000_000_000 + a);
        journal.prepare(&core);
        let actions = core.handle(now, wall, input.clone());
        journal.event(now, wall, &input, &actions);
        for action in actions {
            match action {
                Action::Script { id, .. } => open.push(Event::ScriptDone { id, exit: Some(0) }),
                Action::Vip { id, .. } => open.push(Event::VipDone { id }),
                Action::Replicate { id, .. } => open.push(Event::ReplicaDone { id }),
                Action::Bye => open.push(Event::ByeDone),
                Action::Persist { core } => persisted = core,
                _ => {}
            }
        }
        assert!(journal.news().is_none());
    }
    core
}

/// Follows a journal to its end, without comparing.
fn follow(path: &Path) -> Replayer {
    let mut replayer = Replayer::default();
    let mut reader = Reader::open(path).unwrap();
    while let Some(entry) = reader.next().unwrap() {
        match entry {
            Ok(entry) => {
                if let Taken::Snapshot { same, .. } = replayer.take(entry.line) {
                    assert_ne!(same, Some(false));
                }
            }
            Err(_) => replayer.lose_track(),
        }
    }
    replayer
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]
    #[test]
    fn every_journal_replays_to_the_same_decisions(
        inputs in prop::collection::vec((0_u8..20, any::<u64>()), 1..150),
        limit in 500_u64..20_000,
        life in 20_usize..200,
    ) {
        let directory = tempfile::tempdir().unwrap();
        let core = write(directory.path(), &inputs, limit, life);
        let all = files(directory.path());
        // All in a row, and each alone.
        prop_assert_eq!(replay(&all, true, false).unwrap(), 0);
        for path in &all {
            prop_assert_eq!(replay(std::slice::from_ref(path), true, false).unwrap(), 0, "{}", path.display());
        }
        prop_assert_eq!(follow(&file(directory.path(), 0)).core, Some(core));
    }

    #[test]
    fn garbage_is_survived(
        inputs in prop::collection::vec((0_u8..20, any::<u64>()), 20..60),
        at in 0.0_f64..1.0,
        garbage in prop::collection::vec(any::<u8>(), 1..300),
        cut in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &inputs, u64::MAX, 1_000);
        let path = file(directory.path(), 0);
        let mut bytes = std::fs::read(&path).unwrap();
        let place = ((bytes.len() as f64) * at) as usize;
        bytes.splice(place..place, garbage);
        if cut {
            bytes.truncate(place);
        }
        std::fs::write(&path, &bytes).unwrap();
        // Any verdict but a panic or a system error; never more inputs than there were.
        prop_assert!(follow(&path).events <= inputs.len() as u64 + 1);
        let verdict = replay(std::slice::from_ref(&path), true, false).unwrap();
        prop_assert!([0, exit::REFUSED, exit::BAD_CONFIGURATION].contains(&verdict));
        // A new runner goes on in the same file.
        let mut journal = Journal::with_limit(directory.path(), u64::MAX);
        journal.begin(&settings(), &Persisted::default(), 9);
        prop_assert!(journal.news().is_none());
        prop_assert!(follow(&path).core.is_some());
    }
}

#[test]
fn a_changed_decision_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let inputs: Vec<(u8, u64)> = (0..40).map(|n| ((n % 20) as u8, n * 31)).collect();
    write(directory.path(), &inputs, u64::MAX, 1_000);
    let path = file(directory.path(), 0);
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.contains("\"rule\":null"));
    std::fs::write(&path, text.replacen("\"rule\":null", "\"rule\":\"other\"", 1)).unwrap();
    assert_eq!(replay(&[path], true, false).unwrap(), exit::REFUSED);
}

#[test]
fn the_files_together_are_bounded() {
    let directory = tempfile::tempdir().unwrap();
    let inputs: Vec<(u8, u64)> = (0..3_000).map(|n| ((n % 20) as u8, n * 37)).collect();
    let limit = 4_000;
    write(directory.path(), &inputs, limit, 10_000);
    let all = files(directory.path());
    assert_eq!(all.len(), super::write::FILES);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), super::write::FILES);
    for path in &all {
        // A snapshot and the line that crosses the limit come on top.
        assert!(std::fs::metadata(path).unwrap().len() < limit + 20_000, "{}", path.display());
    }
}

/// A directory that cannot be written costs the journal, and says so once; what comes when it can be written again is replayable.
#[test]
fn a_journal_that_cannot_be_written_is_told_and_goes_on_later() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().join("later");
    let mut journal = Journal::open(&place);
    assert!(journal.news().unwrap().contains("cannot be written"));
    let mut core = Core::new(settings(), Persisted::default(), 1);
    journal.begin(&settings(), &Persisted::default(), 1);
    let mut tell = |journal: &mut Journal, now: u64| {
        let input = Event::Begin { boot: now == 1 };
        journal.prepare(&core);
        let actions = core.handle(now, now, input.clone());
        journal.event(now, now, &input, &actions);
    };
    tell(&mut journal, 1);
    tell(&mut journal, 2);
    assert!(journal.news().is_none(), "told once");
    std::fs::create_dir(&place).unwrap();
    tell(&mut journal, 3);
    assert!(journal.news().unwrap().contains("2 inputs are missing"));
    tell(&mut journal, 4);
    let path = file(&place, 0);
    let replayer = follow(&path);
    assert_eq!((replayer.events, replayer.missing, replayer.core), (2, 2, Some(core)));
    assert_eq!(replay(&[path], true, false).unwrap(), exit::BAD_CONFIGURATION);
}
