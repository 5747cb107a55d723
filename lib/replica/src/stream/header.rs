//! How is the header line of a frame read?
//!
//! In one pass and into one set of fields, of which each operation takes its own: what serde derives for a tagged enum keeps everything in
//! memory until the tag is known, and reading was a third of what a secondary did.

use crate::op::{Kind, Op, Owner, RelPath, Time};
use crate::recorder::Position;
use serde::de::{Error, IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

/// What a header line says.
#[derive(Debug, PartialEq, Eq)]
pub struct Header {
    pub n: Position,
    /// Length of the payload, in bytes.
    pub len: u64,
    pub what: What,
}

/// What the frame carries.
#[derive(Debug, PartialEq, Eq)]
pub enum What {
    Op(Op),
    /// A control message, whose fields are read by its own type.
    Control,
    Nothing,
}

/// The names of the operations, as [`Op`] writes them.
#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Name {
    Write,
    SetAttr,
    Create,
    Symlink,
    Link,
    Unlink,
    Rmdir,
    Rename,
    SetXattr,
    RemoveXattr,
    Fallocate,
    Sync,
    SyncDir,
    ResyncBegin,
    SyncNames,
    Ask,
    SyncData,
    SyncZero,
    SyncMeta,
    ResyncEnd,
    Checkpoint,
    Goodbye,
}

#[derive(Deserialize)]
#[serde(field_identifier, rename_all = "snake_case")]
enum Key {
    N,
    Len,
    Op,
    Ctl,
    Dir,
    Path,
    Ino,
    Offset,
    Length,
    Mtime,
    Atime,
    ParentMtime,
    FromMtime,
    Mode,
    Uid,
    Gid,
    Size,
    Kind,
    Owner,
    Rdev,
    Target,
    From,
    Flags,
    Name,
    DataOnly,
    Full,
    First,
    Last,
    Ask,
    Recent,
    Id,
    Number,
    #[serde(other)]
    Other,
}

/// The fields of all operations; those of the same name have the same type.
#[derive(Default)]
struct Fields {
    dir: Option<u16>,
    path: Option<RelPath>,
    ino: Option<u64>,
    offset: Option<u64>,
    length: Option<u64>,
    mtime: Option<Time>,
    atime: Option<Time>,
    parent_mtime: Option<Time>,
    from_mtime: Option<Time>,
    mode: Option<i64>,
    uid: Option<u32>,
    gid: Option<u32>,
    size: Option<u64>,
    kind: Option<Kind>,
    owner: Option<Owner>,
    rdev: Option<u64>,
    target: Option<RelPath>,
    from: Option<RelPath>,
    flags: Option<u32>,
    name: Option<RelPath>,
    data_only: Option<bool>,
    full: Option<bool>,
    first: Option<RelPath>,
    last: Option<RelPath>,
    ask: Option<u64>,
    recent: Option<bool>,
    id: Option<u64>,
    number: Option<u64>,
}

fn need<T, E: Error>(field: Option<T>, name: &'static str) -> Result<T, E> {
    field.ok_or_else(|| E::missing_field(name))
}

fn fits<T: TryFrom<i64>, E: Error>(mode: i64) -> Result<T, E> {
    T::try_from(mode).map_err(|_| E::custom("a mode out of range"))
}

impl Fields {
    fn dir<E: Error>(&self) -> Result<u16, E> {
        need(self.dir, "dir")
    }

    fn path<E: Error>(&mut self) -> Result<RelPath, E> {
        need(self.path.take(), "path")
    }

    fn ino<E: Error>(&self) -> Result<u64, E> {
        need(self.ino, "ino")
    }

    fn mtime<E: Error>(&self) -> Result<Time, E> {
        need(self.mtime, "mtime")
    }

    fn parent_mtime<E: Error>(&self) -> Result<Time, E> {
        need(self.parent_mtime, "parent_mtime")
    }

