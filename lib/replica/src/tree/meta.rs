//! What belongs to an object besides its content and its names?

use super::{kind_of, mtime_of};
use crate::op::{Kind, Owner, RelPath, Time};
use rustix::fs::{AtFlags, Stat, Timespec, Timestamps, UTIME_OMIT, XattrFlags};
use rustix::io::Errno;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// An extended attribute (access control lists are some).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Xattr {
    pub name: RelPath,
    #[serde(serialize_with = "to_hex", deserialize_with = "from_hex")]
    pub value: Vec<u8>,
}

/// Final attributes of an object: the payload of `SyncMeta`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meta {
    pub kind: Kind,
    pub owner: Owner,
    /// Of files, bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<u64>,
    pub mtime: Time,
    /// Sorted by name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub xattrs: Vec<Xattr>,
}

/// Where an object is: its parent and name, or a descriptor of itself.
#[derive(Clone, Copy)]
pub(crate) enum Place<'a> {
    At(BorrowedFd<'a>, &'a [u8]),
    Fd(BorrowedFd<'a>),
}

/// A path that reaches `name` in an open directory without walking anything above it.
pub(crate) fn proc_path(dir: impl AsFd, name: &[u8]) -> Vec<u8> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
    path.extend_from_slice(name);
    path
}

impl Meta {
    /// Reads the attributes of an object whose state was just read.
    pub(crate) fn read(place: Place<'_>, stat: &Stat) -> io::Result<Self> {
        let kind = kind_of(stat).ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))?;
        Ok(Self {
            kind,
            owner: Owner { mode: stat.st_mode & 0o7777, uid: stat.st_uid, gid: stat.st_gid },
            size: (kind == Kind::File).then_some(stat.st_size as u64),
            mtime: mtime_of(stat),
            xattrs: xattrs(place)?,
        })
    }

    /// Equal digests: equal attributes.
    pub fn digest(&self) -> u128 {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(self.kind as u8);
        for word in [self.owner.mode, self.owner.uid, self.owner.gid, self.mtime.1] {
            bytes.extend_from_slice(&word.to_le_bytes());
        }
        bytes.extend_from_slice(&self.size.unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend_from_slice(&self.mtime.0.to_le_bytes());
        for xattr in &self.xattrs {
            for part in [xattr.name.as_bytes(), &xattr.value] {
                bytes.extend_from_slice(&(part.len() as u64).to_le_bytes());
                bytes.extend_from_slice(part);
            }
        }
        xxhash_rust::xxh3::xxh3_128(&bytes)
    }
}

/// Labels that each host gives by its own policy are not copied.
fn is_local(name: &[u8]) -> bool {
    matches!(name, b"security.selinux" | b"security.ima" | b"security.evm")
}

fn grow<F: FnMut(&mut [u8]) -> rustix::io::Result<usize>>(buffer: &mut Vec<u8>, mut call: F) -> io::Result<usize> {
    loop {
        match call(buffer) {
            Ok(n) => return Ok(n),
            Err(Errno::RANGE) if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 4, 0),
            Err(e) => return Err(e.into()),
        }
    }
}

fn xattrs(place: Place<'_>) -> io::Result<Vec<Xattr>> {
    let path = match place {
        Place::At(dir, name) => Some(proc_path(dir, name)),
        Place::Fd(_) => None,
    };
    let mut list = vec![0u8; 1024];
    let listed = grow(&mut list, |buffer| match (place, &path) {
        (Place::Fd(fd), _) => rustix::fs::flistxattr(fd, buffer),
        (_, Some(path)) => rustix::fs::llistxattr(path.as_slice(), buffer),
        _ => Ok(0),
    });
    let len = match listed {
        Ok(len) => len,
        Err(e) if e.raw_os_error() == Some(libc::EOPNOTSUPP) => 0,
        Err(e) => return Err(e),
    };
    let mut found = Vec::new();
    let mut value = Vec::new();
    for name in list.get(..len).unwrap_or_default().split(|b| *b == 0).filter(|n| !n.is_empty() && !is_local(n)) {
        value.resize(value.len().max(1024), 0);
        let got = grow(&mut value, |buffer| match (place, &path) {
            (Place::Fd(fd), _) => rustix::fs::fgetxattr(fd, name, buffer),
            (_, Some(path)) => rustix::fs::lgetxattr(path.as_slice(), name, buffer),
            _ => Ok(0),
        });
        match got {
            Ok(n) => {
                if let Some(name) = RelPath::opaque(name) {
                    found.push(Xattr { name, value: value.get(..n).unwrap_or_default().to_vec() });
                }
            }
            // Gone since the listing, or of a kind that this process may not see.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ENODATA | libc::EOPNOTSUPP)) => {}
            Err(e) => return Err(e),
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

/// Makes the extended attributes exactly these.
pub(crate) fn set_xattrs(place: Place<'_>, wanted: &[Xattr]) -> io::Result<()> {
    let have = xattrs(place)?;
    for extra in have.iter().filter(|h| !wanted.iter().any(|w| w.name == h.name)) {
        let name = extra.name.as_bytes();
        let removed = match place {
            Place::Fd(fd) => rustix::fs::fremovexattr(fd, name),
            Place::At(dir, at) => rustix::fs::lremovexattr(proc_path(dir, at).as_slice(), name),
        };
        match removed {
            Ok(()) | Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    for xattr in wanted.iter().filter(|w| !have.contains(w) && !is_local(w.name.as_bytes())) {
        let name = xattr.name.as_bytes();
        match place {
            Place::Fd(fd) => rustix::fs::fsetxattr(fd, name, &xattr.value, XattrFlags::empty())?,
            Place::At(dir, at) => {
                rustix::fs::lsetxattr(proc_path(dir, at).as_slice(), name, &xattr.value, XattrFlags::empty())?;
            }
        }
    }
    Ok(())
}

/// Sets the times that are given; symlinks are not followed.
pub(crate) fn set_times(place: Place<'_>, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()> {
    if atime.is_none() && mtime.is_none() {
        return Ok(());
    }
    let spec = |time: Option<Time>| match time {
        Some(Time(s, ns)) => Timespec { tv_sec: s, tv_nsec: i64::from(ns.min(999_999_999)) },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
    };
    let times = Timestamps { last_access: spec(atime), last_modification: spec(mtime) };
    match place {
        Place::Fd(fd) => rustix::fs::futimens(fd, &times)?,
        Place::At(dir, name) => rustix::fs::utimensat(dir, name, &times, AtFlags::SYMLINK_NOFOLLOW)?,
    }
    Ok(())
}

fn to_hex<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(bytes.len() * 2);
    for b in bytes {
        text.push(DIGITS[usize::from(b >> 4)] as char);
        text.push(DIGITS[usize::from(b & 15)] as char);
    }
    s.serialize_str(&text)
}

fn from_hex<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
    let text = std::borrow::Cow::<str>::deserialize(d)?;
    let bad = || serde::de::Error::custom("pairs of hexadecimal digits are needed");
    if !text.len().is_multiple_of(2) || text.len() > 1 << 20 {
        return Err(bad());
    }
    let digit = |b: u8| (b as char).to_digit(16);
    text.as_bytes()
        .chunks_exact(2)
        .map(|pair| match pair {
            [high, low] => Some((digit(*high)? * 16 + digit(*low)?) as u8),
            _ => None,
        })
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(bad)
}
