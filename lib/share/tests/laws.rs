//! Shares are exact, nothing is owned twice, and no more moves than must, whatever happens to members and powers?

use proptest::prelude::*;
use share::{BUCKETS, Buckets, CHAIN_RATIO, Powers, Table};

fn equal(nodes: &[u8]) -> Powers {
    nodes.iter().map(|n| (*n, 1)).collect()
}

fn next(table: &Table, powers: &Powers) -> Table {
    table.next(powers, u32::MAX, 0)
}

fn counts(powers: &[(u8, u32)]) -> Vec<usize> {
    let table = next(&Table::default(), &powers.iter().copied().collect());
    powers.iter().map(|(n, _)| table.count(*n)).collect()
}

#[test]
fn shares_follow_the_powers() {
    assert_eq!(counts(&[(0, 1)]), [256]);
    assert_eq!(counts(&[(0, 1), (1, 1)]), [128, 128]);
    assert_eq!(counts(&[(0, 2), (1, 1)]), [171, 85]);
    assert_eq!(counts(&[(0, 1), (1, 1), (2, 1)]), [86, 85, 85]);
    assert_eq!(counts(&[(3, 5), (7, 0)]), [256, 0]);
    assert_eq!(counts(&[(0, 0), (1, 0)]), [0, 0]);
    assert_eq!(counts(&[(0, u32::MAX), (1, u32::MAX)]), [128, 128]);
}

#[test]
fn the_strongest_takes_all_of_a_chain() {
    assert_eq!(counts(&[(0, 1), (1, 64), (2, 4096)]), [0, 0, 256]);
    assert_eq!(counts(&[(0, 1), (1, 64)]), [0, 256]);
    assert_eq!(counts(&[(0, 1)]), [256]);
    assert_eq!(counts(&[(0, 64), (1, 64), (2, 1)]), [128, 128, 0], "one rank shares");
    assert_eq!(counts(&[(0, 63), (1, 1)]), [252, 4], "a smaller ratio is a share");
}

#[test]
fn a_leaver_gives_and_a_joiner_takes_only_its_share() {
    let three = next(&Table::default(), &equal(&[0, 1, 2]));
    let two = next(&three, &equal(&[0, 1]));
    assert!((0..=255).all(|b| three.owner(b) == Some(2) || two.owner(b) == three.owner(b)));
    let again = next(&two, &equal(&[0, 1, 2]));
    assert_eq!(moved(&two, &again), 85);
}

#[test]
fn former_owners_are_remembered_while_they_live_and_get_their_buckets_back() {
    let alone = next(&Table::default(), &equal(&[0]));
    let two = next(&alone, &equal(&[0, 1]));
    assert_eq!(two.draining(0), two.owned(1));
    assert_eq!(two.draining_elsewhere(1), two.owned(1));
    let three = next(&two, &equal(&[0, 1, 2]));
    let back = three.next(&equal(&[0, 2]), 0b101, 0);
    // Node 1's buckets go where their old connections are, as far as shares allow.
    assert!(three.owned(1).and(back.owned(0)).len() >= 42);
    assert!(back.draining(1).is_empty(), "it lives no more");
    let merged = alone.next(&equal(&[0, 5]), u32::MAX, 1 << 5);
    assert_eq!(merged.draining(5).or(merged.owned(5)), Buckets::ALL);
}

#[test]
fn a_directing_node_shows_whose_each_bucket_is() {
    let table = next(&Table::default(), &equal(&[0, 1]));
    let text = table.directed(1);
    assert_eq!(text.split(' ').count(), 8);
    assert_eq!(text.matches("ff").count(), 128);
    assert_eq!(text.replace(' ', "").as_bytes().chunks(2).filter(|c| *c == b"01").count(), 128);
}

fn moved(before: &Table, after: &Table) -> usize {
    (0..=255).filter(|b| after.owner(*b).is_some() && before.owner(*b) != after.owner(*b)).count()
}

