//! What are links, addresses and subnets?

use serde::{Deserialize, Serialize};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// An Ethernet address.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    pub const BROADCAST: Self = Self([0xff; 6]);
    pub const ZERO: Self = Self([0; 6]);
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, byte) in self.0.iter().enumerate() {
            write!(f, "{}{byte:02x}", if position == 0 { "" } else { ":" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Mac {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

/// A network interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Link {
    pub index: u32,
    pub name: String,
    /// Absent when the interface has no Ethernet address (tunnels).
    pub mac: Option<Mac>,
    /// Set up by the administrator.
    pub up: bool,
    /// Set up and the cable carries.
    pub carrier: bool,
    pub loopback: bool,
    /// ARP and neighbour discovery are spoken on it.
    pub arp: bool,
}

/// An address of this host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Address {
    /// Interface index.
    pub index: u32,
    pub ip: IpAddr,
    pub prefix: u8,
    /// Seconds until the kernel removes it; `None`: never.
    pub valid_s: Option<u32>,
    /// Marked as a virtual address of this product (kernels before 5.18 do not keep the mark).
    pub marked: bool,
    /// Has an owner mark of somebody else.
    pub marked_by_other: bool,
    /// IPv6 duplicate detection goes on, or failed.
    pub tentative: bool,
}

impl Address {
    /// Whether a former life of ours may have left it: it dies by itself and nobody else marked it.
    pub fn is_orphan_of_ours(&self) -> bool {
        self.valid_s.is_some() && !self.marked_by_other
    }

    pub fn subnet(&self) -> Subnet {
        Subnet::of(self.ip, self.prefix)
    }
}

/// A network: first address and prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Subnet {
    pub first: IpAddr,
    pub prefix: u8,
}

impl Subnet {
    /// The network of `prefix` bits around `ip`. Prefixes longer than the address count as full length.
    pub fn of(ip: IpAddr, prefix: u8) -> Self {
        match ip {
            IpAddr::V4(v4) => {
                let prefix = prefix.min(32);
                let mask = u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0);
                Self { first: IpAddr::V4(Ipv4Addr::from(u32::from(v4) & mask)), prefix }
            }
            IpAddr::V6(v6) => {
                let prefix = prefix.min(128);
                let mask = u128::MAX.checked_shl(128 - u32::from(prefix)).unwrap_or(0);
                Self { first: IpAddr::V6(Ipv6Addr::from(u128::from(v6) & mask)), prefix }
            }
        }
    }

    pub fn contains(&self, ip: IpAddr) -> bool {
        self.first.is_ipv4() == ip.is_ipv4() && Self::of(ip, self.prefix) == *self
    }

    /// The lower and upper half; `None` for a single address.
    pub fn halves(&self) -> Option<[Self; 2]> {
        let prefix = self.prefix.checked_add(1)?;
        let upper = match self.first {
            IpAddr::V4(v4) if prefix <= 32 => IpAddr::V4(Ipv4Addr::from(u32::from(v4) | 1 << (32 - u32::from(prefix)))),
            IpAddr::V6(v6) if prefix <= 128 => {
                IpAddr::V6(Ipv6Addr::from(u128::from(v6) | 1 << (128 - u32::from(prefix))))
            }
            _ => return None,
        };
        Some([Self { first: self.first, prefix }, Self { first: upper, prefix }])
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn subnet(text: &str) -> Subnet {
        let (ip, prefix) = text.split_once('/').unwrap();
        Subnet::of(ip.parse().unwrap(), prefix.parse().unwrap())
    }

    #[test]
    fn a_subnet_is_its_first_address_and_prefix() {
        assert_eq!(subnet("10.0.0.50/24").to_string(), "10.0.0.0/24");
        assert_eq!(subnet("10.0.0.50/0").to_string(), "0.0.0.0/0");
        assert_eq!(subnet("fd00::1:2/64").to_string(), "fd00::/64");
        assert!(subnet("10.0.0.0/24").contains("10.0.0.255".parse().unwrap()));
        assert!(!subnet("10.0.0.0/24").contains("10.0.1.0".parse().unwrap()));
        assert!(!subnet("0.0.0.0/0").contains("::1".parse().unwrap()));
    }

    #[test]
    fn halves_cover_exactly_the_subnet() {
        let [low, high] = subnet("0.0.0.0/0").halves().unwrap();
        assert_eq!((low.to_string(), high.to_string()), ("0.0.0.0/1".into(), "128.0.0.0/1".into()));
        let [low, high] = subnet("10.0.0.0/24").halves().unwrap();
        assert_eq!((low.to_string(), high.to_string()), ("10.0.0.0/25".into(), "10.0.0.128/25".into()));
        assert_eq!(subnet("10.0.0.1/32").halves(), None);
    }

    proptest! {
        #[test]
        fn every_address_of_a_subnet_lies_in_exactly_one_half(ip: u32, prefix in 0_u8..32) {
            let ip = IpAddr::V4(Ipv4Addr::from(ip));
            let [low, high] = Subnet::of(ip, prefix).halves().unwrap();
            prop_assert!(low.contains(ip) ^ high.contains(ip));
        }
    }
}
