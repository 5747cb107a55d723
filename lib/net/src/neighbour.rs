//! How are questions of neighbours ("who has this address?") understood and answered? Pure.
//!
//! For addresses that the kernel does not answer for, since they are not addresses of the interface asked.

use crate::frame::{
    ETHERTYPE_ARP, ETHERTYPE_IPV6, ICMPV6, NEIGHBOUR_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, arp, checksum, ethernet,
    mac_at, u16_at,
};
use crate::types::Mac;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

/// An ARP request or a neighbour solicitation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Question {
    /// The address asked for.
    pub target: IpAddr,
    /// Who asks; `None` when the asker has no address yet (a probe for duplicates).
    pub asker: Option<IpAddr>,
    pub asker_mac: Mac,
    /// Asked of one MAC only: the asker verifies what it knows.
    pub unicast: bool,
}

/// Reads a frame; `None`: it is something else, or malformed.
pub fn question(frame: &[u8]) -> Option<Question> {
    let unicast = frame.first()? & 1 == 0;
    match u16_at(frame, 12)? {
        ETHERTYPE_ARP => {
            if frame.get(14..22)? != [0, 1, 8, 0, 6, 4, 0, 1] {
                return None;
            }
            let asker = ipv4_at(frame, 28)?;
            Some(Question {
                target: IpAddr::V4(ipv4_at(frame, 38)?),
                asker: (!asker.is_unspecified()).then_some(IpAddr::V4(asker)),
                asker_mac: mac_at(frame, 22)?,
                unicast,
            })
        }
        ETHERTYPE_IPV6 => {
            // Version, no extension header, hop limit 255 (nobody outside the link can send that), type and code.
            let ours = frame.get(14)? >> 4 == 6
                && *frame.get(20)? == ICMPV6
                && *frame.get(21)? == 255
                && frame.get(54..56)? == [NEIGHBOUR_SOLICITATION, 0];
            if !ours {
                return None;
            }
            let length = usize::from(u16_at(frame, 18)?);
            let (from, to) = (ipv6_at(frame, 22)?, ipv6_at(frame, 38)?);
            if length < 24 || checksum(from, to, frame.get(54..54 + length)?) != 0 {
                return None;
            }
            let named = frame.get(78..80) == Some(&[1, 1]) && length >= 32;
            Some(Question {
                target: IpAddr::V6(ipv6_at(frame, 62)?),
                asker: (!from.is_unspecified()).then_some(IpAddr::V6(from)),
                asker_mac: if named { mac_at(frame, 80)? } else { mac_at(frame, 6)? },
                unicast,
            })
        }
        _ => None,
    }
}

/// The answer "it is at `mac`", sent from `source`.
pub fn answer(question: &Question, mac: Mac, source: Mac) -> Vec<u8> {
    match (question.target, question.asker) {
        (IpAddr::V4(target), asker) => {
            let asker = match asker {
                Some(IpAddr::V4(v4)) => v4,
                _ => Ipv4Addr::UNSPECIFIED,
            };
            crate::frame::sent_by(arp(2, question.asker_mac, mac, target, question.asker_mac, asker), source)
        }
        (IpAddr::V6(target), asker) => {
            let (to, to_mac, solicited) = match asker {
                Some(IpAddr::V6(v6)) => (v6, question.asker_mac, 0x40),
                _ => (ALL_NODES, Mac([0x33, 0x33, 0, 0, 0, 1]), 0),
            };
            // Solicited, and override: what the asker knew may be the MAC of a node that is gone.
            let mut body = vec![NEIGHBOUR_ADVERTISEMENT, 0, 0, 0, 0x20 | solicited, 0, 0, 0];
            body.extend_from_slice(&target.octets());
            body.extend_from_slice(&[2, 1]);
            body.extend_from_slice(&mac.0);
            let sum = checksum(target, to, &body);
            if let Some(field) = body.get_mut(2..4) {
                field.copy_from_slice(&sum.to_be_bytes());
            }
            let mut frame = ethernet(to_mac, source, ETHERTYPE_IPV6);
            frame.extend_from_slice(&[0x60, 0, 0, 0]);
            frame.extend_from_slice(&(body.len() as u16).to_be_bytes());
            frame.extend_from_slice(&[ICMPV6, 255]);
            frame.extend_from_slice(&target.octets());
            frame.extend_from_slice(&to.octets());
            frame.extend_from_slice(&body);
            frame
        }
    }
}

