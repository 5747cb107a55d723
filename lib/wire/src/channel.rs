//! How do two nodes stream bytes to each other so that nobody else can read, change or inject any?
//!
//! Noise `NNpsk0_25519_AESGCM_BLAKE2s` over TCP with a pre-shared key per module. Both ends first exchange a greeting
//! (magic, version, encrypted or not) that the handshake authenticates. Then records follow in each direction: length u16
//! big endian, then at most 65535 bytes. Without a key the same greeting and framing carry plain bytes.
//!
//! The only user of `snow`.

use snow::{Builder, HandshakeState, StatelessTransportState};
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOISE: &str = "Noise_NNpsk0_25519_AESGCM_BLAKE2s";
const MAGIC: [u8; 4] = *b"skst";
const VERSION: u8 = 1;
const GREETING: usize = 6;
const TAG: usize = 16;
/// Most plain bytes in one record.
pub const RECORD_LIMIT: usize = 65535 - TAG;
const HANDSHAKE_LIMIT: usize = 1024;
const ACCEPTED: u8 = 0;
const REFUSED: u8 = 1;

/// Why there is no channel, or no longer one.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    #[error(
        "the other end has another cluster key or module; copy the cluster key from one node to all others and restart"
    )]
    WrongKey,
    #[error("the other end speaks version {0} of the stream; this node speaks version {VERSION}")]
    Version(u8),
    #[error("the other end does not speak sk's encrypted stream")]
    NotOurs,
    #[error("one end wants encryption and the other does not; configure both nodes alike")]
    EncryptionMismatch,
    #[error("the other end did not answer in time")]
    Deadline,
    #[error("the other end closed the connection")]
    Closed,
    #[error("the received stream was changed on its way or is out of step")]
    Corrupt,
    #[error("the record counter of the stream is exhausted")]
    Exhausted,
    #[error("cryptography failed: {0}")]
    Crypto(String),
    #[error("connection: {0}")]
    Io(io::Error),
}

/// A connection whose other end has shown that it knows the key.
pub struct Channel {
    stream: TcpStream,
    transport: Option<Arc<StatelessTransportState>>,
}

/// Makes records of outgoing bytes.
pub struct Sealer {
    transport: Option<Arc<StatelessTransportState>>,
    counter: u64,
}

/// Takes records of incoming bytes apart.
pub struct Opener {
    transport: Option<Arc<StatelessTransportState>>,
    counter: u64,
    /// Received and not yet opened: less than one record between calls.
    pending: Vec<u8>,
}

impl Channel {
    /// Shakes hands as the end that connected. `psk` from `ClusterKey::stream_psk`; `None` is plain text.
    pub fn connect(stream: TcpStream, psk: Option<&[u8; 32]>, deadline: Instant) -> Result<Self, ChannelError> {
        let mut shaking = Shaking { stream, deadline };
        shaking.write(&greeting(psk))?;
        check_greeting(shaking.read()?, psk)?;
        let transport = match psk {
            None => None,
            Some(psk) => {
                let mut noise = builder(psk)?.build_initiator().map_err(crypto)?;
                shaking.write_noise(&mut noise)?;
                if shaking.read::<1>()? != [ACCEPTED] {
                    return Err(ChannelError::WrongKey);
                }
                shaking.read_noise(&mut noise)?;
                Some(Arc::new(noise.into_stateless_transport_mode().map_err(crypto)?))
            }
        };
        shaking.finish(transport)
    }

    /// Shakes hands as the end that accepted, with the first of several keys that fits; no key at all is plain text. Also tells which one.
    pub fn accept(stream: TcpStream, psks: &[[u8; 32]], deadline: Instant) -> Result<(Self, usize), ChannelError> {
        let mut shaking = Shaking { stream, deadline };
        let theirs = shaking.read::<GREETING>()?;
        shaking.write(&greeting(psks.first()))?;
        check_greeting(theirs, psks.first())?;
        if psks.is_empty() {
            return Ok((shaking.finish(None)?, 0));
        }
        let message = shaking.read_message()?;
        let Some((mut noise, number)) = answering(psks, &message)? else {
            // So that both ends can say why. Not authenticated; worth no more than an error message.
            let _ = shaking.write(&[REFUSED]);
            return Err(ChannelError::WrongKey);
        };
        shaking.write(&[ACCEPTED])?;
        shaking.write_noise(&mut noise)?;
        let transport = noise.into_stateless_transport_mode().map_err(crypto)?;
        Ok((shaking.finish(Some(Arc::new(transport)))?, number))
    }