    fn op<E: Error>(mut self, name: Name) -> Result<Op, E> {
        Ok(match name {
            Name::Write => Op::Write {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                offset: need(self.offset, "offset")?,
                mtime: self.mtime()?,
            },
            Name::SetAttr => Op::SetAttr {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                mode: self.mode.map(fits).transpose()?,
                uid: self.uid,
                gid: self.gid,
                size: self.size,
                atime: self.atime,
                mtime: self.mtime,
            },
            Name::Create => Op::Create {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                kind: need(self.kind, "kind")?,
                owner: need(self.owner, "owner")?,
                rdev: self.rdev.unwrap_or_default(),
                mtime: self.mtime()?,
                parent_mtime: self.parent_mtime()?,
            },
            Name::Symlink => Op::Symlink {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                target: need(self.target.take(), "target")?,
                owner: need(self.owner, "owner")?,
                mtime: self.mtime()?,
                parent_mtime: self.parent_mtime()?,
            },
            Name::Link => Op::Link {
                dir: self.dir()?,
                from: need(self.from.take(), "from")?,
                path: self.path()?,
                ino: self.ino()?,
                parent_mtime: self.parent_mtime()?,
            },
            Name::Unlink => Op::Unlink {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                parent_mtime: self.parent_mtime()?,
            },
            Name::Rmdir => {
                Op::Rmdir { dir: self.dir()?, path: self.path()?, ino: self.ino()?, parent_mtime: self.parent_mtime()? }
            }
            Name::Rename => Op::Rename {
                dir: self.dir()?,
                from: need(self.from.take(), "from")?,
                path: self.path()?,
                ino: self.ino()?,
                flags: need(self.flags, "flags")?,
                from_mtime: need(self.from_mtime, "from_mtime")?,
                parent_mtime: self.parent_mtime()?,
            },
            Name::SetXattr => Op::SetXattr {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                name: need(self.name.take(), "name")?,
            },
            Name::RemoveXattr => Op::RemoveXattr {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                name: need(self.name.take(), "name")?,
            },
            Name::Fallocate => Op::Fallocate {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                offset: need(self.offset, "offset")?,
                length: need(self.length, "length")?,
                mode: fits(need(self.mode, "mode")?)?,
                mtime: self.mtime()?,
            },
            Name::SyncNames => Op::SyncNames {
                dir: self.dir()?,
                path: self.path()?,
                first: self.first.take(),
                last: self.last.take(),
                ask: self.ask,
                recent: self.recent.unwrap_or_default(),
            },
            Name::SyncData => Op::SyncData {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                offset: need(self.offset, "offset")?,
            },
            Name::SyncZero => Op::SyncZero {
                dir: self.dir()?,
                path: self.path()?,
                ino: self.ino()?,
                offset: need(self.offset, "offset")?,
                length: need(self.length, "length")?,
            },
            Name::SyncMeta => Op::SyncMeta { dir: self.dir()?, path: self.path()?, ino: self.ino()? },
            Name::SyncDir => Op::SyncDir { dir: self.dir()?, path: self.path()? },
            Name::Sync => Op::Sync {
                dir: self.dir()?,
                path: self.path.take(),
                ino: self.ino()?,
                data_only: need(self.data_only, "data_only")?,
            },
            Name::ResyncBegin => Op::ResyncBegin { full: need(self.full, "full")? },
            Name::Ask => Op::Ask { id: need(self.id, "id")? },
            Name::ResyncEnd => Op::ResyncEnd,
            Name::Checkpoint => Op::Checkpoint { number: need(self.number, "number")? },
            Name::Goodbye => Op::Goodbye,
        })
    }
}

impl<'de> Deserialize<'de> for Header {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(HeaderVisitor)
    }
}

struct HeaderVisitor;

