//! How are the TCP connections of an address counted, and reset? Through the socket diagnosis netlink (`SOCK_DESTROY`).
//!
//! Messages are built by hand: no crate of the netlink family has the destroy request.

use crate::error::NetError;
use netlink_sys::constants::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};
use std::net::{IpAddr, Ipv6Addr};
use std::os::fd::AsFd;
use std::time::Duration;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_DUMP: u16 = 0x300;
const HEADER: usize = 16;
/// `inet_diag_sockid`: ports, addresses, interface, cookie.
const SOCKET_ID: usize = 48;
const FAMILIES: [u8; 2] = [libc::AF_INET as u8, libc::AF_INET6 as u8];
/// ESTABLISHED to CLOSING without TIME_WAIT (6), CLOSE (7) and LISTEN (10): connections only.
const STATES: u32 = 0xfff & !(1 << 6 | 1 << 7 | 1 << 10);

/// What became of the connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// This many were reset.
    Done(usize),
    /// The kernel was built without `INET_DIAG_DESTROY`: peers notice by their own timeouts.
    Unsupported,
}

/// Resets every TCP connection whose local address is `address`, also those of IPv6 sockets that carry IPv4.
pub fn reset_connections(address: IpAddr) -> Result<Reset, NetError> {
    let socket = open()?;
    let mut count = 0;
    for family in FAMILIES {
        let mut found = Vec::new();
        list(&socket, family, |id| found.extend((local(&id, family) == Some(address)).then_some(id)))?;
        for id in found {
            match destroy(&socket, family, &id) {
                Ok(()) => count += 1,
                Err(e) => match e.errno() {
                    Some(libc::EOPNOTSUPP) => return Ok(Reset::Unsupported),
                    // Closed meanwhile.
                    Some(libc::ENOENT) => {}
                    _ => return Err(e),
                },
            }
        }
    }
    Ok(Reset::Done(count))
}

/// How many TCP connections each of these local addresses has at present, also those of IPv6 sockets that carry IPv4.
pub fn count_connections(addresses: &[IpAddr]) -> Result<Vec<usize>, NetError> {
    let socket = open()?;
    let mut counts = vec![0; addresses.len()];
    for family in FAMILIES {
        list(&socket, family, |id| {
            let local = local(&id, family);
            for (_, count) in addresses.iter().zip(&mut counts).filter(|(address, _)| local == Some(**address)) {
                *count += 1;
            }
        })?;
    }
    Ok(counts)
}

fn open() -> Result<Socket, NetError> {
    let mut socket = Socket::new(NETLINK_SOCK_DIAG).map_err(|e| NetError::sys("cannot open a diagnosis socket", e))?;
    socket.bind_auto().map_err(|e| NetError::sys("cannot bind a diagnosis socket", e))?;
    socket2::SockRef::from(&socket.as_fd())
        .set_read_timeout(Some(Duration::from_secs(5)))
        .map_err(|e| NetError::sys("cannot limit waiting on a diagnosis socket", e))?;
    Ok(socket)
}

/// All connections of a family, one after the other.
fn list(socket: &Socket, family: u8, mut take: impl FnMut([u8; SOCKET_ID])) -> Result<(), NetError> {
    let what = "list TCP connections";
    send(socket, &request(SOCK_DIAG_BY_FAMILY, NLM_F_REQUEST | NLM_F_DUMP, family, STATES, &[0; SOCKET_ID]), what)?;
    loop {
        let buffer = receive(socket, what)?;
        for message in messages(&buffer) {
            match message.kind {
                NLMSG_DONE => return Ok(()),
                NLMSG_ERROR => {
                    let error = error(message.body, what);
                    // Without IPv6 in the kernel there is nothing to list.
                    let none = family == libc::AF_INET6 as u8 && error.errno() == Some(libc::ENOENT);
                    return if none { Ok(()) } else { Err(error) };
                }
                SOCK_DIAG_BY_FAMILY => socket_id(message.body).into_iter().for_each(&mut take),
                _ => {}
            }
        }
    }
}

fn destroy(socket: &Socket, family: u8, id: &[u8; SOCKET_ID]) -> Result<(), NetError> {
    let what = "reset a TCP connection";
    send(socket, &request(SOCK_DESTROY, NLM_F_REQUEST | NLM_F_ACK, family, STATES, id), what)?;
    loop {
        let buffer = receive(socket, what)?;
        if let Some(message) = messages(&buffer).find(|m| m.kind == NLMSG_ERROR) {
            return if message.body.get(..4) == Some(&[0; 4]) { Ok(()) } else { Err(error(message.body, what)) };
        }
    }
}

