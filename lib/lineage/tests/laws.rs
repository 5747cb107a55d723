//! Do comparisons of lineages obey the laws that every decision relies on?

use lineage::{EPOCHS_KEPT, Epoch, EpochId, Lineage, Relation};
use proptest::prelude::*;

/// Two replicas that share a history, then each goes on by itself.
fn history() -> impl Strategy<Value = (Lineage, Lineage, usize, usize)> {
    (0..6_usize, 0..6_usize, 0..6_usize).prop_map(|(shared, a, b)| {
        let mut common = Lineage::default();
        for i in 0..shared {
            common.mint(EpochId(1 + i as u128), i as u64);
        }
        let (mut left, mut right) = (common.clone(), common);
        for i in 0..a {
            left.mint(EpochId(100 + i as u128), i as u64);
        }
        for i in 0..b {
            right.mint(EpochId(200 + i as u128), i as u64);
        }
        (left, right, a, b)
    })
}

fn mirrored(relation: Relation) -> Relation {
    match relation {
        Relation::Older => Relation::Newer,
        Relation::Newer => Relation::Older,
        other => other,
    }
}

proptest! {
    #[test]
    fn comparison_is_antisymmetric((a, b, ..) in history()) {
        prop_assert_eq!(a.compare(&b), mirrored(b.compare(&a)));
    }

    #[test]
    fn comparison_tells_who_went_on((a, b, alone_a, alone_b) in history()) {
        let want = match (alone_a > 0, alone_b > 0) {
            (false, false) if a.0.is_empty() => Relation::BothBlank,
            (false, false) => Relation::Same,
            (true, false) => Relation::Newer,
            (false, true) => Relation::Older,
            (true, true) => Relation::Diverged,
        };
        prop_assert_eq!(a.compare(&b), want);
    }

    #[test]
    fn a_lineage_survives_its_file((a, ..) in history()) {
        let text = serde_json::to_string(&a).unwrap();
        prop_assert_eq!(serde_json::from_str::<Lineage>(&text).unwrap(), a);
    }

    #[test]
    fn garbage_is_refused_without_panic(text in "\\PC{0,80}", id in "[0-9a-fA-Fx+ -]{0,40}") {
        let _ = serde_json::from_str::<Lineage>(&text);
        let parsed = serde_json::from_value::<EpochId>(serde_json::Value::String(id.clone()));
        let digits = id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit());
        prop_assert_eq!(parsed.is_ok(), digits, "{}", id);
    }
}

#[test]
fn old_epochs_are_forgotten_and_minting_the_head_again_changes_nothing() {
    let mut lineage = Lineage::default();
    for i in 0..40 {
        lineage.mint(EpochId(i), i as u64);
    }
    assert_eq!(lineage.0.len(), EPOCHS_KEPT);
    let before = lineage.clone();
    lineage.mint(EpochId(39), 77);
    assert_eq!(lineage, before);
    assert_eq!(lineage.0.first(), Some(&Epoch { id: EpochId(39), start: 39 }));
}
