//! How are raw Ethernet frames sent and received? One `AF_PACKET` socket on one interface.

use crate::error::NetError;
use crate::types::Mac;
use socket2::{Domain, Protocol, SockAddr, SockFilter, Socket, Type};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

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

    /// Opens the interface's hardware filter for frames to `mac`, as long as this socket lives.
    pub fn admit(&self, mac: Mac) -> Result<(), NetError> {
        let mut request = libc::packet_mreq {
            mr_ifindex: i32::try_from(self.index).unwrap_or(i32::MAX),
            mr_type: libc::PACKET_MR_UNICAST as u16,
            mr_alen: 6,
            mr_address: [0; 8],
        };
        for (to, from) in request.mr_address.iter_mut().zip(mac.0) {
            *to = from;
        }
        // SAFETY: the descriptor is open, and the kernel reads exactly the given length of the structure.
        let result = unsafe {
            libc::setsockopt(
                self.socket.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_ADD_MEMBERSHIP,
                std::ptr::from_ref(&request).cast(),
                size_of::<libc::packet_mreq>() as libc::socklen_t,
            )
        };
        if result == 0 { Ok(()) } else { Err(NetError::last(format!("cannot receive frames to {mac}"))) }
    }

    /// From now on only neighbour solicitations are received: other IPv6 traffic does not wake this process.
    pub fn only_neighbour_solicitations(&self) -> Result<(), NetError> {
        let load = |offset| SockFilter::new(0x30, 0, 0, offset);
        let unless = |value, skip| SockFilter::new(0x15, 0, skip, value);
        let give = |length| SockFilter::new(0x06, 0, 0, length);
        // Next header of IPv6 at 20 is ICMPv6, type at 54 is 135.
        let program = [load(20), unless(58, 3), load(54), unless(135, 1), give(0xffff), give(0)];
        self.socket.attach_filter(&program).map_err(|e| NetError::sys("cannot filter what a raw socket receives", e))
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
