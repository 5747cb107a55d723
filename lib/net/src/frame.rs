//! What are the bytes of ARP and neighbour discovery frames? Pure.

use crate::types::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub const ETHERTYPE_IPV4: u16 = 0x0800;
pub const ETHERTYPE_ARP: u16 = 0x0806;
pub const ETHERTYPE_IPV6: u16 = 0x86dd;

pub(crate) const ICMPV6: u8 = 58;
pub(crate) const NEIGHBOUR_SOLICITATION: u8 = 135;
pub(crate) const NEIGHBOUR_ADVERTISEMENT: u8 = 136;
const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// The EtherType that belongs to an address family.
pub fn ethertype(ip: IpAddr) -> u16 {
    if ip.is_ipv4() { ETHERTYPE_ARP } else { ETHERTYPE_IPV6 }
}

/// Frames that tell everybody that `ip` is at `mac`: gratuitous ARP as request and as reply (old equipment listens to
/// one or the other), or one unsolicited neighbour advertisement with the override flag.
pub fn announcements(ip: IpAddr, mac: Mac) -> Vec<Vec<u8>> {
    match ip {
        IpAddr::V4(v4) => {
            vec![arp(1, Mac::BROADCAST, mac, v4, Mac::ZERO, v4), arp(2, Mac::BROADCAST, mac, v4, Mac::BROADCAST, v4)]
        }
        IpAddr::V6(v6) => vec![neighbour_advertisement(v6, mac)],
    }
}

/// The question "who has `ip`?" asked without claiming any address: ARP probe (RFC 5227) or duplicate address
/// detection (RFC 4862).
pub fn probe(ip: IpAddr, mac: Mac) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => arp(1, Mac::BROADCAST, mac, Ipv4Addr::UNSPECIFIED, Mac::ZERO, v4),
        IpAddr::V6(v6) => neighbour_solicitation(v6, mac),
    }
}

/// Who claims `ip` in this frame, if anybody does. Questions (a probe of another host) are no claims.
pub fn claimant(frame: &[u8], ip: IpAddr) -> Option<Mac> {
    match (ip, u16_at(frame, 12)?) {
        (IpAddr::V4(v4), ETHERTYPE_ARP) => {
            let ethernet_ipv4 = frame.get(14..20)? == [0, 1, 8, 0, 6, 4];
            (ethernet_ipv4 && frame.get(28..32)? == v4.octets()).then(|| mac_at(frame, 22))?
        }
        (IpAddr::V6(v6), ETHERTYPE_IPV6) => {
            let ours = frame.get(14)? >> 4 == 6
                && *frame.get(20)? == ICMPV6
                && *frame.get(21)? == 255
                && *frame.get(54)? == NEIGHBOUR_ADVERTISEMENT
                && frame.get(62..78)? == v6.octets();
            if !ours {
                return None;
            }
            // Target link-layer address option; without it the Ethernet source tells.
            let named = frame.get(78..80) == Some(&[2, 1]);
            if named { mac_at(frame, 80) } else { mac_at(frame, 6) }
        }
        _ => None,
    }
}

/// The same frame from another Ethernet source than the address it tells about: the source is what switches learn.
pub fn sent_by(mut frame: Vec<u8>, source: Mac) -> Vec<u8> {
    if let Some(field) = frame.get_mut(6..12) {
        field.copy_from_slice(&source.0);
    }
    frame
}

/// Ethernet source of a frame.
pub fn source(frame: &[u8]) -> Option<Mac> {
    mac_at(frame, 6)
}

pub(crate) fn arp(
    operation: u16,
    to: Mac,
    sender: Mac,
    sender_ip: Ipv4Addr,
    target: Mac,
    target_ip: Ipv4Addr,
) -> Vec<u8> {
    let mut frame = ethernet(to, sender, ETHERTYPE_ARP);
    frame.extend_from_slice(&[0, 1, 8, 0, 6, 4]);
    frame.extend_from_slice(&operation.to_be_bytes());
    frame.extend_from_slice(&sender.0);
    frame.extend_from_slice(&sender_ip.octets());
    frame.extend_from_slice(&target.0);
    frame.extend_from_slice(&target_ip.octets());
    frame
}

fn neighbour_advertisement(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let mut body = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0x20, 0, 0, 0];
    body.extend_from_slice(&ip.octets());
    body.extend_from_slice(&[2, 1]);
    body.extend_from_slice(&mac.0);
    icmpv6(mac, ip, ALL_NODES, body)
}

fn neighbour_solicitation(ip: Ipv6Addr, mac: Mac) -> Vec<u8> {
    let [.., a, b, c] = ip.octets();
    let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]));
    let mut body = vec![NEIGHBOUR_SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    body.extend_from_slice(&ip.octets());
    icmpv6(mac, Ipv6Addr::UNSPECIFIED, group, body)
}

/// An ICMPv6 message to a multicast group, checksum filled in.
fn icmpv6(mac: Mac, from: Ipv6Addr, group: Ipv6Addr, mut body: Vec<u8>) -> Vec<u8> {
    let [.., a, b, c, d] = group.octets();
    let mut frame = ethernet(Mac([0x33, 0x33, a, b, c, d]), mac, ETHERTYPE_IPV6);
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let sum = checksum(from, group, &body);
    if let Some(field) = body.get_mut(2..4) {
        field.copy_from_slice(&sum.to_be_bytes());
    }
    frame.extend_from_slice(&[0x60, 0, 0, 0]);
    frame.extend_from_slice(&length.to_be_bytes());
    frame.extend_from_slice(&[ICMPV6, 255]);
    frame.extend_from_slice(&from.octets());
    frame.extend_from_slice(&group.octets());
    frame.extend_from_slice(&body);
    frame
}

