//! How are raw Ethernet frames sent and received? One `AF_PACKET` socket on one interface.

use crate::error::NetError;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};

/// A raw socket of one interface.
pub struct PacketSocket {
    socket: Socket,
    index: u32,
}

impl PacketSocket {
    /// Opens a socket that sends only. Asking for a protocol here would cost about 10 ms in the kernel.
    pub fn open(index: u32) -> Result<Self, NetError> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))
            .map_err(|e| NetError::sys("cannot open a raw socket (is CAP_NET_RAW there?)", e))?;
        socket.set_nonblocking(true).map_err(|e| NetError::sys("cannot make a raw socket non-blocking", e))?;
        Ok(Self { socket, index })
    }

    /// Starts to receive frames of one EtherType.
    pub fn listen(&self, ethertype: u16) -> Result<(), NetError> {
        self.socket
            .bind(&link_address(self.index, ethertype)?)
            .map_err(|e| NetError::sys(format!("cannot listen on interface number {}", self.index), e))
    }

    pub fn send(&self, frame: &[u8], ethertype: u16) -> Result<(), NetError> {
        self.socket
            .send_to(frame, &link_address(self.index, ethertype)?)
            .map(|_| ())
            .map_err(|e| NetError::sys(format!("cannot send a frame on interface number {}", self.index), e))
    }

    /// The next received frame; `None` when there is none now.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> Result<Option<&'a [u8]>, NetError> {
        match (&self.socket).read(buffer) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(e) if matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => Ok(None),
            // The interface went down: nothing more will come until it is up again.
            Err(e) if e.raw_os_error() == Some(libc::ENETDOWN) => Ok(None),
            Err(e) => Err(NetError::sys("cannot receive from a raw socket", e)),
        }
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn link_address(index: u32, ethertype: u16) -> Result<SockAddr, NetError> {
    // SAFETY: the storage is large and aligned enough for every socket address, `sockaddr_ll` is plain data, and the
    // length reported is the length written.
    let made = unsafe {
        SockAddr::try_init(|storage, length| {
            let address = storage.cast::<libc::sockaddr_ll>();
            (*address).sll_family = libc::AF_PACKET as u16;
            (*address).sll_protocol = ethertype.to_be();
            (*address).sll_ifindex = i32::try_from(index).unwrap_or(i32::MAX);
            (*address).sll_halen = 6;
            *length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
            Ok(())
        })
    };
    made.map(|((), address)| address).map_err(|e| NetError::sys("cannot build a link address", e))
}
