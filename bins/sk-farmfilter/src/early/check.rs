//! Does a program say what the rules say? Tried on packets before any real one comes.

use crate::mark::bucket_of;
use crate::spec::{Any, Group, Proto, rules_of};
use net::NetError;
use net::frame::{ETHERTYPE_IPV4, ETHERTYPE_IPV6};
use net::tcx::{DROP, Program};
use std::net::IpAddr;

/// Clients for each rule and address.
const CLIENTS: u32 = 4;

/// What of a packet decides where it belongs.
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub source: IpAddr,
    pub destination: IpAddr,
    pub proto: Proto,
    pub source_port: u16,
    pub port: u16,
    pub identification: u16,
}

impl Packet {
    /// Which bucket of which group, by the first rule that names the packet. `None`: no rule does.
    pub fn place(&self, groups: &[Group]) -> Option<(usize, u8)> {
        let (number, rule) = rules_of(groups, self.destination)
            .find(|(_, rule)| rule.proto == self.proto && rule.port.covers(&self.port))?;
        Some((number, bucket_of(rule.filter, self.source, Some(self.source_port), Some(self.identification))?))
    }

    /// As it comes over an Ethernet, with `payload` after the ports.
    pub fn frame(&self, payload: &[u8]) -> Vec<u8> {
        let protocol = if self.proto == Proto::Tcp { 6 } else { 17 };
        let ports = [self.source_port.to_be_bytes(), self.port.to_be_bytes()].concat();
        let length = (ports.len() + payload.len()).min(1400) as u16;
        let (kind, header) = match (self.source, self.destination) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let mut header = vec![0x45, 0];
                header.extend((20 + length).to_be_bytes());
                header.extend(self.identification.to_be_bytes());
                header.extend([0x40, 0, 64, protocol, 0, 0]);
                header.extend([from.octets(), to.octets()].concat());
                (ETHERTYPE_IPV4, header)
            }
            (from, to) => {
                let octets = |ip: IpAddr| match ip {
                    IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                    IpAddr::V6(v6) => v6.octets(),
                };
                let mut header = vec![0x60, 0, 0, 0];
                header.extend(length.to_be_bytes());
                header.extend([protocol, 64]);
                header.extend([octets(from), octets(to)].concat());
                (ETHERTYPE_IPV6, header)
            }
        };
        [&[2; 12][..], &kind.to_be_bytes(), &header, &ports, payload].concat()
    }
}

/// Every rule and address with some clients. `foreign` is what the program's table holds.
///
/// # Errors
/// The program says something else than the rules would, or cannot be tried.
pub fn check(judge: &Program, addresses: &[IpAddr], groups: &[Group], foreign: &[u8]) -> Result<(), NetError> {
    for (address, (turn, (_, rule))) in
        addresses.iter().flat_map(|a| (0..).zip(rules_of(groups, *a)).map(move |rule| (*a, rule)))
    {
        for client in 0..CLIENTS {
            let random = net::jhash::jhash(&client.to_be_bytes(), turn);
            let [low, high] = [random as u16, (random >> 16) as u16];
            let packet = Packet {
                source: match address {
                    IpAddr::V4(_) => IpAddr::from(random.to_be_bytes()),
                    IpAddr::V6(_) => IpAddr::from([0xfd00, low, 0, 0, high, low, 0, 1]),
                },
                destination: address,
                proto: rule.proto,
                source_port: low,
                port: match rule.port {
                    Any::One(port) => port,
                    Any::All => high.max(1),
                },
                identification: high,
            };
            agrees(judge, &packet, groups, foreign)?;
        }
    }
    Ok(())
}

/// One packet.
fn agrees(judge: &Program, packet: &Packet, groups: &[Group], foreign: &[u8]) -> Result<(), NetError> {
    let place = packet.place(groups);
    let is_foreign = place.is_some_and(|(group, bucket)| {
        foreign.get(group * share::BUCKETS + usize::from(bucket)).is_some_and(|b| *b != 0)
    });
    if (judge.judge(&packet.frame(&[0; 32]))? == DROP) == is_foreign {
        return Ok(());
    }
    Err(NetError::Protocol {
        what: "try a packet program".to_owned(),
        detail: format!("{packet:?} is in {place:?}, but the program says otherwise"),
    })
}
