//! How do descriptors (mounts, request slots, unsent data) outlive the process that uses them?
//!
//! The parent holds them, see "Descriptor store" in docs/architecture.md. One message is one SEQPACKET record of JSON with
//! at most one descriptor. What a child has sent before it died counts: its messages wait in the socket, and are
//! read before its successor is served.

use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, recvmsg, sendmsg,
    socketpair,
};
use rustix::event::{PollFd, PollFlags, poll};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};

/// Longest name in bytes: a path with a prefix.
pub const NAME_LIMIT: usize = 5000;
/// A name in JSON can grow sixfold (`\u0001`).
const MESSAGE_LIMIT: usize = 6 * NAME_LIMIT + 100;

#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "lowercase")]
enum Wire {
    Keep { name: String },
    Drop { name: String },
    Kept { name: String },
    End,
}

fn send(socket: &OwnedFd, message: &Wire, fd: Option<i32>) -> io::Result<()> {
    let bytes = serde_json::to_vec(message)?;
    if bytes.len() > MESSAGE_LIMIT {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a kept descriptor is too long"));
    }
    let fds: Vec<i32> = fd.into_iter().collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control = if fds.is_empty() { &[] } else { rights.as_slice() };
    loop {
        match sendmsg::<UnixAddr>(socket.as_raw_fd(), &[IoSlice::new(&bytes)], control, MsgFlags::MSG_NOSIGNAL, None) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

/// `None` at the end of the connection.
fn receive(socket: &OwnedFd, flags: MsgFlags) -> io::Result<Option<(Wire, Option<OwnedFd>)>> {
    let mut bytes = vec![0; MESSAGE_LIMIT];
    let mut control = nix::cmsg_space!([i32; 4]);
    let (length, fds, cut) = loop {
        let mut parts = [IoSliceMut::new(&mut bytes)];
        match recvmsg::<UnixAddr>(
            socket.as_raw_fd(),
            &mut parts,
            Some(&mut control),
            flags | MsgFlags::MSG_CMSG_CLOEXEC,
        ) {
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
                break (message.bytes, fds, message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC));
            }
            Err(nix::errno::Errno::EINTR) => {}
            Err(nix::errno::Errno::ECONNRESET) => return Ok(None),
            Err(e) => return Err(e.into()),
        }
    };
    if length == 0 {
        return Ok(None);
    }
    if cut {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "a message of the descriptor store was cut; is the limit of open files reached?",
        ));
    }
    let message = serde_json::from_slice(bytes.get(..length).unwrap_or_default())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, format!("a message of the descriptor store: {e}")))?;
    Ok(Some((message, fds.into_iter().next())))
}

/// The child's side.
pub struct StoreClient(OwnedFd);