impl<'de> Visitor<'de> for HeaderVisitor {
    type Value = Header;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the header of a frame")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Header, A::Error> {
        let (mut n, mut len, mut op, mut control) = (None, 0, None, false);
        let mut fields = Fields::default();
        while let Some(key) = map.next_key()? {
            match key {
                Key::N => n = Some(map.next_value()?),
                Key::Len => len = map.next_value()?,
                Key::Op => op = Some(map.next_value()?),
                // Before its fields, which may have the names of others.
                Key::Ctl => {
                    control = true;
                    map.next_value::<IgnoredAny>()?;
                }
                _ if control => drop(map.next_value::<IgnoredAny>()?),
                Key::Dir => fields.dir = map.next_value()?,
                Key::Path => fields.path = map.next_value()?,
                Key::Ino => fields.ino = map.next_value()?,
                Key::Offset => fields.offset = map.next_value()?,
                Key::Length => fields.length = map.next_value()?,
                Key::Mtime => fields.mtime = map.next_value()?,
                Key::Atime => fields.atime = map.next_value()?,
                Key::ParentMtime => fields.parent_mtime = map.next_value()?,
                Key::FromMtime => fields.from_mtime = map.next_value()?,
                Key::Mode => fields.mode = map.next_value()?,
                Key::Uid => fields.uid = map.next_value()?,
                Key::Gid => fields.gid = map.next_value()?,
                Key::Size => fields.size = map.next_value()?,
                Key::Kind => fields.kind = map.next_value()?,
                Key::Owner => fields.owner = map.next_value()?,
                Key::Rdev => fields.rdev = map.next_value()?,
                Key::Target => fields.target = map.next_value()?,
                Key::From => fields.from = map.next_value()?,
                Key::Flags => fields.flags = map.next_value()?,
                Key::Name => fields.name = map.next_value()?,
                Key::DataOnly => fields.data_only = map.next_value()?,
                Key::Full => fields.full = map.next_value()?,
                Key::First => fields.first = map.next_value()?,
                Key::Last => fields.last = map.next_value()?,
                Key::Ask => fields.ask = map.next_value()?,
                Key::Recent => fields.recent = map.next_value()?,
                Key::Id => fields.id = map.next_value()?,
                Key::Number => fields.number = map.next_value()?,
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        let what = match op {
            Some(name) => What::Op(fields.op(name)?),
            None if control => What::Control,
            None => What::Nothing,
        };
        Ok(Header { n: need(n, "n")?, len, what })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)] // a test that cannot go on has failed

    use super::*;
    use crate::stream::frame::{op_text, put_header};
    use proptest::option;
    use proptest::prelude::*;

    fn path() -> impl Strategy<Value = RelPath> {
        proptest::collection::vec(1u8..=255, 0..40).prop_filter_map("walkable", RelPath::new)
    }

    fn time() -> impl Strategy<Value = Time> {
        (any::<i64>(), 0u32..1_000_000_000).prop_map(|(s, ns)| Time(s, ns))
    }

    fn owner() -> impl Strategy<Value = Owner> {
        any::<(u32, u32, u32)>().prop_map(|(mode, uid, gid)| Owner { mode, uid, gid })
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![Just(Kind::File), Just(Kind::Directory), Just(Kind::Fifo), Just(Kind::BlockDevice)]
    }

    /// The part of the fields that all have: directory, path, inode.
    type Place = (u16, RelPath, u64);

    fn live() -> impl Strategy<Value = Op> {
        let place = || (any::<u16>(), path(), any::<u64>());
        prop_oneof![
            (place(), any::<u64>(), time()).prop_map(|((dir, path, ino), offset, mtime)| Op::Write {
                dir,
                path,
                ino,
                offset,
                mtime
            }),
            (place(), any::<[Option<u32>; 3]>(), any::<Option<u64>>(), option::of(time()), option::of(time()))
                .prop_map(|((dir, path, ino), [mode, uid, gid], size, atime, mtime)| {
                    Op::SetAttr { dir, path, ino, mode, uid, gid, size, atime, mtime }
                }),
            (place(), kind(), owner(), any::<u64>(), time(), time()).prop_map(
                |((dir, path, ino), kind, owner, rdev, mtime, parent_mtime)| {
                    Op::Create { dir, path, ino, kind, owner, rdev, mtime, parent_mtime }
                }
            ),
            (place(), path(), owner(), time(), time()).prop_map(
                |((dir, path, ino), target, owner, mtime, parent_mtime)| {
                    Op::Symlink { dir, path, ino, target, owner, mtime, parent_mtime }
                }
            ),
            (place(), path(), time()).prop_map(|((dir, path, ino), from, parent_mtime)| Op::Link {
                dir,
                from,
                path,
                ino,
                parent_mtime
            }),
            (place(), time()).prop_map(|((dir, path, ino), parent_mtime)| Op::Unlink { dir, path, ino, parent_mtime }),
            (place(), time()).prop_map(|((dir, path, ino), parent_mtime)| Op::Rmdir { dir, path, ino, parent_mtime }),
            (place(), path(), any::<u32>(), time(), time()).prop_map(
                |((dir, path, ino), from, flags, from_mtime, parent_mtime)| {
                    Op::Rename { dir, from, path, ino, flags, from_mtime, parent_mtime }
                }
            ),
            (place(), path()).prop_map(|((dir, path, ino), name)| Op::SetXattr { dir, path, ino, name }),
            (place(), path()).prop_map(|((dir, path, ino), name)| Op::RemoveXattr { dir, path, ino, name }),
            (place(), any::<u64>(), any::<u64>(), any::<i32>(), time()).prop_map(
                |((dir, path, ino), offset, length, mode, mtime)| {
                    Op::Fallocate { dir, path, ino, offset, length, mode, mtime }
                }
            ),
            (any::<u16>(), option::of(path()), any::<u64>(), any::<bool>())
                .prop_map(|(dir, path, ino, data_only)| Op::Sync { dir, path, ino, data_only }),
        ]
    }

