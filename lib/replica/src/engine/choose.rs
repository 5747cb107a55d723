//! A secondary knocks: does it continue where it was, what must be copied, or is it refused. Pure.
//!
//! Why each answer is right:
//! * *Resume* is offered only in paired service. Then every operation after the secondary's place is still in the ring (frames are forgotten only
//!   when the secondary settled them), and a place is bound to the identity of the ring, so equal numbers of different histories cannot be
//!   confused. A secondary that declared itself outdated is not resumed: the primary may be about to exclude it on the strength of that declaration.
//! * A primary in paired service with a secondary that cannot resume must first exclude it, because a resynchronisation makes
//!   the secondary useless for a takeover, and what is acknowledged then belongs to an epoch of its own.
//! * *Incremental* needs that the change maps cover every difference. Ours covers what changed here since the last common checkpoint with a
//!   replica whose newest epoch is `base`. The secondary's own unshared changes (it served, and crashed or was on its own) are not in
//!   it: they are in the secondary's map, which must begin in the same epoch, and is sent after the welcome. A secondary left
//!   inconsistent by an incremental resynchronisation differs by part of those same maps, and by nothing else.
//! * *Since* a moment relies on the operator's word, and on change times, which applications cannot set; a clock that was set back behind the
//!   moment is noticed, one that was set back less is not.
//! * Everything else is compared by hash, which needs no assumption.

use crate::policy::{Policy, Side};
use crate::stream::message::{Hello, Mode, StreamId, VERSION, Vouched};
use lineage::{EpochId, Lineage, Relation, Standing};

/// What the primary knows.
pub struct Local<'a> {
    pub module: &'a str,
    /// Name of the peer's node.
    pub peer: &'a str,
    pub directories: u16,
    pub lineage: &'a Lineage,
    pub standing: Standing,
    /// The acknowledgement of the peer is needed.
    pub paired: bool,
    /// The hello's place is in the ring.
    pub resumable: bool,
    pub map: Covered,
    /// What the operator wants of the next synchronisation.
    pub policy: &'a Policy,
    /// Seconds since 1970.
    pub now: i64,
}

/// What the change map is worth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Covered {
    /// Identity of the map since it began.
    pub id: StreamId,
    /// Newest epoch of the replica whose differences it covers. None: it covers nobody's (everything must be compared).
    pub base: Option<EpochId>,
    /// Another such epoch: of a peer that was about to adopt it when this node ended.
    pub also: Option<EpochId>,
}

impl Covered {
    /// Whether it covers all differences from a replica of this epoch.
    pub fn covers(&self, epoch: EpochId) -> bool {
        self.base == Some(epoch) || self.also == Some(epoch)
    }
}

/// The answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Resume,
    /// `covered`: an interruption can be continued from the change map.
    /// `changed`: the secondary's map is needed, too.
    Resync {
        mode: Mode,
        covered: bool,
        changed: bool,
    },
    /// All names, and the content of what changed since this moment.
    Since(i64),
    Refuse(String),
    /// Refused, and it is of no use to try again.
    Hopeless(String),
}

/// Since when there may be changes that the operator's copy has not.
fn moment(local: &Local<'_>, vouched: &Vouched) -> Result<i64, String> {
    let (moment, what) = match vouched {
        Vouched::Since(moment) => (*moment, "the date given".to_owned()),
        Vouched::Mark(uid) => match local.policy {
            Policy::External { role: Side::Prim, uid: ours, since: Some(since), .. } if ours == uid => {
                (*since, format!("the mark {uid}"))
            }
            _ => {
                return Err(format!(
                    "the primary was not marked with {uid}: before the data are copied, say there: sk-replicate policy -m {} external prim {uid}",
                    local.module
                ));
            }
        },
    };
    if moment > local.now {
        return Err(format!(
            "{what} lies {} s in the future of the primary's clock: what changed since then cannot be told; start with a full synchronisation",
            moment.saturating_sub(local.now)
        ));
    }
    Ok(moment)
}