/// Internet checksum over the IPv6 pseudo header and an ICMPv6 message; 0 when a correct checksum is included.
pub(crate) fn checksum(from: Ipv6Addr, to: Ipv6Addr, body: &[u8]) -> u16 {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes();
    let bytes = from
        .octets()
        .into_iter()
        .chain(to.octets())
        .chain(length)
        .chain([0, 0, 0, ICMPV6])
        .chain(body.iter().copied())
        .collect::<Vec<u8>>();
    let mut sum: u32 = 0;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair.first().copied().unwrap_or(0)) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

pub(crate) fn ethernet(to: Mac, from: Mac, ethertype: u16) -> Vec<u8> {
    let mut frame = Vec::with_capacity(96);
    frame.extend_from_slice(&to.0);
    frame.extend_from_slice(&from.0);
    frame.extend_from_slice(&ethertype.to_be_bytes());
    frame
}

pub(crate) fn u16_at(frame: &[u8], at: usize) -> Option<u16> {
    frame.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

pub(crate) fn mac_at(frame: &[u8], at: usize) -> Option<Mac> {
    frame.get(at..at + 6)?.try_into().ok().map(Mac)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const MAC: Mac = Mac([2, 0x11, 0x22, 0x33, 0x44, 0x55]);

    fn hex(frame: &[u8]) -> String {
        use std::fmt::Write;
        frame.iter().fold(String::new(), |mut text, b| {
            write!(text, "{b:02x}").unwrap();
            text
        })
    }

    #[test]
    fn gratuitous_arp_is_sent_as_request_and_as_reply() {
        let frames = announcements("10.0.0.50".parse().unwrap(), MAC);
        let expected = [
            concat!(
                "ffffffffffff021122334455",
                "0806",
                "0001080006040001",
                "0211223344550a000032",
                "0000000000000a000032"
            ),
            concat!(
                "ffffffffffff021122334455",
                "0806",
                "0001080006040002",
                "0211223344550a000032",
                "ffffffffffff0a000032"
            ),
        ];
        assert_eq!(frames.iter().map(|f| hex(f)).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_arp_probe_claims_nothing() {
        let ip = "10.0.0.50".parse().unwrap();
        let frame = probe(ip, MAC);
        assert_eq!(
            hex(&frame),
            concat!(
                "ffffffffffff021122334455",
                "0806",
                "0001080006040001",
                "02112233445500000000",
                "0000000000000a000032"
            )
        );
        assert_eq!(claimant(&frame, ip), None);
    }

    #[test]
    fn an_unsolicited_advertisement_has_exact_bytes_and_a_true_checksum() {
        let frames = announcements("fd00::50".parse().unwrap(), MAC);
        // The checksum was computed by an independent program.
        assert_eq!(
            frames.iter().map(|f| hex(f)).collect::<Vec<_>>(),
            [concat!(
                "333300000001021122334455",
                "86dd",
                "6000000000203aff",
                "fd000000000000000000000000000050",
                "ff020000000000000000000000000001",
                "8800",
                "CSUM",
                "20000000",
                "fd000000000000000000000000000050",
                "0201021122334455"
            )
            .replace("CSUM", "f364")]
        );
    }

    #[test]
    fn duplicate_detection_asks_the_solicited_node_group() {
        let frame = probe("fd00::12:3456".parse().unwrap(), MAC);
        let text = hex(&frame);
        assert!(text.starts_with("3333ff12345602112233445586dd6000000000183aff"), "{text}");
        assert!(text.contains("00000000000000000000000000000000ff0200000000000000000001ff1234568700"), "{text}");
        assert_eq!(frame.len(), 14 + 40 + 24);
        assert_eq!(claimant(&frame, "fd00::12:3456".parse().unwrap()), None);
    }

    proptest! {
        #[test]
        fn a_checksum_included_makes_the_sum_zero(ip: u128, mac: [u8; 6]) {
            let ip = Ipv6Addr::from(ip);
            let frame = neighbour_advertisement(ip, Mac(mac));
            prop_assert_eq!(checksum(ip, ALL_NODES, &frame[54..]), 0);
            let frame = neighbour_solicitation(ip, Mac(mac));
            let group: [u8; 16] = frame[38..54].try_into().unwrap();
            prop_assert_eq!(checksum(Ipv6Addr::UNSPECIFIED, group.into(), &frame[54..]), 0);
        }

        #[test]
        fn a_claim_is_recognised(v4: u32, v6: u128, mac: [u8; 6]) {
            for ip in [IpAddr::V4(v4.into()), IpAddr::V6(v6.into())] {
                for frame in announcements(ip, Mac(mac)) {
                    prop_assert_eq!(claimant(&frame, ip), Some(Mac(mac)));
                }
            }
        }

        #[test]
        fn garbage_never_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..100), v6: bool) {
            if let Some(kind) = frame.get_mut(12..14) {
                kind.copy_from_slice(&(if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_ARP }).to_be_bytes());
            }
            let _ = claimant(&frame, "10.0.0.50".parse().unwrap());
            let _ = claimant(&frame, "fd00::50".parse().unwrap());
            let _ = source(&frame);
        }
    }
}