    /// The halves, for different threads. The stream is in blocking mode without timeouts, with `TCP_NODELAY`.
    pub fn split(self) -> (TcpStream, Sealer, Opener) {
        let Self { stream, transport } = self;
        let sealer = Sealer { transport: transport.clone(), counter: 0 };
        (stream, sealer, Opener { transport, counter: 0, pending: Vec::new() })
    }

    pub fn is_encrypted(&self) -> bool {
        self.transport.is_some()
    }
}

fn greeting(psk: Option<&[u8; 32]>) -> [u8; GREETING] {
    let [a, b, c, d] = MAGIC;
    [a, b, c, d, VERSION, u8::from(psk.is_some())]
}

fn check_greeting(theirs: [u8; GREETING], psk: Option<&[u8; 32]>) -> Result<(), ChannelError> {
    let [magic @ .., version, mode] = theirs;
    if magic != MAGIC {
        return Err(ChannelError::NotOurs);
    }
    if version != VERSION {
        return Err(ChannelError::Version(version));
    }
    if mode != u8::from(psk.is_some()) {
        return Err(ChannelError::EncryptionMismatch);
    }
    Ok(())
}

fn builder(psk: &[u8; 32]) -> Result<Builder<'_>, ChannelError> {
    let params = NOISE.parse().map_err(crypto)?;
    // The version is in the prologue: an attacker who changes the greeting makes the handshake fail.
    const PROLOGUE: &[u8] = b"sk replication stream 1";
    Builder::new(params).prologue(PROLOGUE).and_then(|b| b.psk(0, psk)).map_err(crypto)
}

/// The answering end for the first key that opens `message`, and its number.
fn answering(psks: &[[u8; 32]], message: &[u8]) -> Result<Option<(HandshakeState, usize)>, ChannelError> {
    let mut payload = [0; HANDSHAKE_LIMIT];
    for (number, psk) in psks.iter().enumerate() {
        let mut noise = builder(psk)?.build_responder().map_err(crypto)?;
        if noise.read_message(message, &mut payload).is_ok() {
            return Ok(Some((noise, number)));
        }
    }
    Ok(None)
}

fn crypto(error: snow::Error) -> ChannelError {
    ChannelError::Crypto(error.to_string())
}

/// A connection during its handshake: every read and write ends at the deadline.
struct Shaking {
    stream: TcpStream,
    deadline: Instant,
}

impl Shaking {
    fn left(&self) -> Result<Duration, ChannelError> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(ChannelError::Deadline) } else { Ok(left) }
    }

    fn read<const N: usize>(&mut self) -> Result<[u8; N], ChannelError> {
        let mut bytes = [0; N];
        self.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read_exact(&mut self, mut bytes: &mut [u8]) -> Result<(), ChannelError> {
        while !bytes.is_empty() {
            self.stream.set_read_timeout(Some(self.left()?)).map_err(ChannelError::Io)?;
            match self.stream.read(bytes) {
                Ok(0) => return Err(ChannelError::Closed),
                Ok(count) => bytes = bytes.get_mut(count..).unwrap_or_default(),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(classify(e)),
            }
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), ChannelError> {
        // A handshake fits any socket buffer, so one timeout for the whole write is enough.
        self.stream.set_write_timeout(Some(self.left()?)).map_err(ChannelError::Io)?;
        self.stream.write_all(bytes).map_err(classify)
    }

    fn write_noise(&mut self, noise: &mut HandshakeState) -> Result<(), ChannelError> {
        let mut message = [0; HANDSHAKE_LIMIT];
        let length = noise.write_message(&[], &mut message).map_err(crypto)?;
        let mut framed = (length as u16).to_be_bytes().to_vec();
        framed.extend_from_slice(message.get(..length).unwrap_or_default());
        self.write(&framed)
    }

    fn read_message(&mut self) -> Result<Vec<u8>, ChannelError> {
        let length = usize::from(u16::from_be_bytes(self.read()?));
        if length > HANDSHAKE_LIMIT {
            return Err(ChannelError::NotOurs);
        }
        let mut message = vec![0; length];
        self.read_exact(&mut message)?;
        Ok(message)
    }

    fn read_noise(&mut self, noise: &mut HandshakeState) -> Result<(), ChannelError> {
        let message = self.read_message()?;
        let mut payload = [0; HANDSHAKE_LIMIT];
        // With the key mixed in first, every message that fails here was made with another key, or by nobody of ours.
        noise.read_message(&message, &mut payload).map(|_| ()).map_err(|_| ChannelError::WrongKey)
    }

    fn finish(self, transport: Option<Arc<StatelessTransportState>>) -> Result<Channel, ChannelError> {
        let set = |s: &TcpStream| -> io::Result<()> {
            s.set_read_timeout(None)?;
            s.set_write_timeout(None)?;
            s.set_nodelay(true)
        };
        set(&self.stream).map_err(ChannelError::Io)?;
        Ok(Channel { stream: self.stream, transport })
    }
}

fn classify(error: io::Error) -> ChannelError {
    match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ChannelError::Deadline,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            ChannelError::Closed
        }
        _ => ChannelError::Io(error),
    }
}

