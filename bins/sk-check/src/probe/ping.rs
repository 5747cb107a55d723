//! How do echoes leave this host, and how do answers come in? One socket a family, for all probes.

use super::icmp;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

/// ICMP_FILTER of a raw socket: a mask of types that are not wanted. Level SOL_RAW.
const SOL_RAW: libc::c_int = 255;
const ICMP_FILTER: libc::c_int = 1;
const ONLY_ECHO_REPLY: u32 = !1;

pub(crate) struct Echoes {
    v4: Option<Line>,
    v6: Option<Line>,
    /// Random: answers to other processes are not taken for ours.
    secret: [u8; 8],
    sequence: u16,
}

struct Line {
    socket: Socket,
    /// Packets begin with the IP header.
    raw: bool,
}

impl Echoes {
    pub fn new() -> io::Result<Self> {
        let mut secret = [0; 8];
        getrandom::fill(&mut secret).map_err(io::Error::other)?;
        Ok(Self { v4: None, v6: None, secret, sequence: 0 })
    }

    /// Opens the socket of a family on its first use.
    pub fn open(&mut self, registry: &Registry, v6: bool, token_v4: Token, token_v6: Token) -> io::Result<()> {
        let (line, token) = if v6 { (&mut self.v6, token_v6) } else { (&mut self.v4, token_v4) };
        if line.is_none() {
            let opened = Line::open(v6)?;
            registry.register(&mut SourceFd(&opened.socket.as_raw_fd()), token, Interest::READABLE)?;
            *line = Some(opened);
        }
        Ok(())
    }

    pub fn send(&mut self, to: SocketAddr, probe: usize) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let identifier = u16::from_be_bytes([self.secret[0], self.secret[1]]);
        let packet = icmp::request(to.is_ipv6(), identifier, self.sequence, &self.token(probe));
        let line = if to.is_ipv6() { &self.v6 } else { &self.v4 };
        let line = line.as_ref().ok_or_else(|| io::Error::other("no socket"))?;
        line.socket.send_to(&packet, &SockAddr::from(to)).map(|_| ())
    }

    fn token(&self, probe: usize) -> icmp::Token {
        let mut token = [0; 12];
        token[..8].copy_from_slice(&self.secret);
        token[8..].copy_from_slice(&(probe as u32).to_be_bytes());
        token
    }

    /// Who answered, and to which probe.
    pub fn read(&mut self, v6: bool) -> Vec<(IpAddr, usize)> {
        let mut found = Vec::new();
        let Some(line) = (if v6 { &self.v6 } else { &self.v4 }) else { return found };
        let mut buffer = [MaybeUninit::uninit(); 2048];
        // Bounded: a flood of answers must not keep everything else waiting; what is left comes with the next event.
        for _ in 0..1024 {
            let Ok((length, from)) = line.socket.recv_from(&mut buffer) else { return found };
            let packet: Vec<u8> = buffer
                .iter()
                .take(length)
                .map(|byte| {
                    // SAFETY: the kernel has written the first `length` bytes.
                    unsafe { byte.assume_init() }
                })
                .collect();
            let Some(token) = icmp::reply(v6, line.raw, &packet) else { continue };
            let (secret, number) = token.split_at(8);
            let number = number.try_into().map(u32::from_be_bytes).unwrap_or_default();
            if let (true, Some(from)) = (secret == self.secret, from.as_socket()) {
                found.push((from.ip(), number as usize));
            }
        }
        found
    }
}

impl Line {
    fn open(v6: bool) -> io::Result<Self> {
        let (domain, protocol) = if v6 { (Domain::IPV6, Protocol::ICMPV6) } else { (Domain::IPV4, Protocol::ICMPV4) };
        let (socket, raw) = match Socket::new(domain, Type::RAW.nonblocking(), Some(protocol)) {
            Ok(socket) => (socket, true),
            // Unprivileged echoes, where the system permits them (net.ipv4.ping_group_range).
            Err(refused) => match Socket::new(domain, Type::DGRAM.nonblocking(), Some(protocol)) {
                Ok(socket) => (socket, false),
                Err(_) => return Err(refused),
            },
        };
        if raw && !v6 {
            only_replies(&socket)?;
        }
        Ok(Self { socket, raw })
    }
}

/// The kernel hands a raw socket every ICMP packet of the host; only answers are wanted.
fn only_replies(socket: &Socket) -> io::Result<()> {
    let mask = ONLY_ECHO_REPLY;
    // SAFETY: the pointer and the length describe `mask`, which lives through the call.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            SOL_RAW,
            ICMP_FILTER,
            std::ptr::from_ref(&mask).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