/// The multicast group in which questions for an IPv6 address are asked.
pub fn solicited_node_group(ip: Ipv6Addr) -> Ipv6Addr {
    let [.., a, b, c] = ip.octets();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | u16::from(a), u16::from_be_bytes([b, c]))
}

fn ipv4_at(frame: &[u8], at: usize) -> Option<Ipv4Addr> {
    frame.get(at..at + 4)?.try_into().ok().map(|b: [u8; 4]| Ipv4Addr::from(b))
}

fn ipv6_at(frame: &[u8], at: usize) -> Option<Ipv6Addr> {
    frame.get(at..at + 16)?.try_into().ok().map(|b: [u8; 16]| Ipv6Addr::from(b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{claimant, probe, source};
    use proptest::prelude::*;

    const ASKER: Mac = Mac([2, 0, 0, 0, 0, 9]);
    const VIRTUAL: Mac = Mac([0x5a, 0xfe, 10, 0, 0, 50]);
    const REAL: Mac = Mac([2, 0, 0, 0, 0, 1]);

    fn ask(ip: &str, from: &str) -> Vec<u8> {
        match (ip.parse().unwrap(), from.parse().unwrap()) {
            (IpAddr::V4(ip), IpAddr::V4(from)) => arp(1, Mac::BROADCAST, ASKER, from, Mac::ZERO, ip),
            (IpAddr::V6(ip), IpAddr::V6(from)) => {
                // A duplicate probe made into a question: sender, option, checksum.
                let mut frame = probe(IpAddr::V6(ip), ASKER);
                frame[22..38].copy_from_slice(&from.octets());
                frame[18..20].copy_from_slice(&32_u16.to_be_bytes());
                frame.extend_from_slice(&[1, 1]);
                frame.extend_from_slice(&ASKER.0);
                frame[56..58].fill(0);
                let to: [u8; 16] = frame[38..54].try_into().unwrap();
                let sum = checksum(from, to.into(), &frame[54..]);
                frame[56..58].copy_from_slice(&sum.to_be_bytes());
                frame
            }
            _ => panic!("one family"),
        }
    }

    #[test]
    fn a_question_is_answered_with_the_virtual_address_from_the_real_one() {
        for (ip, from) in [("10.0.0.50", "10.0.0.9"), ("fd00::50", "fe80::9")] {
            let asked = question(&ask(ip, from)).unwrap();
            let expected =
                Question { target: ip.parse().unwrap(), asker: from.parse().ok(), asker_mac: ASKER, unicast: false };
            assert_eq!(asked, expected);
            let reply = answer(&asked, VIRTUAL, REAL);
            assert_eq!(claimant(&reply, asked.target), Some(VIRTUAL));
            assert_eq!(source(&reply), Some(REAL));
            assert_eq!(reply[..6], ASKER.0);
            if asked.target.is_ipv6() {
                let to: [u8; 16] = reply[38..54].try_into().unwrap();
                assert_eq!(checksum(ip.parse().unwrap(), to.into(), &reply[54..]), 0);
                assert_eq!(reply[58], 0x60, "solicited and override");
            }
        }
    }

    #[test]
    fn a_probe_has_no_asker() {
        for ip in ["10.0.0.50", "fd00::50"] {
            let ip: IpAddr = ip.parse().unwrap();
            let asked = question(&probe(ip, ASKER)).unwrap();
            assert_eq!((asked.target, asked.asker, asked.asker_mac), (ip, None, ASKER));
            assert_eq!(claimant(&answer(&asked, VIRTUAL, REAL), ip), Some(VIRTUAL));
        }
    }

    #[test]
    fn answers_and_damaged_questions_are_no_questions() {
        for (ip, from) in [("10.0.0.50", "10.0.0.9"), ("fd00::50", "fe80::9")] {
            let mut frame = ask(ip, from);
            let asked = question(&frame).unwrap();
            assert_eq!(question(&answer(&asked, VIRTUAL, REAL)), None);
            frame[21] ^= 1;
            assert_eq!(question(&frame), None);
        }
    }

    proptest! {
        #[test]
        fn garbage_never_panics(mut frame in proptest::collection::vec(any::<u8>(), 0..120), v6: bool) {
            if let Some(kind) = frame.get_mut(12..14) {
                kind.copy_from_slice(&(if v6 { ETHERTYPE_IPV6 } else { ETHERTYPE_ARP }).to_be_bytes());
            }
            let _ = question(&frame);
        }
    }
}