    fn synchronising() -> impl Strategy<Value = Op> {
        let place = || (any::<u16>(), path(), any::<u64>());
        prop_oneof![
            (any::<u16>(), path()).prop_map(|(dir, path)| Op::SyncDir { dir, path }),
            any::<bool>().prop_map(|full| Op::ResyncBegin { full }),
            (any::<u16>(), path(), option::of(path()), option::of(path()), any::<Option<u64>>(), any::<bool>())
                .prop_map(|(dir, path, first, last, ask, recent)| Op::SyncNames {
                    dir,
                    path,
                    first,
                    last,
                    ask,
                    recent
                }),
            any::<u64>().prop_map(|id| Op::Ask { id }),
            (place(), any::<u64>()).prop_map(|((dir, path, ino), offset)| Op::SyncData { dir, path, ino, offset }),
            (place(), any::<u64>(), any::<u64>()).prop_map(|((dir, path, ino), offset, length)| Op::SyncZero {
                dir,
                path,
                ino,
                offset,
                length
            }),
            place().prop_map(|(dir, path, ino): Place| Op::SyncMeta { dir, path, ino }),
            Just(Op::ResyncEnd),
            any::<u64>().prop_map(|number| Op::Checkpoint { number }),
            Just(Op::Goodbye),
        ]
    }

    fn line(n: u64, payload: usize, op: &Op) -> Vec<u8> {
        let (mut text, mut line) = (Vec::new(), Vec::new());
        op_text(op, &mut text).unwrap();
        put_header(&mut line, n, payload, &text);
        line
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(n in any::<u64>(), payload in 0usize..5_000_000, op in prop_oneof![live(), synchronising()]) {
            let header: Header = serde_json::from_slice(&line(n, payload, &op)).unwrap();
            prop_assert_eq!(header, Header { n, len: payload as u64, what: What::Op(op) });
        }

        /// What serde derives from [`Op`] is the judge: of lines with a field less, a wrong value, a byte more.
        #[test]
        fn a_damaged_line_means_what_it_means_to_everybody(
            op in prop_oneof![live(), synchronising()], at in 0usize..400, byte in any::<u8>(), cut in any::<bool>(),
        ) {
            let mut line = line(1, 0, &op);
            let at = at % line.len();
            if cut {
                // One field less.
                let mut value: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(&line).unwrap();
                let keys: Vec<_> = value.keys().filter(|k| *k != "n").cloned().collect();
                value.remove(&keys[at % keys.len()]);
                line = serde_json::to_vec(&value).unwrap();
            } else {
                line[at] = byte;
            }
            let derived: Result<Op, _> = serde_json::from_slice(&line);
            match (serde_json::from_slice::<Header>(&line), derived) {
                (Ok(Header { what: What::Op(read), .. }), Ok(derived)) => prop_assert_eq!(read, derived),
                // `n` or `len` are damaged, which the derived reading does not look at; or there is no operation.
                (Err(_) | Ok(Header { what: What::Nothing | What::Control, .. }), _) => {}
                (Ok(read), Err(e)) => prop_assert!(e.to_string().contains("duplicate field"), "{:?} although {}", read, e),
            }
        }
    }

    #[test]
    fn a_control_message_is_told_by_its_tag_and_nothing_else_of_it_is_read() {
        let read = |line: &str| serde_json::from_str::<Header>(line).map(|h| h.what);
        assert_eq!(read(r#"{"n":0,"len":5,"ctl":"welcome","mode":"resume","path":7}"#).unwrap(), What::Control);
        assert_eq!(read(r#"{"n":0,"len":5}"#).unwrap(), What::Nothing);
        assert!(read(r#"{"len":5,"op":"goodbye"}"#).is_err());
        assert!(read(r#"{"n":1,"op":"unheard_of"}"#).is_err());
        assert!(read(r#"{"n":1,"op":"set_attr","dir":0,"path":"a","ino":1,"mode":-1}"#).is_err());
    }
}
