//! Which bucket does the kernel's `jhash … mod N` give? Pure: the same function as `include/linux/jhash.h`.

/// What the kernel's `jhash()` adds to length and seed.
pub const INITIAL: u32 = 0xdead_beef;

/// Bob Jenkins' hash as the kernel computes it.
pub fn jhash(key: &[u8], seed: u32) -> u32 {
    let start = INITIAL.wrapping_add(key.len() as u32).wrapping_add(seed);
    let (mut a, mut b, mut c) = (start, start, start);
    let mut rest = key;
    while let Some((block, tail)) = rest.split_first_chunk::<12>().filter(|(_, tail)| !tail.is_empty()) {
        let [a0, a1, a2, a3, b0, b1, b2, b3, c0, c1, c2, c3] = *block;
        // Whole blocks are read as native words, the tail byte by byte: so the kernel does.
        a = a.wrapping_add(u32::from_ne_bytes([a0, a1, a2, a3]));
        b = b.wrapping_add(u32::from_ne_bytes([b0, b1, b2, b3]));
        c = c.wrapping_add(u32::from_ne_bytes([c0, c1, c2, c3]));
        (a, b, c) = mix(a, b, c);
        rest = tail;
    }
    if rest.is_empty() {
        return c;
    }
    let mut words = [0_u32; 3];
    for (position, byte) in rest.iter().enumerate() {
        if let Some(word) = words.get_mut(position / 4) {
            *word |= u32::from(*byte) << (8 * (position % 4));
        }
    }
    let [first, second, third] = words;
    last(a.wrapping_add(first), b.wrapping_add(second), c.wrapping_add(third))
}

/// The bucket of `buckets` that nft's `jhash KEY mod buckets seed SEED` computes: the hash is scaled, not divided.
pub fn bucket(key: &[u8], seed: u32, buckets: u32) -> u32 {
    ((u64::from(jhash(key, seed)) * u64::from(buckets)) >> 32) as u32
}

fn mix(mut a: u32, mut b: u32, mut c: u32) -> (u32, u32, u32) {
    a = a.wrapping_sub(c) ^ c.rotate_left(4);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(6);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(8);
    b = b.wrapping_add(a);
    a = a.wrapping_sub(c) ^ c.rotate_left(16);
    c = c.wrapping_add(b);
    b = b.wrapping_sub(a) ^ a.rotate_left(19);
    a = a.wrapping_add(c);
    c = c.wrapping_sub(b) ^ b.rotate_left(4);
    b = b.wrapping_add(a);
    (a, b, c)
}

fn last(mut a: u32, mut b: u32, mut c: u32) -> u32 {
    c = (c ^ b).wrapping_sub(b.rotate_left(14));
    a = (a ^ c).wrapping_sub(c.rotate_left(11));
    b = (b ^ a).wrapping_sub(a.rotate_left(25));
    c = (c ^ b).wrapping_sub(b.rotate_left(16));
    a = (a ^ c).wrapping_sub(c.rotate_left(4));
    b = (b ^ a).wrapping_sub(a.rotate_left(14));
    (c ^ b).wrapping_sub(b.rotate_left(24))
}

#[cfg(test)]
mod tests {
    use super::*;

    // Against the kernel itself: bins/sk-farmfilter/tests/kernel.rs.
    #[test]
    fn buckets_are_in_range_and_spread() {
        let mut seen = [0_u32; 256];
        for client in 0..25_600_u32 {
            let at = bucket(&client.to_be_bytes(), 0x5afe, 256);
            seen[at as usize] += 1;
        }
        assert!(seen.iter().all(|n| (50..=150).contains(n)), "{seen:?}");
    }

    #[test]
    fn lengths_around_a_block_differ() {
        let hashes: std::collections::BTreeSet<u32> = (0..40).map(|n| jhash(&vec![7; n], 1)).collect();
        assert_eq!(hashes.len(), 40);
    }
}
