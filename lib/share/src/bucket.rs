//! What is a set of buckets, and how is it shown?

use crate::BUCKETS;
use std::fmt;

/// A set of buckets. Shown as eight groups of eight hexadecimal digits; bucket 0 is the first digit's highest bit.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Buckets([u64; 4]);

impl Buckets {
    pub const NONE: Self = Self([0; 4]);
    pub const ALL: Self = Self([u64::MAX; 4]);

    pub fn insert(&mut self, bucket: u8) {
        if let Some(word) = self.0.get_mut(usize::from(bucket / 64)) {
            *word |= 1 << (63 - bucket % 64);
        }
    }

    pub fn contains(self, bucket: u8) -> bool {
        self.0.get(usize::from(bucket / 64)).is_some_and(|word| word >> (63 - bucket % 64) & 1 == 1)
    }

    /// How many.
    pub fn len(self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.zip(other, |a, b| a & b)
    }

    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.zip(other, |a, b| a | b)
    }

    #[must_use]
    pub fn without(self, other: Self) -> Self {
        self.zip(other, |a, b| a & !b)
    }

    /// The buckets, ascending.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |bucket| self.contains(*bucket))
    }

    fn zip(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        let mut words = self.0;
        words.iter_mut().zip(other.0).for_each(|(word, other)| *word = f(*word, other));
        Self(words)
    }
}

impl FromIterator<u8> for Buckets {
    fn from_iter<I: IntoIterator<Item = u8>>(buckets: I) -> Self {
        let mut set = Self::NONE;
        buckets.into_iter().for_each(|bucket| set.insert(bucket));
        set
    }
}

impl fmt::Display for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, word) in self.0.iter().enumerate() {
            let gap = if number == 0 { "" } else { " " };
            write!(f, "{gap}{:08x} {:08x}", word >> 32, word & 0xffff_ffff)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Buckets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{BUCKETS} {self}", self.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shown_as_eight_groups_of_eight_digits_bucket_zero_first() {
        assert_eq!(
            Buckets::from_iter([0, 4, 255]).to_string(),
            "88000000 00000000 00000000 00000000 00000000 00000000 00000000 00000001"
        );
        assert_eq!(Buckets::ALL.to_string(), ["ffffffff"; 8].join(" "));
    }

    #[test]
    fn is_a_set() {
        let low: Buckets = (0..128).collect();
        let even: Buckets = (0..=254).step_by(2).collect();
        assert_eq!((low.len(), even.len(), low.and(even).len(), low.or(even).len()), (128, 128, 64, 192));
        assert_eq!(low.without(even).iter().next(), Some(1));
        assert_eq!(even.iter().collect::<Buckets>(), even);
        assert!(Buckets::NONE.is_empty() && !low.is_empty());
        assert_eq!((0..=255).filter(|b| low.contains(*b)).count(), 128);
    }
}