impl Sealer {
    /// Without key and counterpart's proof: the framing alone, for tests and tools.
    pub fn plain() -> Self {
        Self { transport: None, counter: 0 }
    }

    /// Appends the records that carry `plain` to `out`. The records must be sent in the order they were made.
    pub fn seal_into(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError> {
        self.seal_at(out.len(), plain, out).map(drop)
    }

    /// The same, from the beginning of `out`, over what was there. Returns where the records end; what follows means nothing.
    pub fn seal_over(&mut self, plain: &[u8], out: &mut Vec<u8>) -> Result<usize, ChannelError> {
        self.seal_at(0, plain, out)
    }

    fn seal_at(&mut self, mut at: usize, plain: &[u8], out: &mut Vec<u8>) -> Result<usize, ChannelError> {
        let tag = if self.transport.is_some() { TAG } else { 0 };
        let needed = at + plain.len() + plain.len().div_ceil(RECORD_LIMIT) * (2 + tag);
        if out.len() < needed {
            out.resize(needed, 0);
        }
        for part in plain.chunks(RECORD_LIMIT) {
            let length = part.len() + tag;
            let Some((head, body)) = out.get_mut(at..at + 2 + length).and_then(|r| r.split_first_chunk_mut()) else {
                return Err(ChannelError::Corrupt);
            };
            *head = (length as u16).to_be_bytes();
            if let Some(transport) = &self.transport {
                let nonce = self.counter;
                self.counter = nonce.checked_add(1).ok_or(ChannelError::Exhausted)?;
                transport.write_message(nonce, part, body).map_err(crypto)?;
            } else {
                body.copy_from_slice(part);
            }
            at += 2 + length;
        }
        Ok(at)
    }
}

impl Opener {
    /// The counterpart of `Sealer::plain`.
    pub fn plain() -> Self {
        Self { transport: None, counter: 0, pending: Vec::new() }
    }

    /// Consumes received bytes, cut anywhere, and appends the plain bytes of all complete records to `out`.
    /// `out` grows by at most the length of `bytes` plus one record. After an error the stream is lost.
    pub fn feed(&mut self, mut bytes: &[u8], out: &mut Vec<u8>) -> Result<(), ChannelError> {
        // Finish the record that began in an earlier call, then open the others where they lie.
        while !self.pending.is_empty() && !bytes.is_empty() {
            let wanted = match self.pending.as_slice() {
                [high, low, ..] => 2 + usize::from(u16::from_be_bytes([*high, *low])),
                _ => 2,
            };
            let (now, later) = bytes.split_at(wanted.saturating_sub(self.pending.len()).min(bytes.len()));
            self.pending.extend_from_slice(now);
            bytes = later;
            let mut pending = std::mem::take(&mut self.pending);
            let used = self.open_records(&pending, out)?;
            pending.drain(..used);
            self.pending = pending;
        }
        if self.pending.is_empty() {
            let used = self.open_records(bytes, out)?;
            self.pending.extend_from_slice(bytes.get(used..).unwrap_or_default());
        }
        Ok(())
    }

    /// Opens complete records at the front of `bytes` and tells how many bytes they took.
    fn open_records(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<usize, ChannelError> {
        let mut used = 0;
        while let Some([high, low, rest @ ..]) = bytes.get(used..) {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let Some(record) = rest.get(..length) else { break };
            match &self.transport {
                None => out.extend_from_slice(record),
                Some(transport) => {
                    let size = length.checked_sub(TAG).ok_or(ChannelError::Corrupt)?;
                    let at = out.len();
                    out.resize(at + size, 0);
                    let nonce = self.counter;
                    self.counter = nonce.checked_add(1).ok_or(ChannelError::Exhausted)?;
                    transport
                        .read_message(nonce, record, out.get_mut(at..).unwrap_or_default())
                        .map_err(|_| ChannelError::Corrupt)?;
                }
            }
            used += 2 + length;
        }
        Ok(used)
    }
}

#[cfg(test)]
mod tests;
