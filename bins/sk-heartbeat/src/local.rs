//! How do a module's heartbeat and the carrier of its node talk: JSON records over a local socket, with descriptors?
//!
//! A record says more in later versions: unknown members are ignored, unknown kinds are skipped. [`PROTOCOL`] grows when
//! that is not enough; a carrier serves every older one.

use crate::spec::LinkSpec;
use detector::Known;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, IoSlice, IoSliceMut};
use std::net::IpAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;
use sys::pidfd::PidFd;

/// Version of the conversation.
pub(crate) const PROTOCOL: u32 = 2;
/// Word in which a module's heartbeat notes when it last went round its loop.
pub(crate) const MEMBER_WORD: usize = 0;
/// The same of the carrier.
pub(crate) const CARRIER_WORD: usize = 1;
/// Longest record in bytes: sixteen links, and a state whose every byte is escaped.
const RECORD_LIMIT: usize = 16 * 1024;

/// What both sides look after each other by: an eighth of the shortest timeout, in milliseconds.
pub(crate) fn round_ms(links: &[LinkSpec]) -> u64 {
    links.iter().map(|l| l.timeout_ms / 8).min().unwrap_or(1000).clamp(10, 1000)
}

/// Rounds without a sign of the other side after which the carrier counts as hung.
pub(crate) const CARRIER_ROUNDS: u64 = 3;
/// The same for a module's heartbeat: it then counts as silent.
pub(crate) const MEMBER_ROUNDS: u64 = 4;

/// A state that a module publishes.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Statement {
    /// Grows with each change, from 1.
    pub version: u32,
    pub bye: bool,
    /// JSON.
    pub state: String,
}

/// What a module's heartbeat knows, for a new carrier.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Memory {
    pub links: Vec<bool>,
    pub judged: bool,
    pub newest: Option<(u64, u64)>,
}

impl From<Memory> for Known {
    fn from(memory: Memory) -> Self {
        Self { links: memory.links, judged: memory.judged, newest: memory.newest }
    }
}

/// From a module's heartbeat.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum ToCarrier {
    /// First of all, with a descriptor of the runner's process.
    Attach(Box<Attach>),
    Publish(Statement),
    /// The keys have changed.
    Keys(Keys),
    /// Ends in good order, and is silent from now on.
    Leave,
    /// A program of a later version wants to carry.
    Yield,
    #[serde(other)]
    Unknown,
}

/// What authenticates packets. Given by the module, so that the carrier needs no file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    /// Of the packets sent.
    pub used: [u8; 32],
    /// Of packets that are believed beside those with the key in use.
    pub accepted: Vec<[u8; 32]>,
}

impl Keys {
    pub fn of(ring: &wire::KeyRing) -> Self {
        Self {
            used: ring.used().path_key(),
            accepted: ring.accepted().iter().map(wire::ClusterKey::path_key).collect(),
        }
    }

    pub fn all(&self) -> Vec<[u8; 32]> {
        std::iter::once(self.used).chain(self.accepted.iter().copied()).collect()
    }

    /// Whether these are the same keys, before and after a step of a renewal.
    pub fn are_related(&self, other: &Self) -> bool {
        let others = other.all();
        self.all().iter().any(|key| others.contains(key))
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attach {
    pub protocol: u32,
    pub module: String,
    pub node: String,
    pub peer: String,
    pub port: u16,
    pub keys: Keys,
    pub incarnation: u64,
    pub links: Vec<LinkSpec>,
    pub memory: Memory,
    pub statement: Option<Statement>,
}

/// To a module's heartbeat. Links are named by their place in its list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(crate) enum ToMember {
    /// With a descriptor of shared words.
    Attached {
        protocol: u32,
    },
    /// The carrier is of an older version than the module's heartbeat.
    Older {
        protocol: u32,
    },
    /// Tried again later.
    Refused {
        reason: String,
    },
    LinkUp {
        link: usize,
    },
    LinkDown {
        link: usize,
    },
    PeerUp,
    PeerDown,
    PeerState {
        incarnation: u64,
        version: u64,
        bye: bool,
        state: String,
    },
    PeerGone {
        evidence: String,
    },
    ByeDone,
    Address {
        link: usize,
        present: bool,
    },
    WrongKey {
        from: IpAddr,
    },
    /// For people.
    Words {
        text: String,
    },
    #[serde(other)]
    Unknown,
}

/// One end of a conversation; never waits.
pub(crate) struct Channel(OwnedFd);

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Channel {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_raw_fd()
    }
}

/// What came.
pub(crate) enum Received<T> {
    Record(T, Option<OwnedFd>),
    /// A record that is none of ours.
    Noise,
    Nothing,
    Closed,
}