/// See the module's text.
pub fn choose(local: &Local<'_>, hello: &Hello) -> Choice {
    let refuse = |reason: String| Choice::Refuse(reason);
    let resync = |mode| Choice::Resync { mode, covered: false, changed: false };
    if hello.version != VERSION {
        return refuse(format!(
            "it speaks version {} of the stream, we speak {VERSION}: install the same release on both nodes",
            hello.version
        ));
    }
    if hello.module != local.module || hello.node != local.peer {
        return refuse(format!(
            "it is module {} of node {}, expected was module {} of node {}: compare cluster.xml on both nodes",
            hello.module, hello.node, local.module, local.peer
        ));
    }
    if hello.directories != local.directories {
        return refuse(format!(
            "it replicates {} directories, we {}: apply the same configuration on both nodes",
            hello.directories, local.directories
        ));
    }
    if local.paired {
        return if local.resumable && !hello.full && hello.standing != Standing::Outdated {
            Choice::Resume
        } else {
            refuse("it lost its place in the stream and has not been excluded yet".into())
        };
    }
    if hello.full || *local.policy == Policy::Full {
        return resync(Mode::Full);
    }
    if let Some(vouched) = &hello.vouched
        && local.lineage.compare(&hello.lineage) != Relation::Older
    {
        return moment(local, vouched).map_or_else(Choice::Hopeless, Choice::Since);
    }
    if hello.standing == Standing::Blank || hello.lineage.head().is_none() {
        return resync(Mode::Full);
    }
    match local.lineage.compare(&hello.lineage) {
        Relation::Older => refuse("its data is newer than ours: stop the module here and start it there first".into()),
        Relation::BothBlank => resync(Mode::Full),
        Relation::Same => resync(Mode::Compare),
        relation => {
            let changed = hello.unshared || relation == Relation::Diverged;
            let shared = hello.changed.iter().any(|epoch| local.map.covers(*epoch));
            let covered = match hello.standing {
                Standing::Inconsistent => {
                    local.map.base.is_some() && hello.covered_by == Some(local.map.id) && (!changed || shared)
                }
                _ if changed => shared,
                _ => hello.lineage.head().is_some_and(|head| local.map.covers(head)),
            };
            if covered { Choice::Resync { mode: Mode::Incremental, covered, changed } } else { resync(Mode::Compare) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lineage::Epoch;

    fn lineage(ids: &[u128]) -> Lineage {
        Lineage(ids.iter().map(|id| Epoch { id: EpochId(*id), start: 0 }).collect())
    }

    fn hello(ids: &[u128], standing: Standing) -> Hello {
        Hello {
            version: VERSION,
            module: "AM".into(),
            node: "node2".into(),
            directories: 1,
            lineage: lineage(ids),
            standing,
            place: None,
            unshared: false,
            covered_by: None,
            full: false,
            changed: Vec::new(),
            vouched: None,
        }
    }

    const MAP: StreamId = StreamId(77);

    fn answer(ours: &[u128], paired: bool, resumable: bool, base: Option<u128>, hello: &Hello) -> Choice {
        let lineage = lineage(ours);
        let standing = if paired { Standing::Paired } else { Standing::Alone };
        let map = Covered { id: MAP, base: base.map(EpochId), also: None };
        choose(&local(&lineage, standing, paired, resumable, map, &Policy::Default), hello)
    }

    fn local<'a>(
        lineage: &'a Lineage,
        standing: Standing,
        paired: bool,
        resumable: bool,
        map: Covered,
        policy: &'a Policy,
    ) -> Local<'a> {
        let (module, peer, directories, now) = ("AM", "node2", 1, 1000);
        Local { module, peer, directories, lineage, standing, paired, resumable, map, policy, now }
    }

    fn mode(choice: &Choice) -> Option<Mode> {
        match choice {
            Choice::Resume => Some(Mode::Resume),
            Choice::Resync { mode, .. } => Some(*mode),
            Choice::Since(_) => Some(Mode::Since),
            Choice::Refuse(_) | Choice::Hopeless(_) => None,
        }
    }

    #[test]
    fn table() {
        use Standing::{Blank, Inconsistent, Outdated, Paired};
        let covered = |id| Hello { covered_by: Some(id), ..hello(&[1], Inconsistent) };
        for (what, expected, choice) in [
            ("stream came back", Some(Mode::Resume), answer(&[2, 1], true, true, Some(1), &hello(&[2, 1], Paired))),
            (
                "end of resync unanswered",
                Some(Mode::Resume),
                answer(&[2, 1], true, true, Some(1), &hello(&[1], Inconsistent)),
            ),
            ("declared itself outdated", None, answer(&[2, 1], true, true, None, &hello(&[2, 1], Outdated))),
            ("rebooted, not excluded yet", None, answer(&[2, 1], true, false, None, &hello(&[2, 1], Paired))),
            (
                "excluded, map covers",
                Some(Mode::Incremental),
                answer(&[2, 1], false, false, Some(1), &hello(&[1], Paired)),
            ),
            (
                "knows that it is outdated",
                Some(Mode::Incremental),
                answer(&[2, 1], false, false, Some(1), &hello(&[1], Outdated)),
            ),
            ("away for longer", Some(Mode::Compare), answer(&[3, 2, 1], false, false, Some(2), &hello(&[1], Paired))),
            ("map lost", Some(Mode::Compare), answer(&[2, 1], false, false, None, &hello(&[1], Paired))),
            ("interrupted, same map", Some(Mode::Incremental), answer(&[2, 1], false, false, Some(1), &covered(MAP))),
            (
                "interrupted, other map",
                Some(Mode::Compare),
                answer(&[2, 1], false, false, Some(1), &covered(StreamId(1))),
            ),
            (
                "interrupted full",
                Some(Mode::Compare),
                answer(&[2, 1], false, false, Some(1), &hello(&[1], Inconsistent)),
            ),
            ("new disk", Some(Mode::Full), answer(&[2, 1], false, false, Some(1), &hello(&[], Blank))),
            ("split brain", Some(Mode::Compare), answer(&[2, 1], false, false, Some(1), &hello(&[3, 1], Paired))),
            ("ahead of us", None, answer(&[1], false, false, None, &hello(&[2, 1], Paired))),
        ] {
            assert_eq!(mode(&choice), expected, "{what}: {choice:?}");
        }
        let unshared = Hello { unshared: true, ..hello(&[1], Paired) };
        assert_eq!(mode(&answer(&[2, 1], false, false, Some(1), &unshared)), Some(Mode::Compare), "crashed, no log");
        let told = |ids: &[u128], standing, epoch| Hello {
            unshared: true,
            changed: vec![EpochId(epoch)],
            ..hello(ids, standing)
        };
        for (what, expected, choice) in [
            ("crashed as primary", Mode::Incremental, answer(&[2, 1], false, false, Some(1), &told(&[1], Paired, 1))),
            ("of another time", Mode::Compare, answer(&[2, 1], false, false, Some(1), &told(&[1], Paired, 7))),
            ("split brain", Mode::Incremental, answer(&[2, 1], false, false, Some(1), &told(&[3, 1], Paired, 1))),
            ("our map is lost", Mode::Compare, answer(&[2, 1], false, false, None, &told(&[1], Paired, 1))),
            ("interrupted", Mode::Compare, answer(&[2, 1], false, false, Some(1), &told(&[1], Inconsistent, 1))),
            (
                "interrupted, same map",
                Mode::Incremental,
                answer(&[2, 1], false, false, Some(1), &Hello { covered_by: Some(MAP), ..told(&[1], Inconsistent, 1) }),
            ),
        ] {
            assert_eq!(mode(&choice), Some(expected), "{what}");
            let asked = matches!(choice, Choice::Resync { changed: true, .. });
            assert_eq!(asked, expected == Mode::Incremental, "{what}");
        }
        let full = Hello { full: true, ..hello(&[2, 1], Paired) };
        assert_eq!(mode(&answer(&[1], false, false, Some(1), &full)), Some(Mode::Full), "the operator decides");
        let stranger = Hello { node: "node3".into(), ..hello(&[1], Paired) };
        assert_eq!(mode(&answer(&[2, 1], false, false, Some(1), &stranger)), None);
    }

    #[test]
    fn the_operator_vouches_for_a_copy() {
        let mark = |uid: &str, since| Policy::External { role: Side::Prim, uid: uid.into(), since, refused: false };
        let ask = |policy: &Policy, paired, hello: &Hello| {
            let (ours, map) = (lineage(&[2, 1]), Covered { id: MAP, base: Some(EpochId(1)), also: None });
            choose(&local(&ours, Standing::Alone, paired, false, map, policy), hello)
        };
        let word = |ids: &[u128], standing, vouched| Hello { vouched: Some(vouched), ..hello(ids, standing) };
        let by_mark = word(&[1], Standing::Paired, Vouched::Mark("t1".into()));
        assert_eq!(ask(&mark("t1", Some(900)), false, &by_mark), Choice::Since(900));
        for (what, policy) in [
            ("not marked", Policy::Default),
            ("another mark", mark("t2", Some(900))),
            ("no moment yet", mark("t1", None)),
            ("a clock set back", mark("t1", Some(1001))),
            (
                "marked as the receiver",
                Policy::External { role: Side::Second, uid: "t1".into(), since: Some(900), refused: false },
            ),
        ] {
            assert!(matches!(ask(&policy, false, &by_mark), Choice::Hopeless(_)), "{what}");
        }
        let by_date = |ids: &[u128], standing| word(ids, standing, Vouched::Since(500));
        assert_eq!(ask(&Policy::Default, false, &by_date(&[], Standing::Blank)), Choice::Since(500), "a new disk");
        assert_eq!(ask(&Policy::Default, false, &by_date(&[3, 1], Standing::Paired)), Choice::Since(500));
        assert_eq!(mode(&ask(&Policy::Full, false, &by_date(&[1], Standing::Paired))), Some(Mode::Full));
        let newer = by_date(&[4, 2, 1], Standing::Paired);
        assert!(matches!(ask(&Policy::Default, false, &newer), Choice::Refuse(_)), "its data is newer");
        let early = by_date(&[1], Standing::Paired);
        assert!(matches!(ask(&Policy::Default, true, &early), Choice::Refuse(_)), "not excluded yet: it comes again");
    }
}
