//! How is an ICMP echo written, and is a packet its answer? Pure.

use std::net::IpAddr;

/// Random for a process, then the number of the probe: what an answer must bring back.
pub(crate) type Token = [u8; 12];

const ECHO_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const ECHO_V6: u8 = 128;
const REPLY_V6: u8 = 129;
const HEADER: usize = 8;

/// An echo request. The kernel computes the checksum of IPv6, and replaces the identifier on unprivileged sockets.
pub(crate) fn request(v6: bool, identifier: u16, sequence: u16, token: &Token) -> Vec<u8> {
    let mut packet = vec![if v6 { ECHO_V6 } else { ECHO_V4 }, 0, 0, 0];
    packet.extend_from_slice(&identifier.to_be_bytes());
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(token);
    if !v6 {
        let sum = checksum(&packet).to_be_bytes();
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// The token of an echo reply. `with_header`: the packet begins with its IPv4 header (raw sockets).
pub(crate) fn reply(v6: bool, with_header: bool, packet: &[u8]) -> Option<Token> {
    let packet = if with_header && !v6 {
        let length = usize::from(packet.first()? & 0x0f) * 4;
        packet.get(length..)?
    } else {
        packet
    };
    let wanted = if v6 { REPLY_V6 } else { REPLY_V4 };
    if *packet.first()? != wanted {
        return None;
    }
    packet.get(HEADER..HEADER + 12)?.try_into().ok()
}

fn checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 = bytes
        .chunks(2)
        .map(|pair| u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// IPv4 addresses inside IPv6 sockets are the same addresses.
pub(crate) fn plain(ip: IpAddr) -> IpAddr {
    ip.to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_answer_brings_the_token_back() {
        let token: Token = *b"abcdefgh\0\0\0\x07";
        let mut packet = request(false, 5, 6, &token);
        assert_eq!(checksum(&packet), 0, "with its checksum in place the sum is zero");
        assert_eq!(reply(false, false, &packet), None, "a request is no reply");
        packet[0] = REPLY_V4;
        assert_eq!(reply(false, false, &packet), Some(token));
        let mut raw = vec![0x46; 24];
        raw.extend_from_slice(&packet);
        assert_eq!(reply(false, true, &raw), Some(token));
        let mut packet = request(true, 5, 6, &token);
        packet[0] = REPLY_V6;
        assert_eq!(reply(true, true, &packet), Some(token));
        for cut in 0..packet.len() {
            assert_eq!(reply(true, false, &packet[..cut]), None);
        }
    }

    proptest! {
        #[test]
        fn garbage_is_no_answer(packet in prop::collection::vec(any::<u8>(), 0..80), v6: bool, raw: bool) {
            let _ = reply(v6, raw, &packet);
        }
    }
}
