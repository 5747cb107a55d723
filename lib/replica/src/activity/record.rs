//! What does one entry of the activity log say, and how is it written?

use crate::change_map::{DirtySet, Reader};
use crate::op::{RelPath, Time};
use lineage::EpochId;

/// Granularity of records about content.
pub const EXTENT: u64 = 16 << 20;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Entries of this directory, or attributes of what is in it, change from here on.
    Names { dir: u16, path: RelPath },
    /// Content of a file. `paths`: names it has, or had until shortly before; `ino` 0: whatever is at the path. `linked`: it may have more.
    Content { dir: u16, ino: u64, linked: bool, paths: Vec<RelPath>, extents: Extents },
    /// A directory came here with all beneath it, or left.
    Moved { dir: u16, path: RelPath },
    /// Too much to remember.
    Everything,
    /// The log also says all about a peer whose newest epoch is this one.
    Also(EpochId),
    /// The clock was set back: what changed since this time may have changed here.
    Since(Time),
    /// Changes as the change map knew them, with their checksum.
    Set(Vec<u8>),
}

/// Extents of a file, from the first to the last; attributes alone: none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extents {
    None,
    Some { first: u64, last: u64 },
    From(u64),
}

fn number(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

fn put_path(out: &mut Vec<u8>, path: &RelPath) {
    // A path is at most 4096 bytes.
    out.extend_from_slice(&(path.as_bytes().len() as u16).to_le_bytes());
    out.extend_from_slice(path.as_bytes());
}

fn put_place(out: &mut Vec<u8>, dir: u16, path: &RelPath) {
    out.extend_from_slice(&dir.to_le_bytes());
    put_path(out, path);
}

fn path(input: &mut Reader<'_>) -> Option<RelPath> {
    let length = input.short()?;
    RelPath::new(input.take(usize::from(length))?)
}

impl Record {
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Names { dir, path } => {
                out.push(1);
                put_place(out, *dir, path);
            }
            Self::Content { dir, ino, linked, paths, extents } => {
                out.push(2);
                out.extend_from_slice(&dir.to_le_bytes());
                number(out, *ino);
                out.push(u8::from(*linked));
                let (first, last) = match extents {
                    Extents::None => (1, 0),
                    Extents::Some { first, last } => (*first, *last),
                    Extents::From(first) => (*first, u64::MAX),
                };
                number(out, first);
                number(out, last);
                let few = paths.get(..paths.len().min(255)).unwrap_or_default();
                out.push(few.len() as u8);
                for path in few {
                    put_path(out, path);
                }
            }
            Self::Moved { dir, path } => {
                out.push(3);
                put_place(out, *dir, path);
            }
            Self::Everything => out.push(4),
            Self::Also(epoch) => {
                out.push(5);
                out.extend_from_slice(&epoch.0.to_le_bytes());
            }
            Self::Since(Time(seconds, nanos)) => {
                out.push(6);
                out.extend_from_slice(&seconds.to_le_bytes());
                out.extend_from_slice(&nanos.to_le_bytes());
            }
            Self::Set(bytes) => {
                out.push(7);
                number(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        }
    }

    /// None: no entry of this version.
    pub fn decode(input: &mut Reader<'_>) -> Option<Self> {
        Some(match input.take(1)?.first()? {
            1 => Self::Names { dir: input.short()?, path: path(input)? },
            2 => {
                let (dir, ino) = (input.short()?, input.number()?);
                let linked = input.take(1)? != [0];
                let (first, last) = (input.number()?, input.number()?);
                let extents = match last {
                    u64::MAX => Extents::From(first),
                    last if first > last => Extents::None,
                    last => Extents::Some { first, last },
                };
                let count = *input.take(1)?.first()?;
                let paths = (0..count).map(|_| path(input)).collect::<Option<_>>()?;
                Self::Content { dir, ino, linked, paths, extents }
            }
            3 => Self::Moved { dir: input.short()?, path: path(input)? },
            4 => Self::Everything,
            5 => Self::Also(EpochId(u128::from_le_bytes(input.take(16)?.try_into().ok()?))),
            6 => {
                let seconds = i64::from_le_bytes(input.take(8)?.try_into().ok()?);
                Self::Since(Time(seconds, u32::from_le_bytes(input.take(4)?.try_into().ok()?)))
            }
            7 => {
                let length = usize::try_from(input.number()?).ok()?;
                Self::Set(input.take(length)?.to_vec())
            }
            _ => return None,
        })
    }

    /// The set of a [`Record::Set`] as an entry.
    pub fn set(set: &DirtySet) -> Self {
        Self::Set(set.to_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_record() -> impl Strategy<Value = Record> {
        let any_path = || "[a-z]{1,4}(/[a-z]{1,4}){0,3}".prop_map(|text| RelPath::new(text).unwrap());
        prop_oneof![
            (any::<u16>(), any_path()).prop_map(|(dir, path)| Record::Names { dir, path }),
            (any::<u16>(), any::<u64>(), any::<bool>(), proptest::collection::vec(any_path(), 0..4), 0..9u64, 0..9u64)
                .prop_map(|(dir, ino, linked, paths, first, more)| Record::Content {
                    dir,
                    ino,
                    linked,
                    paths,
                    extents: match more {
                        0 => Extents::None,
                        1 => Extents::From(first),
                        more => Extents::Some { first, last: first + more },
                    }
                }),
            (any::<u16>(), any_path()).prop_map(|(dir, path)| Record::Moved { dir, path }),
            Just(Record::Everything),
            any::<u128>().prop_map(|id| Record::Also(EpochId(id))),
            (any::<i64>(), 0..1_000_000_000u32).prop_map(|(s, n)| Record::Since(Time(s, n))),
            proptest::collection::vec(any::<u8>(), 0..40).prop_map(Record::Set),
        ]
    }

    proptest! {
        #[test]
        fn entries_are_read_as_they_were_written(records in proptest::collection::vec(any_record(), 0..20)) {
            let mut bytes = Vec::new();
            for record in &records {
            record.encode(&mut bytes);
        }
            let mut input = Reader::new(&bytes);
            for record in &records {
                prop_assert_eq!(Record::decode(&mut input), Some(record.clone()));
            }
            prop_assert!(input.is_empty());
        }

        #[test]
        fn garbage_does_not_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut input = Reader::new(&bytes);
            while Record::decode(&mut input).is_some() {}
        }
    }
}
