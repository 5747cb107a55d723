//! One end of a conversation, with a limit to every wait.

use super::frame::{self, FrameError, HEAD_LIMIT, PAYLOAD_LIMIT};
use crate::channel::{Channel, ChannelError, Opener, Sealer};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// Longest wait for the other end to take what is sent.
const SEND: Duration = Duration::from_secs(15);

/// Why a conversation ended before its end.
#[derive(Debug, thiserror::Error)]
pub enum TalkError {
    #[error(transparent)]
    Channel(#[from] ChannelError),
    #[error(transparent)]
    Frame(#[from] FrameError),
    #[error("nothing was heard for {0:?}")]
    Silence(Duration),
    #[error("the other end closed the connection")]
    Closed,
    #[error("connection: {0}")]
    Io(io::Error),
}

/// A connection to somebody who has shown that he has a key.
pub struct Talk {
    stream: TcpStream,
    sealer: Sealer,
    opener: Opener,
    plain: Vec<u8>,
}

impl Talk {
    /// As the end that connected.
    pub fn connect(stream: TcpStream, psk: &[u8; 32], deadline: Instant) -> Result<Self, TalkError> {
        Self::new(Channel::connect(stream, Some(psk), deadline)?)
    }

    /// As the end that accepted; also the number of the key that fits.
    pub fn accept(stream: TcpStream, psks: &[[u8; 32]], deadline: Instant) -> Result<(Self, usize), TalkError> {
        if psks.is_empty() {
            // That would be a conversation in plain text.
            return Err(ChannelError::WrongKey.into());
        }
        let (channel, number) = Channel::accept(stream, psks, deadline)?;
        Ok((Self::new(channel)?, number))
    }

    fn new(channel: Channel) -> Result<Self, TalkError> {
        let (stream, sealer, opener) = channel.split();
        stream.set_write_timeout(Some(SEND)).map_err(TalkError::Io)?;
        Ok(Self { stream, sealer, opener, plain: Vec::new() })
    }

    pub fn send<T: Serialize>(&mut self, body: &T, payload: &[u8]) -> Result<(), TalkError> {
        let (mut plain, mut sealed) = (Vec::new(), Vec::new());
        frame::put(&mut plain, body, payload)?;
        self.sealer.seal_into(&plain, &mut sealed)?;
        self.stream.write_all(&sealed).map_err(classify)
    }

    /// The next message and its payload, waited for at most so long from one byte to the next.
    pub fn receive<T: DeserializeOwned>(&mut self, silence: Duration) -> Result<(T, Vec<u8>), TalkError> {
        let mut chunk = [0; 16 * 1024];
        loop {
            if let Some((body, payload, used)) = frame::take(&self.plain)? {
                let payload = payload.to_vec();
                self.plain.drain(..used);
                return Ok((body, payload));
            }
            if self.plain.len() > HEAD_LIMIT + PAYLOAD_LIMIT {
                return Err(FrameError::HeadTooLong.into());
            }
            self.stream.set_read_timeout(Some(silence)).map_err(TalkError::Io)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(TalkError::Closed),
                Ok(count) => self.opener.feed(chunk.get(..count).unwrap_or_default(), &mut self.plain)?,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(TalkError::Silence(silence));
                }
                Err(e) => return Err(classify(e)),
            }
        }
    }

    /// Whether the other end has gone, without waiting. What it sent is not lost.
    pub fn is_closed(&self) -> bool {
        let mut byte = [0];
        if self.stream.set_nonblocking(true).is_err() {
            return true;
        }
        let peeked = self.stream.peek(&mut byte);
        let restored = self.stream.set_nonblocking(false).is_ok();
        match peeked {
            Ok(count) => count == 0 || !restored,
            Err(e) => !matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) || !restored,
        }
    }
}

fn classify(error: io::Error) -> TalkError {
    match error.kind() {
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted => {
            TalkError::Closed
        }
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => TalkError::Silence(SEND),
        _ => TalkError::Io(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::{Answer, Ask};
    use std::net::TcpListener;
    use std::thread;

    fn sockets() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (near, listener.accept().unwrap().0)
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    #[test]
    fn the_key_that_fits_is_told_and_messages_pass_both_ways() {
        let (near, far) = sockets();
        let node = thread::spawn(move || {
            let (mut talk, number) = Talk::accept(far, &[[1; 32], [2; 32], [3; 32]], soon()).unwrap();
            let (ask, payload) = talk.receive::<Ask>(Duration::from_secs(30)).unwrap();
            assert_eq!((ask, payload.len()), (Ask::Part { last: true }, 300_000));
            assert!(!talk.is_closed());
            talk.send(&Answer::End { exit: 7 }, b"").unwrap();
            number
        });
        let mut talk = Talk::connect(near, &[2; 32], soon()).unwrap();
        talk.send(&Ask::Part { last: true }, &vec![9; 300_000]).unwrap();
        assert_eq!(talk.receive::<Answer>(Duration::from_secs(30)).unwrap().0, Answer::End { exit: 7 });
        assert!(matches!(talk.receive::<Answer>(Duration::from_secs(30)), Err(TalkError::Closed)));
        assert!(talk.is_closed());
        assert_eq!(node.join().unwrap(), 1);
    }

    #[test]
    fn without_a_key_nobody_is_let_in() {
        let (near, far) = sockets();
        assert!(matches!(Talk::accept(far, &[], soon()), Err(TalkError::Channel(ChannelError::WrongKey))));
        drop(near);
        let (near, far) = sockets();
        let node = thread::spawn(move || Talk::accept(far, &[[1; 32], [3; 32]], soon()).map(|_| ()));
        assert!(matches!(Talk::connect(near, &[2; 32], soon()), Err(TalkError::Channel(ChannelError::WrongKey))));
        assert!(matches!(node.join().unwrap(), Err(TalkError::Channel(ChannelError::WrongKey))));
    }

    #[test]
    fn a_silent_node_is_not_waited_for() {
        let (near, far) = sockets();
        let node = thread::spawn(move || Talk::accept(far, &[[1; 32]], soon()).unwrap());
        let mut talk = Talk::connect(near, &[1; 32], soon()).unwrap();
        let _silent = node.join().unwrap();
        assert!(matches!(talk.receive::<Answer>(Duration::from_millis(30)), Err(TalkError::Silence(_))));
    }
}