/// The fewest buckets that any table with lawful shares must move: over all ways to round.
fn fewest_moves(before: &Table, powers: &Powers) -> usize {
    let strongest = powers.values().copied().max().map_or(0, u64::from);
    let counted: Vec<(u8, u64)> =
        powers.iter().map(|(n, p)| (*n, u64::from(*p))).filter(|(_, p)| p * CHAIN_RATIO > strongest).collect();
    let total: u64 = counted.iter().map(|(_, p)| p).sum();
    if total == 0 {
        return 0;
    }
    // fewest[r]: with r buckets more than the rounded-down sum given out so far.
    let mut fewest = vec![Some(0_usize)];
    let mut sum = 0;
    for (node, power) in &counted {
        let (floor, rest) = ((256 * power / total) as usize, 256 * power % total);
        sum += floor;
        let has = before.count(*node);
        let mut after = vec![None; fewest.len() + 1];
        for (extra, so_far) in fewest.iter().enumerate() {
            let Some(so_far) = so_far else { continue };
            for up in 0..=usize::from(rest > 0) {
                let cost = so_far + (floor + up).saturating_sub(has);
                let slot: &mut Option<usize> = &mut after[extra + up];
                *slot = Some(slot.map_or(cost, |c| c.min(cost)));
            }
        }
        fewest = after;
    }
    fewest[BUCKETS - sum].unwrap_or(usize::MAX)
}

fn powers() -> impl Strategy<Value = Powers> {
    let power = prop_oneof![5 => Just(1_u32), 3 => 0..5_u32, 2 => 0..200_u32, 1 => any::<u32>()];
    proptest::collection::btree_map(0..32_u8, power, 0..12)
}

proptest! {
    /// Any history of joins, leaves, several at once, and changed powers.
    #[test]
    fn every_view_change_is_lawful(history in proptest::collection::vec((powers(), any::<u32>()), 1..12)) {
        let mut table = Table::default();
        for (powers, alive) in history {
            let serving: u32 = powers.keys().map(|n| 1 << n).sum();
            let alive = alive | serving;
            let new = table.next(&powers, alive, 0);
            prop_assert_eq!(&new, &table.next(&powers, alive, 0));
            let strongest = powers.values().copied().max().map_or(0, u64::from);
            let total: u64 = powers.values().map(|p| u64::from(*p)).filter(|p| p * CHAIN_RATIO > strongest).sum();
            let owned: usize = (0..32).map(|n| new.count(n)).sum();
            prop_assert_eq!(owned, if total == 0 { 0 } else { BUCKETS });
            for (node, power) in &powers {
                let power = u64::from(*power);
                let exact = if power * CHAIN_RATIO > strongest { 256.0 * power as f64 / total as f64 } else { 0.0 };
                prop_assert!((new.count(*node) as f64 - exact).abs() < 1.0);
            }
            prop_assert!((0..32).all(|n| powers.contains_key(&n) || new.count(n) == 0));
            prop_assert_eq!(moved(&table, &new), fewest_moves(&table, &powers));
            for bucket in 0..=255 {
                let former = new.former(bucket);
                prop_assert_eq!(former & !alive, 0);
                prop_assert!(new.owner(bucket).is_none_or(|o| former & 1 << o == 0));
                if let Some(before) = table.owner(bucket)
                    && new.owner(bucket) != Some(before) && alive & 1 << before != 0
                {
                    prop_assert!(former & 1 << before != 0);
                }
            }
            let mut bytes = Vec::new();
            new.encode(&mut bytes);
            bytes.push(7);
            prop_assert_eq!(Table::decode(&bytes), Some((new.clone(), &[7][..])));
            table = new;
        }
    }

    #[test]
    fn garbage_is_a_table_or_not(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        if let Some((table, rest)) = Table::decode(&bytes) {
            let mut again = Vec::new();
            table.encode(&mut again);
            prop_assert!(rest.len() < bytes.len());
        }
    }
}
