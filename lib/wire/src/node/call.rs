//! How is a node asked something, from the first packet to the last answer?

use super::frame::PAYLOAD_LIMIT;
use super::{Answer, Ask, GREETING, SILENCE, Talk, TalkError};
use std::io;
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Instant;

/// A node that can be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Address or host name.
    pub host: String,
    pub port: u16,
}

/// Asks, with an archive or another payload when there is one, and gives every answer to `hear` but those that only say that the node
/// is at it. The last one is returned. `hear` ends the conversation by `false`.
pub fn call(
    peer: &Peer,
    psk: &[u8; 32],
    ask: &Ask,
    payload: &[u8],
    mut hear: impl FnMut(&Answer, &[u8]) -> bool,
) -> Result<Answer, TalkError> {
    let deadline = Instant::now() + GREETING;
    let stream = connect(peer, deadline)?;
    let mut talk = Talk::connect(stream, psk, deadline)?;
    if matches!(ask, Ask::Module { .. }) {
        talk.send(ask, &[])?;
        let mut parts = payload.chunks(PAYLOAD_LIMIT / 2).peekable();
        while let Some(part) = parts.next() {
            talk.send(&Ask::Part { last: parts.peek().is_none() }, part)?;
        }
    } else {
        talk.send(ask, payload)?;
    }
    loop {
        let (answer, bytes) = talk.receive::<Answer>(SILENCE)?;
        match answer {
            Answer::Alive => {
                if !hear(&answer, &[]) {
                    return Err(TalkError::Closed);
                }
            }
            Answer::Out | Answer::Err => {
                if !hear(&answer, &bytes) {
                    return Err(TalkError::Closed);
                }
            }
            last => return Ok(last),
        }
    }
}

fn connect(peer: &Peer, deadline: Instant) -> Result<TcpStream, TalkError> {
    let addresses: Vec<SocketAddr> =
        (peer.host.as_str(), peer.port).to_socket_addrs().map_err(TalkError::Io)?.collect();
    let mut failed = io::Error::new(io::ErrorKind::NotFound, format!("{} has no address", peer.host));
    for address in addresses {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(TalkError::Io(failed))
}
