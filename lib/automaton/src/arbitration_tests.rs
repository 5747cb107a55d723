use super::*;
use crate::test_lineage as lineage;

const ARBITER: Arbiter = Arbiter::Store { lease_ms: 3_000, margin_ms: 500 };

fn record(owner: &str, by: &str, epoch: Option<u128>, alone: bool) -> Record {
    Record { owner: owner.into(), epoch: epoch.map(EpochId), alone, by: by.into(), life: 7, turn: 1, lease_ms: 3_000 }
}

#[test]
fn who_may_claim_which_record() {
    use Denial::{Elsewhere, Newer, NoRecord};
    use Ground::{Chosen, Forced, Heir, Lone, Own};
    use Standing::{Alone, Inconsistent, Outdated, Paired};
    let pair = record("node1", "node1", Some(5), false);
    let alone = record("node1", "node1", Some(5), true);
    let handed = record("node2", "node1", Some(5), false);
    let released = record("", "root", Some(5), true);
    // Claimant is node2 unless said otherwise.
    type Row<'a> = (Option<&'a Record>, &'a str, Ground, Standing, &'a [u128], Result<(), Denial>);
    let table: &[Row<'_>] = &[
        (None, "node2", Own, Paired, &[5], Err(NoRecord)),
        (None, "node2", Lone, Alone, &[5], Ok(())),
        (None, "node2", Heir, Paired, &[5], Ok(())),
        (Some(&released), "node2", Own, Paired, &[5], Err(NoRecord)),
        (Some(&released), "node2", Heir, Paired, &[5], Ok(())),
        (Some(&pair), "node2", Heir, Paired, &[5], Ok(())),
        (Some(&pair), "node2", Heir, Paired, &[4], Err(Elsewhere)),
        (Some(&pair), "node2", Heir, Paired, &[6, 5], Err(Elsewhere)),
        (Some(&pair), "node2", Own, Paired, &[5], Err(Elsewhere)),
        (Some(&pair), "node2", Chosen, Paired, &[5], Ok(())),
        (Some(&pair), "node2", Chosen, Outdated, &[5], Err(Elsewhere)),
        (Some(&alone), "node2", Heir, Paired, &[5], Err(Elsewhere)),
        (Some(&alone), "node2", Lone, Alone, &[6, 5], Err(Elsewhere)),
        (Some(&alone), "node2", Chosen, Paired, &[5], Ok(())),
        (Some(&alone), "node2", Forced, Inconsistent, &[], Ok(())),
        (Some(&alone), "node1", Own, Paired, &[5], Ok(())),
        (Some(&alone), "node1", Lone, Alone, &[6, 5], Ok(())),
        (Some(&alone), "node1", Own, Outdated, &[5], Err(Elsewhere)),
        (Some(&alone), "node1", Lone, Alone, &[4], Err(Newer)),
        (Some(&handed), "node2", Own, Paired, &[5], Err(Elsewhere)),
        (Some(&handed), "node2", Heir, Paired, &[5], Ok(())),
        (Some(&handed), "node2", Lone, Alone, &[6, 5], Ok(())),
        (Some(&handed), "node1", Heir, Paired, &[5], Ok(())),
    ];
    for (n, (record, node, ground, standing, epochs, want)) in table.iter().enumerate() {
        let lineage = lineage(epochs);
        let claimant =
            Claimant { node, replicated: true, standing: *standing, lineage: &lineage, served: true, ground: *ground };
        assert_eq!(may_claim(*record, &claimant), *want, "row {n}: {record:?} {ground:?}");
        // Who never took the role up must not count on the record alone.
        let idle = may_claim(*record, &Claimant { served: false, ..claimant });
        assert_eq!(idle.is_ok(), want.is_ok() && *ground != Own, "row {n}");
    }
}

#[test]
fn without_data_only_the_lease_counts() {
    let lineage = Lineage::default();
    let alone = record("node1", "node1", None, true);
    let claimant = Claimant {
        node: "node2",
        replicated: false,
        standing: Standing::Blank,
        lineage: &lineage,
        served: false,
        ground: Ground::Lone,
    };
    assert_eq!(may_claim(Some(&alone), &claimant), Ok(()));
}

#[test]
fn a_claim_waits_for_every_lease_of_the_other_node() {
    let bounds = Bounds { node: "node2", incarnation: 9, granted_at: None, word: None };
    let seen = |record: Option<Record>| Observation { revision: 4, record, at: 10_000 };
    let theirs = seen(Some(record("node1", "node1", Some(5), false)));
    assert_eq!(theirs.free_at(&bounds, &ARBITER), 13_500);
    // A stamp echoed later extends it; one echoed earlier does not shorten it.
    assert_eq!(theirs.free_at(&Bounds { granted_at: Some(11_000), ..bounds }, &ARBITER), 14_500);
    assert_eq!(theirs.free_at(&Bounds { granted_at: Some(9_000), ..bounds }, &ARBITER), 13_500);
    // The writer's leases may be longer than ours.
    let longer = seen(Some(Record { lease_ms: 10_000, ..record("node1", "node1", Some(5), false) }));
    assert_eq!(longer.free_at(&bounds, &ARBITER), 20_500);
    // Its word ends them, but only a word said after this very record.
    assert_eq!(theirs.free_at(&Bounds { word: Some(4), ..bounds }, &ARBITER), 0);
    assert_eq!(theirs.free_at(&Bounds { word: Some(3), ..bounds }, &ARBITER), 13_500);
    // Our own record; one with which we handed the role over, in this life and in another.
    assert_eq!(seen(Some(record("node2", "node2", Some(5), true))).free_at(&bounds, &ARBITER), 0);
    let handed = seen(Some(record("node1", "node2", Some(5), false)));
    assert_eq!(handed.free_at(&bounds, &ARBITER), 13_500);
    let same_life = Bounds { incarnation: 7, ..bounds };
    assert_eq!(handed.free_at(&same_life, &ARBITER), 0);
    assert_eq!(handed.free_at(&Bounds { granted_at: Some(11_000), ..same_life }, &ARBITER), 14_500);
    // An empty store may be one that lost its memory.
    assert_eq!(seen(None).free_at(&bounds, &ARBITER), 13_500);
}

#[test]
fn requests_and_answers_read_as_documented() {
    let swap = Request::Swap { expect: 3, record: record("node1", "node1", Some(5), true) };
    let text = serde_json::to_string(&swap).unwrap();
    assert_eq!(
        text,
        r#"{"ask":"swap","expect":3,"record":{"owner":"node1","epoch":"00000000000000000000000000000005","alone":true,"by":"node1","life":7,"turn":1,"lease_ms":3000}}"#
    );
    assert_eq!(serde_json::from_str::<Request>(&text).unwrap(), swap);
    let found: Answer = serde_json::from_str(r#"{"answer":"found","revision":0}"#).unwrap();
    assert_eq!(found, Answer::Found { revision: 0, record: None });
    // A record of a later version: more members are no reason to stop serving.
    let later: Record = serde_json::from_str(r#"{"owner":"node1","by":"node1","more":1}"#).unwrap();
    assert_eq!((later.epoch, later.lease_ms), (None, 0));
}
