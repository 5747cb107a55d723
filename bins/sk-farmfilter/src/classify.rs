//! How is each bucket treated by this node's kernel? Pure.

use crate::kernel::{Bucket, Contents};
use crate::mark::Class;
use detector::farm::{Farm, Sets};
use share::Table;

/// What the core wants in the kernel, with what the tables know about each bucket.
pub fn contents(farm: &Farm, me: u8) -> Contents {
    farm.sets().iter().enumerate().map(|(number, sets)| classify(farm.table(number), me, sets)).collect()
}

/// How each bucket of a group is treated. The table may be that of a newer view than `sets`: what this node takes although
/// another one owns it by now is taken as long as it was not told otherwise, but as a bucket in which the other one may have
/// connections.
fn classify(table: Option<&Table>, me: u8, sets: &Sets) -> Vec<Bucket> {
    let bit = |node: u8| 1_u32.checked_shl(u32::from(node)).unwrap_or(0);
    (0..=u8::MAX)
        .map(|bucket| {
            let owner = table.and_then(|t| t.owner(bucket));
            let former = (table.map_or(0, |t| t.former(bucket)) | owner.map_or(0, bit)) & !bit(me);
            let class = if sets.mine.contains(bucket) {
                Some(if former == 0 || sets.dead.contains(bucket) { Class::Own } else { Class::Gained })
            } else if sets.legacy.contains(bucket) {
                Some(Class::Legacy)
            } else {
                None
            };
            Bucket { class, owner, former }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use share::Powers;

    #[test]
    fn a_bucket_whose_owner_comes_back_is_not_reset_by_the_node_that_gives_it_back() {
        let powers = |open: [u32; 2]| -> Powers { open.into_iter().enumerate().map(|(n, p)| (n as u8, p)).collect() };
        let both = Table::default().next(&powers([1, 1]), 0b11, 0);
        let alone = both.next(&powers([1, 0]), 0b11, 0);
        let back = alone.next(&powers([1, 1]), 0b11, 0);
        let taken = Sets { mine: alone.owned(0), ..Sets::default() };
        // Node 0 has heard of the view in which node 1, with its old connections, owns its buckets again, but still takes them.
        let now = classify(Some(&back), 0, &taken);
        for bucket in back.owned(1).iter() {
            let b = now[usize::from(bucket)];
            assert_eq!((b.class, b.owner, b.former), (Some(Class::Gained), Some(1), 0b10), "{bucket}");
        }
        let alone_for_good = alone.next(&powers([1, 0]), 0b01, 0);
        assert!(classify(Some(&alone_for_good), 0, &taken).iter().all(|b| b.class == Some(Class::Own)));
    }
}
