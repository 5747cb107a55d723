//! Which processes have just got a new program or name? From the kernel's process connector, where it is permitted.
//!
//! The kernel gives these events to the first network and process namespaces only, and to privileged processes only. Elsewhere
//! nothing comes, and the scans find out later: this is an accelerator, never the only source.

use rustix::io::Errno;
use rustix::net::netlink::{CONNECTOR, SocketAddrNetlink};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, bind, recv, send, socket_with};
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};

/// Index and value of the process connector, and its multicast group.
const CN_IDX_PROC: u32 = 1;
const CN_VAL_PROC: u32 = 1;
const PROC_CN_MCAST_LISTEN: u32 = 1;
const NLMSG_DONE: u16 = 3;
const PROC_EVENT_EXEC: u32 = 0x0000_0002;
const PROC_EVENT_COMM: u32 = 0x0000_0200;
/// Length of the netlink and the connector header.
const HEADERS: usize = 16 + 20;
/// `what`, `cpu` and the time stamp come before the pids of an event.
const EVENT_HEAD: usize = 16;

pub(crate) struct Births(OwnedFd);

/// What became known.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// These processes run another program or have another name than before.
    Changed(BTreeSet<i32>),
    /// More happened than was delivered: anything may have changed.
    Overrun,
}

impl Births {
    /// Subscribes; an error where that is not permitted.
    pub fn subscribe() -> rustix::io::Result<Self> {
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::DGRAM, flags, Some(CONNECTOR))?;
        bind(&socket, &SocketAddrNetlink::new(0, CN_IDX_PROC))?;
        let mut message = Vec::new();
        let body = PROC_CN_MCAST_LISTEN.to_ne_bytes();
        message.extend_from_slice(&((HEADERS + body.len()) as u32).to_ne_bytes());
        message.extend_from_slice(&NLMSG_DONE.to_ne_bytes());
        message.extend_from_slice(&[0; 2 + 4 + 4]);
        message.extend_from_slice(&CN_IDX_PROC.to_ne_bytes());
        message.extend_from_slice(&CN_VAL_PROC.to_ne_bytes());
        message.extend_from_slice(&[0; 4 + 4]);
        message.extend_from_slice(&(body.len() as u16).to_ne_bytes());
        message.extend_from_slice(&[0; 2]);
        message.extend_from_slice(&body);
        send(&socket, &message, SendFlags::empty())?;
        Ok(Self(socket))
    }

    /// Takes everything that waits.
    pub fn read(&self) -> News {
        let mut changed = BTreeSet::new();
        let mut buffer = [0; 8192];
        let mut overrun = false;
        loop {
            match recv(&self.0, &mut buffer, RecvFlags::empty()) {
                Ok((count, _)) => changed.extend(buffer.get(..count).and_then(changed_process)),
                Err(Errno::INTR) => {}
                Err(Errno::NOBUFS) => overrun = true,
                Err(_) if overrun => return News::Overrun,
                Err(_) => return News::Changed(changed),
            }
        }
    }
}

impl AsRawFd for Births {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at.checked_add(4)?)?.try_into().ok()?))
}

/// The process (not thread) that an event is about, if the event is of interest.
fn changed_process(message: &[u8]) -> Option<i32> {
    if (word(message, 16)?, word(message, 20)?) != (CN_IDX_PROC, CN_VAL_PROC) {
        return None;
    }
    let what = word(message, HEADERS)?;
    let thread_group = word(message, HEADERS + EVENT_HEAD + 4)?;
    matches!(what, PROC_EVENT_EXEC | PROC_EVENT_COMM).then(|| i32::try_from(thread_group).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_interest_are_taken_and_everything_else_is_not() {
        let mut message = vec![0; HEADERS + EVENT_HEAD + 8];
        let mut put = |at: usize, value: u32| message[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        put(16, CN_IDX_PROC);
        put(20, CN_VAL_PROC);
        put(HEADERS, PROC_EVENT_EXEC);
        put(HEADERS + EVENT_HEAD, 7);
        put(HEADERS + EVENT_HEAD + 4, 5);
        assert_eq!(changed_process(&message), Some(5));
        for length in 0..message.len() {
            assert_eq!(changed_process(&message[..length]), None);
        }
        message[HEADERS] = 1;
        assert_eq!(changed_process(&message), None);
    }
}
