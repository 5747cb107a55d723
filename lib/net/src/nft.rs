//! How are elements of nftables sets changed, and counters read, without starting `nft`? Raw `NETLINK_NETFILTER`.
//!
//! Only what a running filter needs: one batch is one transaction of the kernel. Tables, chains and rules are written as
//! text for `nft -f -`, where people can read them.

use crate::error::NetError;
use netlink_sys::constants::NETLINK_NETFILTER;
use netlink_sys::{Socket, SocketAddr};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`.
const SUBSYSTEM: u16 = 10;
const DELETE_TABLE: u16 = 2;
const NEW_SET_ELEMENT: u16 = 12;
const DELETE_SET_ELEMENT: u16 = 14;
const NEW_OBJECT: u16 = 18;
const GET_OBJECT: u16 = 19;
const NESTED: u16 = 0x8000;
const GOTO: i32 = -4;
const COUNTER: u32 = 1;
/// An attribute's length is 16 bits wide.
const LIST_LIMIT: usize = 60_000;

/// Family of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    Ip,
    Arp,
    Netdev,
    Ip6,
}

impl Family {
    fn number(self) -> u8 {
        match self {
            Self::Ip => 2,
            Self::Arp => 3,
            Self::Netdev => 5,
            Self::Ip6 => 10,
        }
    }

    /// As `nft` writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ip => "ip",
            Self::Arp => "arp",
            Self::Netdev => "netdev",
            Self::Ip6 => "ip6",
        }
    }
}

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Ip, Self::Arp, Self::Netdev, Self::Ip6];
}

/// What an element of a map leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Data<'a> {
    /// An element of a plain set.
    None,
    /// Bytes as in a register: marks in host order, addresses in network order.
    Value(&'a [u8]),
    Goto(&'a str),
}

/// One element of a set or map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Element<'a> {
    pub key: &'a [u8],
    pub data: Data<'a>,
    /// Milliseconds until it disappears by itself.
    pub timeout_ms: Option<u64>,
}

/// Changes that happen all or not at all, and at one instant for every packet.
pub struct Batch {
    bytes: Vec<u8>,
    messages: u32,
    /// Where the last message begins.
    last: usize,
}

impl Default for Batch {
    fn default() -> Self {
        Self::new()
    }
}

impl Batch {
    pub fn new() -> Self {
        let mut batch = Self { bytes: Vec::with_capacity(1024), messages: 0, last: 0 };
        let at = batch.open(BATCH_BEGIN, 0, 0, SUBSYSTEM);
        batch.close(at);
        batch
    }

    /// Removes every element.
    pub fn flush(&mut self, family: Family, table: &str, set: &str) {
        let at = self.open(SUBSYSTEM << 8 | DELETE_SET_ELEMENT, 0, family.number(), 0);
        self.text(1, table);
        self.text(2, set);
        self.close(at);
    }

    /// Adds elements. One that is there with the same data stays as it is, its timeout included: flush before.
    pub fn add<'a>(&mut self, family: Family, table: &str, set: &str, elements: impl IntoIterator<Item = Element<'a>>) {
        let mut elements = elements.into_iter().peekable();
        while elements.peek().is_some() {
            let at = self.open(SUBSYSTEM << 8 | NEW_SET_ELEMENT, NLM_F_CREATE, family.number(), 0);
            self.text(1, table);
            self.text(2, set);
            let list = self.nest(3);
            while self.bytes.len() - list < LIST_LIMIT {
                let Some(element) = elements.next() else { break };
                self.element(&element);
            }
            self.end(list);
            self.close(at);
        }
    }

    /// Removes a table with everything in it.
    pub fn delete_table(&mut self, family: Family, table: &str) {
        let at = self.open(SUBSYSTEM << 8 | DELETE_TABLE, 0, family.number(), 0);
        self.text(1, table);
        self.close(at);
    }

    fn element(&mut self, element: &Element<'_>) {
        let item = self.nest(1);
        let key = self.nest(1);
        self.attribute(1, element.key);
        self.end(key);
        match element.data {
            Data::None => {}
            Data::Value(value) => {
                let data = self.nest(2);
                self.attribute(1, value);
                self.end(data);
            }
            Data::Goto(chain) => {
                let data = self.nest(2);
                let verdict = self.nest(2);
                self.attribute(1, &GOTO.to_be_bytes());
                self.text(2, chain);
                self.end(verdict);
                self.end(data);
            }
        }
        if let Some(ms) = element.timeout_ms {
            self.attribute(4, &ms.to_be_bytes());
        }
        self.end(item);
    }

    /// `nlmsghdr` and `nfgenmsg`; gives where the message begins. Sequence numbers count the messages of the batch.
    fn open(&mut self, kind: u16, flags: u16, family: u8, resource: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        self.bytes.extend_from_slice(&self.messages.to_ne_bytes());
        self.bytes.extend_from_slice(&[0; 4]);
        self.bytes.extend_from_slice(&[family, 0]);
        self.bytes.extend_from_slice(&resource.to_be_bytes());
        self.messages += 1;
        self.last = at;
        at
    }

    fn close(&mut self, at: usize) {
        let length = (self.bytes.len() - at) as u32;
        if let Some(field) = self.bytes.get_mut(at..at + 4) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(value.len() + 4).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn text(&mut self, kind: u16, text: &str) {
        let mut value = text.as_bytes().to_vec();
        value.push(0);
        self.attribute(kind, &value);
    }

    fn nest(&mut self, kind: u16) -> usize {
        let at = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes.extend_from_slice(&(kind | NESTED).to_ne_bytes());
        at
    }

    fn end(&mut self, at: usize) {
        let length = u16::try_from(self.bytes.len() - at).unwrap_or(u16::MAX);
        if let Some(field) = self.bytes.get_mut(at..at + 2) {
            field.copy_from_slice(&length.to_ne_bytes());
        }
    }

    /// The bytes to send: everything above, the last change asking for an acknowledgement, and the end.
    fn finish(mut self) -> (Vec<u8>, u32) {
        let last = self.messages.saturating_sub(1);
        let flags = self.last + 6..self.last + 8;
        if let Some(field) = self.bytes.get_mut(flags)
            && let Ok(present) = <[u8; 2]>::try_from(&*field)
        {
            field.copy_from_slice(&(u16::from_ne_bytes(present) | NLM_F_ACK).to_ne_bytes());
        }
        let end = self.open(BATCH_END, 0, 0, SUBSYSTEM);
        self.close(end);
        (self.bytes, last)
    }
}

/// Packets and bytes of a named counter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counter {
    pub name: String,
    pub packets: u64,
    pub bytes: u64,
}

/// A socket to nftables.
pub struct Nftables {
    socket: Socket,
}

impl Nftables {
    pub fn open() -> Result<Self, NetError> {
        let failed = |e| NetError::sys("cannot open a netfilter socket", e);
        let mut socket = Socket::new(NETLINK_NETFILTER).map_err(failed)?;
        socket.bind_auto().map_err(failed)?;
        // The kernel answers within the request; a limit keeps a lost answer from blocking for ever.
        socket2::SockRef::from(&socket.as_fd()).set_read_timeout(Some(Duration::from_secs(5))).map_err(failed)?;
        Ok(Self { socket })
    }

    /// Executes a batch. After an error nothing was changed. `what` is for the message.
    pub fn commit(&mut self, batch: Batch, what: &str) -> Result<(), NetError> {
        let (bytes, last) = batch.finish();
        self.send(&bytes, what)?;
        let mut first_error = None;
        loop {
            let buffer = self.receive(what)?;
            for message in messages(&buffer).filter(|m| m.kind == NLMSG_ERROR) {
                match code(message.body) {
                    Some(0) if message.sequence == last => return first_error.map_or(Ok(()), Err),
                    Some(0) => {}
                    Some(code) => {
                        let error = failed(what, io::Error::from_raw_os_error(code));
                        // The failure of the transaction as a whole is told for its begin, and alone.
                        if message.sequence == 0 || message.sequence == last {
                            return Err(first_error.unwrap_or(error));
                        }
                        first_error.get_or_insert(error);
                    }
                    None => return Err(senseless(what)),
                }
            }
        }
    }

    /// The named counters of a table.
    pub fn counters(&mut self, family: Family, table: &str) -> Result<Vec<Counter>, NetError> {
        let what = format!("read the counters of table {} {table}", family.word());
        let mut ask = Batch { bytes: Vec::new(), messages: 0, last: 0 };
        let at = ask.open(SUBSYSTEM << 8 | GET_OBJECT, NLM_F_DUMP, family.number(), 0);
        ask.text(1, table);
        ask.attribute(3, &COUNTER.to_be_bytes());
        ask.close(at);
        self.send(&ask.bytes, &what)?;
        let mut found = Vec::new();
        loop {
            let buffer = self.receive(&what)?;
            for message in messages(&buffer) {
                match message.kind {
                    NLMSG_DONE => return Ok(found),
                    NLMSG_ERROR => {
                        let code = code(message.body).ok_or_else(|| senseless(&what))?;
                        return Err(failed(&what, io::Error::from_raw_os_error(code)));
                    }
                    kind if kind == SUBSYSTEM << 8 | NEW_OBJECT => {
                        found.extend(message.body.get(4..).and_then(|b| counter(b, table)));
                    }
                    _ => {}
                }
            }
        }
    }

    fn send(&self, bytes: &[u8], what: &str) -> Result<(), NetError> {
        self.socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map(|_| ()).map_err(|e| failed(what, e))
    }

    fn receive(&self, what: &str) -> Result<Vec<u8>, NetError> {
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            match self.socket.recv(&mut buffer, 0) {
                Ok(_) => return Ok(buffer),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(failed(what, e)),
            }
        }
    }
}

struct Message<'a> {
    kind: u16,
    sequence: u32,
    body: &'a [u8],
}

/// Cuts a datagram into netlink messages; stops at the first that makes no sense.
fn messages(mut buffer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = word(buffer, 0)? as usize;
        let kind = u16::from_ne_bytes(buffer.get(4..6)?.try_into().ok()?);
        let sequence = word(buffer, 8)?;
        let body = buffer.get(16..length)?;
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, sequence, body })
    })
}

/// Cuts a message into attributes without their nesting flags.
fn attributes(mut buffer: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(u16::from_ne_bytes(buffer.get(..2)?.try_into().ok()?));
        let kind = u16::from_ne_bytes(buffer.get(2..4)?.try_into().ok()?);
        let value = buffer.get(4..length)?;
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some((kind & 0x3fff, value))
    })
}

fn counter(body: &[u8], table: &str) -> Option<Counter> {
    let mut found = Counter::default();
    let mut ours = false;
    let number = |value: &[u8]| value.try_into().ok().map(u64::from_be_bytes);
    let text = |value: &[u8]| String::from_utf8_lossy(value.strip_suffix(&[0]).unwrap_or(value)).into_owned();
    for (kind, value) in attributes(body) {
        match kind {
            1 => ours = text(value) == table,
            2 => found.name = text(value),
            4 => {
                for (kind, value) in attributes(value) {
                    match kind {
                        1 => found.bytes = number(value)?,
                        2 => found.packets = number(value)?,
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    ours.then_some(found)
}

/// Error number of an `nlmsgerr`, positive; 0 for an acknowledgement.
fn code(body: &[u8]) -> Option<i32> {
    body.get(..4).and_then(|b| b.try_into().ok()).map(|b| i32::from_ne_bytes(b).saturating_neg())
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

fn failed(what: &str, error: io::Error) -> NetError {
    NetError::sys(format!("cannot {what}"), error)
}

fn senseless(what: &str) -> NetError {
    NetError::Protocol { what: what.to_owned(), detail: "a short error message".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_batch_is_a_train_of_messages_whose_last_change_is_acknowledged() {
        let keys: Vec<[u8; 4]> = (0..256_u32).map(u32::to_ne_bytes).collect();
        let mut batch = Batch::new();
        batch.flush(Family::Netdev, "sk_AM", "g0");
        batch.add(
            Family::Netdev,
            "sk_AM",
            "g0",
            keys.iter().map(|key| Element { key, data: Data::Value(&[0; 4]), timeout_ms: None }),
        );
        let lease = Element { key: &[10, 0, 0, 50], data: Data::Goto("vip0"), timeout_ms: Some(600) };
        batch.add(Family::Netdev, "sk_AM", "lease4", [lease]);
        let (bytes, last) = batch.finish();
        let train: Vec<_> = messages(&bytes).collect();
        let kinds: Vec<u16> = train.iter().map(|m| m.kind).collect();
        assert_eq!(kinds, [0x10, 0x0a0e, 0x0a0c, 0x0a0c, 0x11]);
        assert_eq!(last, 3);
        let whole: usize = train.iter().map(|m| m.body.len() + 16).sum();
        assert_eq!(whole, bytes.len());
        let elements = attributes(&train[2].body[4..]).find(|(kind, _)| *kind == 3).unwrap().1;
        assert_eq!(attributes(elements).count(), 256);
        // flags of the acknowledged message: request, create, acknowledge
        let at = bytes.len() - 20 - train[3].body.len() - 16;
        assert_eq!(bytes[at + 6..at + 8], (NLM_F_REQUEST | NLM_F_CREATE | NLM_F_ACK).to_ne_bytes());
    }

    #[test]
    fn many_elements_are_split_over_messages() {
        let keys: Vec<[u8; 4]> = (0..10_000_u32).map(u32::to_ne_bytes).collect();
        let mut batch = Batch::new();
        let elements = keys.iter().map(|key| Element { key, data: Data::None, timeout_ms: None });
        batch.add(Family::Netdev, "t", "s", elements);
        let (bytes, _) = batch.finish();
        let count: usize = messages(&bytes)
            .filter(|m| m.kind == SUBSYSTEM << 8 | NEW_SET_ELEMENT)
            .flat_map(|m| attributes(&m.body[4..]).filter(|(kind, _)| *kind == 3).map(|(_, v)| attributes(v).count()))
            .sum();
        assert_eq!(count, 10_000);
    }

    proptest! {
        #[test]
        fn garbage_is_cut_or_dropped(buffer in proptest::collection::vec(any::<u8>(), 0..300)) {
            for message in messages(&buffer) {
                let _ = (code(message.body), counter(message.body, "x"));
            }
            let _ = counter(&buffer, "x");
        }
    }
}