impl StoreClient {
    /// Receives what was kept so far, each under its name. `fd` is the inherited socket (`--store-fd`).
    pub fn connect(fd: OwnedFd) -> io::Result<(Self, Vec<(String, OwnedFd)>)> {
        // Our own children must not hold the socket: its closing tells the parent that we are gone.
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        let mut kept = Vec::new();
        loop {
            match receive(&fd, MsgFlags::empty())? {
                Some((Wire::Kept { name }, Some(descriptor))) => kept.push((name, descriptor)),
                Some((Wire::End, _)) => return Ok((Self(fd), kept)),
                Some(_) => {
                    return Err(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "unexpected message of the descriptor store",
                    ));
                }
                None => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    /// Keeps a duplicate of `fd` under `name`, replacing an older one. On return it will outlive us.
    pub fn keep(&self, name: &str, fd: impl AsFd) -> io::Result<()> {
        if name.len() > NAME_LIMIT {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the name of a kept descriptor is too long"));
        }
        send(&self.0, &Wire::Keep { name: name.to_owned() }, Some(fd.as_fd().as_raw_fd()))
    }

    /// Closes what is kept under `name`, if anything.
    pub fn drop_name(&self, name: &str) -> io::Result<()> {
        send(&self.0, &Wire::Drop { name: name.to_owned() }, None)
    }
}

#[derive(Default)]
struct Shelf {
    kept: BTreeMap<String, OwnedFd>,
    /// Our end of the present child's connection.
    connection: Option<Arc<OwnedFd>>,
    problem: Option<String>,
}

impl Shelf {
    /// Takes everything that waits in the present connection; `false` when that connection has ended.
    fn drain(&mut self) -> bool {
        let Some(socket) = self.connection.clone() else { return false };
        loop {
            match receive(&socket, MsgFlags::MSG_DONTWAIT) {
                Ok(Some((Wire::Keep { name }, Some(fd)))) if name.len() <= NAME_LIMIT => {
                    self.kept.insert(name, fd);
                }
                Ok(Some((Wire::Drop { name }, _))) => {
                    self.kept.remove(&name);
                }
                Ok(Some(_)) => self.problem = Some("unexpected message to the descriptor store".to_owned()),
                Ok(None) => {
                    self.connection = None;
                    return false;
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return true,
                Err(e) if e.kind() == io::ErrorKind::InvalidData => self.problem = Some(e.to_string()),
                Err(e) => {
                    self.problem = Some(format!("descriptor store: {e}"));
                    self.connection = None;
                    return false;
                }
            }
        }
    }
}

/// The parent's side: holds the descriptors of one child and its successors. A thread serves each connection.
#[derive(Clone, Default)]
pub struct Store(Arc<Mutex<Shelf>>);

impl Store {
    pub fn new() -> Self {
        Self::default()
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        // Each change of the shelf is one call on a map: it is whole also after a panic elsewhere.
        self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Begins to serve a new child and gives the end to hand to it (close-on-exec; drop it after the spawn). Call it after
    /// the predecessor has ended: what that has sent counts, its connection is closed.
    pub fn serve(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        let ours = Arc::new(ours);
        let mut shelf = self.shelf();
        shelf.drain();
        let mut gifts = Vec::new();
        for (name, fd) in &shelf.kept {
            gifts.push((name.clone(), fd.try_clone()?));
        }
        shelf.connection = Some(ours.clone());
        drop(shelf);
        let store = self.clone();
        std::thread::Builder::new().name("store".to_owned()).spawn(move || store.attend(&ours, gifts))?;
        Ok(theirs)
    }

    /// Serves one connection until it ends or another one takes its place.
    fn attend(&self, socket: &Arc<OwnedFd>, gifts: Vec<(String, OwnedFd)>) {
        for (name, fd) in gifts {
            if send(socket, &Wire::Kept { name }, Some(fd.as_raw_fd())).is_err() {
                // The child died before it read everything; its successor gets all of it again.
                return;
            }
        }
        if send(socket, &Wire::End, None).is_err() {
            return;
        }
        loop {
            match poll(&mut [PollFd::new(&**socket, PollFlags::IN)], None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
            let mut shelf = self.shelf();
            if !shelf.connection.as_ref().is_some_and(|c| Arc::ptr_eq(c, socket)) || !shelf.drain() {
                return;
            }
        }
    }

    /// Closes everything that is kept. Call it after the child has ended in good order.
    pub fn clear(&self) {
        let mut shelf = self.shelf();
        shelf.drain();
        shelf.kept.clear();
    }

    /// Names of what is kept now. What the child has sent counts, also when nobody has looked at it yet.
    pub fn names(&self) -> Vec<String> {
        let mut shelf = self.shelf();
        shelf.drain();
        shelf.kept.keys().cloned().collect()
    }

    /// The last thing that went wrong, once.
    pub fn take_problem(&self) -> Option<String> {
        self.shelf().problem.take()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Seek, Write};

    fn file(content: &str) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    fn content(fd: OwnedFd) -> String {
        let (mut file, mut text) = (File::from(fd), String::new());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_successor_gets_what_was_kept_also_when_the_child_died_at_once() {
        let store = Store::new();
        for round in 0..50 {
            let (client, kept) = StoreClient::connect(store.serve().unwrap()).unwrap();
            if round > 0 {
                let mut texts: Vec<_> = kept.into_iter().map(|(n, f)| (n, content(f))).collect();
                texts.sort();
                let expected =
                    vec![("always".to_owned(), "first".to_owned()), ("last".to_owned(), format!("{}", round - 1))];
                assert_eq!(texts, expected);
            } else {
                client.keep("always", file("first")).unwrap();
            }
            client.keep("gone", file("x")).unwrap();
            client.drop_name("gone").unwrap();
            client.keep("last", file("replaced")).unwrap();
            client.keep("last", file(&round.to_string())).unwrap();
        }
        store.clear();
        assert!(store.names().is_empty());
        assert_eq!(store.take_problem(), None);
    }

    #[test]
    fn many_descriptors_are_handed_over_and_a_dead_child_does_not_stop_us() {
        let store = Store::new();
        let (client, _) = StoreClient::connect(store.serve().unwrap()).unwrap();
        let one = file("x");
        for n in 0..400 {
            client.keep(&format!("unlinked:/dir:{n}"), &one).unwrap();
        }
        drop(client);
        // This child never reads.
        drop(store.serve().unwrap());
        let (_, kept) = StoreClient::connect(store.serve().unwrap()).unwrap();
        assert_eq!(kept.len(), 400);
    }

    #[test]
    fn names_tell_what_a_child_sent_just_before() {
        let store = Store::new();
        let (client, _) = StoreClient::connect(store.serve().unwrap()).unwrap();
        let one = file("x");
        for _ in 0..200 {
            client.keep("a", &one).unwrap();
            assert_eq!(store.names(), ["a"]);
            client.drop_name("a").unwrap();
            assert_eq!(store.names(), [""; 0]);
        }
    }

    #[test]
    fn garbage_does_not_disturb_what_is_kept() {
        let store = Store::new();
        let (client, _) = StoreClient::connect(store.serve().unwrap()).unwrap();
        client.keep("a", file("a")).unwrap();
        for garbage in
            [b"{".as_slice(), b"{\"kind\":\"keep\",\"name\":\"b\"}", b"{\"kind\":\"end\"}", &vec![0xff; 40_000]]
        {
            rustix::net::send(&client.0, garbage, rustix::net::SendFlags::empty()).unwrap();
        }
        client.keep("c", file("c")).unwrap();
        assert!(client.keep(&"x".repeat(NAME_LIMIT + 1), file("")).is_err());
        drop(client);
        let (_, kept) = StoreClient::connect(store.serve().unwrap()).unwrap();
        assert_eq!(kept.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["a", "c"]);
        assert!(store.take_problem().is_some());
    }
}
