//! Does a host answer to ping?

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

const ECHO_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const REPLY_V6: u8 = 129;
const HEADER: usize = 8;
const TOKEN: usize = 16;

/// Sends up to `attempts` echo requests, spread over `timeout`, and waits for an answer to any of them. `token`: random bytes that only the asked
/// host can send back. Err: nothing could be sent, e.g. there is no route.
pub fn echo(to: IpAddr, attempts: u32, timeout: Duration, token: [u8; TOKEN]) -> io::Result<bool> {
    let (socket, raw) = open(to)?;
    socket.connect(&SockAddr::from(SocketAddr::new(to, 0)))?;
    let attempts = attempts.max(1);
    let deadline = Instant::now() + timeout;
    let mut failure = None;
    for number in 0..attempts {
        let left = deadline.saturating_duration_since(Instant::now());
        let until = Instant::now() + left / (attempts - number);
        match socket.send(&request(to, number as u16, &token)) {
            Ok(_) => failure = None,
            // No route now: there may be one in a moment.
            Err(e) => failure = Some(e),
        }
        loop {
            let wait = until.saturating_duration_since(Instant::now());
            if wait.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(wait))?;
            let mut buffer = [MaybeUninit::uninit(); 512];
            match socket.recv(&mut buffer) {
                Ok(length) => {
                    let bytes: Vec<u8> = buffer
                        .iter()
                        .take(length)
                        // SAFETY: the kernel filled the first `length` bytes.
                        .map(|b| unsafe { b.assume_init() })
                        .collect();
                    if is_reply(to, raw, &bytes, &token) {
                        return Ok(true);
                    }
                }
                Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                // An ICMP error on its way back (unreachable): the next attempt may do better.
                Err(_) => std::thread::sleep(wait.min(Duration::from_millis(20))),
            }
        }
    }
    failure.map_or(Ok(false), Err)
}

/// A raw socket where that is allowed, else one of the kernel's own for ping.
fn open(to: IpAddr) -> io::Result<(Socket, bool)> {
    let (domain, protocol) =
        if to.is_ipv4() { (Domain::IPV4, Protocol::ICMPV4) } else { (Domain::IPV6, Protocol::ICMPV6) };
    match Socket::new(domain, Type::RAW, Some(protocol)) {
        Ok(socket) => Ok((socket, true)),
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
            Socket::new(domain, Type::DGRAM, Some(protocol)).map(|s| (s, false))
        }
        Err(e) => Err(e),
    }
}

fn request(to: IpAddr, number: u16, token: &[u8; TOKEN]) -> Vec<u8> {
    let kind = if to.is_ipv4() { ECHO_V4 } else { ECHO_V6 };
    let mut packet = vec![kind, 0, 0, 0, token[0], token[1]];
    packet.extend(number.to_be_bytes());
    packet.extend(token);
    if to.is_ipv4() {
        // The kernel computes it for IPv6 itself.
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// RFC 1071, over an even number of bytes.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes.chunks(2).map(|c| c.iter().fold(0, |word, b| word << 8 | u32::from(*b))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// The identifier is not compared: the kernel's own ping sockets choose it. The token is.
fn is_reply(to: IpAddr, raw: bool, bytes: &[u8], token: &[u8; TOKEN]) -> bool {
    let (kind, skip) = match to {
        IpAddr::V4(_) if raw => (REPLY_V4, bytes.first().map_or(0, |b| usize::from(b & 15) * 4)),
        IpAddr::V4(_) => (REPLY_V4, 0),
        IpAddr::V6(_) => (REPLY_V6, 0),
    };
    let Some(message) = bytes.get(skip..) else { return false };
    message.first() == Some(&kind) && message.get(HEADER..HEADER + TOKEN) == Some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_from_other_packets() {
        let to: IpAddr = "10.0.0.1".parse().unwrap();
        let token = [7; TOKEN];
        let asked = request(to, 3, &token);
        assert_eq!(checksum(&asked), 0, "a packet with its checksum sums up to nothing");
        assert!(!is_reply(to, false, &asked, &token), "our own request is no answer");
        let mut answer = asked;
        answer[0] = REPLY_V4;
        assert!(is_reply(to, false, &answer, &token));
        assert!(!is_reply(to, false, &answer, &[8; TOKEN]));
        let mut with_header = vec![0x45; 20];
        with_header.extend(&answer);
        assert!(is_reply(to, true, &with_header, &token));
        for length in 0..with_header.len() {
            assert!(!is_reply(to, true, &with_header[..length], &token));
        }
        assert!(!is_reply("fd00::1".parse().unwrap(), true, &answer, &token));
    }

    #[test]
    fn this_host_answers_and_nobody_else_here() {
        let ask = |text: &str| echo(text.parse().unwrap(), 2, Duration::from_millis(300), [9; TOKEN]);
        match ask("127.0.0.1") {
            Ok(answered) => assert!(answered),
            Err(e) => assert_eq!(e.kind(), io::ErrorKind::PermissionDenied),
        }
        // Reserved: no packet leaves for it.
        assert!(!ask("240.0.0.1").unwrap_or(false));
    }
}