impl Channel {
    /// Connects to the carrier.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        rustix::net::connect(&socket, &SocketAddrUnix::new(path)?)?;
        Ok(Self(socket))
    }

    /// The next one who connected to a listening socket.
    pub fn accept(listener: impl AsFd) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        Ok(Self(rustix::net::accept_with(listener, flags)?))
    }

    /// The process at the other end: that which listens, when we have connected. `None`: it is gone.
    pub fn process(&self) -> io::Result<Option<PidFd>> {
        let process = PidFd::open(rustix::net::sockopt::socket_peercred(&self.0)?.pid.as_raw_nonzero().get())?;
        // The number is still its own as long as it has not closed its end.
        let mut poll = [rustix::event::PollFd::new(&self.0, rustix::event::PollFlags::HUP)];
        let now = rustix::event::Timespec { tv_sec: 0, tv_nsec: 0 };
        let closed = rustix::event::poll(&mut poll, Some(&now))? > 0
            && poll.iter().any(|p| p.revents().contains(rustix::event::PollFlags::HUP));
        Ok(process.filter(|_| !closed))
    }

    /// Whether the other end belongs to root or to our own user.
    pub fn is_ours(&self) -> io::Result<bool> {
        let user = rustix::net::sockopt::socket_peercred(&self.0)?.uid;
        Ok(user.is_root() || user == rustix::process::geteuid())
    }

    /// Sends one record, with a descriptor when there is one. `WouldBlock`: the other side does not read.
    pub fn send<T: Serialize>(&self, record: &T, fd: Option<BorrowedFd>) -> io::Result<()> {
        let bytes = serde_json::to_vec(record)?;
        let fds: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[] } else { rights.as_slice() };
        let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
        loop {
            match sendmsg::<UnixAddr>(self.as_raw_fd(), &[IoSlice::new(&bytes)], control, flags, None) {
                Ok(_) => return Ok(()),
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    pub fn receive<T: DeserializeOwned>(&self) -> io::Result<Received<T>> {
        let mut bytes = [0; RECORD_LIMIT];
        let mut control = nix::cmsg_space!([i32; 4]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let (length, fd, cut) = loop {
            let mut parts = [IoSliceMut::new(&mut bytes)];
            match recvmsg::<UnixAddr>(self.as_raw_fd(), &mut parts, Some(&mut control), flags) {
                Ok(message) => {
                    let mut fds = Vec::new();
                    for part in message.cmsgs()? {
                        if let ControlMessageOwned::ScmRights(received) = part {
                            for fd in received {
                                // SAFETY: the kernel has just installed this descriptor for us; nobody else owns it.
                                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
                            }
                        }
                    }
                    break (message.bytes, fds.into_iter().next(), message.flags.contains(MsgFlags::MSG_TRUNC));
                }
                Err(nix::errno::Errno::EINTR) => {}
                Err(nix::errno::Errno::EAGAIN) => return Ok(Received::Nothing),
                Err(nix::errno::Errno::ECONNRESET | nix::errno::Errno::EPIPE) => return Ok(Received::Closed),
                Err(error) => return Err(error.into()),
            }
        };
        if length == 0 {
            return Ok(Received::Closed);
        }
        let record = bytes.get(..length).filter(|_| !cut).and_then(|bytes| serde_json::from_slice(bytes).ok());
        Ok(record.map_or(Received::Noise, |record| Received::Record(record, fd)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::socketpair;

    fn pair() -> (Channel, Channel) {
        let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
        (Channel(a), Channel(b))
    }

    #[test]
    fn records_cross_with_their_descriptor_and_others_are_noise() {
        let (a, b) = pair();
        assert!(matches!(b.receive::<ToCarrier>().unwrap(), Received::Nothing));
        let (words, fd) = sys::words::SharedWords::create().unwrap();
        words.set(0, 5);
        a.send(&ToMember::Attached { protocol: 1 }, Some(fd.as_fd())).unwrap();
        let Received::Record(ToMember::Attached { protocol: 1 }, Some(fd)) = b.receive().unwrap() else { panic!() };
        assert_eq!(sys::words::SharedWords::open(fd).unwrap().get(0), 5);
        a.send(&serde_json::json!({"kind": "of_the_future", "more": 1}), None).unwrap();
        assert!(matches!(b.receive().unwrap(), Received::Record(ToMember::Unknown, None)));
        a.send(&serde_json::json!({"kind": "attached"}), None).unwrap();
        assert!(matches!(b.receive::<ToMember>().unwrap(), Received::Noise));
        a.send(&serde_json::json!([1, 2]), None).unwrap();
        assert!(matches!(b.receive::<ToMember>().unwrap(), Received::Noise));
        drop(a);
        assert!(matches!(b.receive::<ToMember>().unwrap(), Received::Closed));
    }

    #[test]
    fn one_who_does_not_read_makes_nobody_wait() {
        let (a, _b) = pair();
        let words = ToMember::Words { text: "x".repeat(4000) };
        let full = (0..10_000).find_map(|_| a.send(&words, None).err()).unwrap();
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