/// `nlmsghdr` and `inet_diag_req_v2`.
fn request(kind: u16, flags: u16, family: u8, states: u32, id: &[u8; SOCKET_ID]) -> Vec<u8> {
    let length = HEADER + 8 + SOCKET_ID;
    let mut bytes = Vec::with_capacity(length);
    bytes.extend_from_slice(&(length as u32).to_ne_bytes());
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[family, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend_from_slice(&states.to_ne_bytes());
    bytes.extend_from_slice(id);
    bytes
}

/// The identity in an `inet_diag_msg`.
fn socket_id(body: &[u8]) -> Option<[u8; SOCKET_ID]> {
    body.get(4..4 + SOCKET_ID)?.try_into().ok()
}

/// The local address in an identity.
fn local(id: &[u8; SOCKET_ID], family: u8) -> Option<IpAddr> {
    let local: [u8; 16] = id.get(4..20)?.try_into().ok()?;
    Some(if family == libc::AF_INET as u8 {
        let [a, b, c, d, ..] = local;
        IpAddr::from([a, b, c, d])
    } else {
        let v6 = Ipv6Addr::from(local);
        v6.to_ipv4_mapped().map_or(IpAddr::V6(v6), IpAddr::V4)
    })
}

struct Message<'a> {
    kind: u16,
    body: &'a [u8],
}

/// Cuts a datagram into netlink messages; stops at the first that makes no sense.
fn messages(mut buffer: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = u32::from_ne_bytes(buffer.get(..4)?.try_into().ok()?) as usize;
        let kind = u16::from_ne_bytes(buffer.get(4..6)?.try_into().ok()?);
        let body = buffer.get(HEADER..length)?;
        buffer = buffer.get(length.next_multiple_of(4)..).unwrap_or_default();
        Some(Message { kind, body })
    })
}

fn error(body: &[u8], what: &str) -> NetError {
    match body.get(..4).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes) {
        Some(code) => {
            NetError::sys(format!("cannot {what}"), std::io::Error::from_raw_os_error(code.checked_neg().unwrap_or(0)))
        }
        None => NetError::Protocol { what: what.to_owned(), detail: "a short error message".to_owned() },
    }
}

fn send(socket: &Socket, bytes: &[u8], what: &str) -> Result<(), NetError> {
    socket.send_to(bytes, &SocketAddr::new(0, 0), 0).map(|_| ()).map_err(|e| NetError::sys(format!("cannot {what}"), e))
}

fn receive(socket: &Socket, what: &str) -> Result<Vec<u8>, NetError> {
    let mut buffer = Vec::with_capacity(128 * 1024);
    loop {
        match socket.recv(&mut buffer, 0) {
            Ok(_) => return Ok(buffer),
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(NetError::sys(format!("cannot {what}"), e)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mapped_address_is_an_ipv4_address() {
        let mut body = vec![0; 72];
        body[8..24].copy_from_slice(&"::ffff:10.0.0.50".parse::<Ipv6Addr>().unwrap().octets());
        let id = socket_id(&body).unwrap();
        assert_eq!(local(&id, libc::AF_INET6 as u8), Some("10.0.0.50".parse().unwrap()));
        assert_eq!(local(&id, libc::AF_INET as u8), Some("0.0.0.0".parse().unwrap()));
    }

    /// An address of its own, so that nothing else on this host is counted.
    #[test]
    fn the_connections_of_an_address_are_counted() {
        let address: IpAddr = "127.83.75.1".parse().unwrap();
        let other: IpAddr = "127.83.75.2".parse().unwrap();
        let listener = std::net::TcpListener::bind((address, 0)).unwrap();
        assert_eq!(count_connections(&[address, other]).unwrap(), [0, 0], "who listens has no connection");
        // Clients come from 127.0.0.1.
        let clients: Vec<_> =
            (0..3).map(|_| std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap()).collect();
        assert_eq!(count_connections(&[other, address]).unwrap(), [0, 3]);
        drop(clients);
    }

    proptest! {
        #[test]
        fn garbage_is_cut_or_dropped(buffer in proptest::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = messages(&buffer).map(|m| m.body.len() + HEADER).sum();
            prop_assert!(total <= buffer.len());
            for message in messages(&buffer) {
                let _ = socket_id(message.body).map(|id| local(&id, 2));
                let _ = error(message.body, "x");
            }
        }
    }
}
