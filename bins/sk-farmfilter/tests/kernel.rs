//! Does `who` compute what the kernel's rules compute?

#![allow(clippy::unwrap_used)] // a test may panic

mod switch;

use net::jhash::bucket;
use std::net::{Ipv4Addr, Ipv6Addr, UdpSocket};
use switch::{Switch, nft};

/// Packets with many addresses, ports and identifications: the kernel notes the bucket of each, we compute it again.
#[test]
fn the_hash_is_the_kernels() {
    let net = Switch::new();
    nft(
        &net,
        "a",
        "table inet t {
            set v4 { type ipv4_addr . inet_service . mark . mark; flags dynamic; size 65535; }
            set v6 { type ipv6_addr . inet_service . mark . mark; flags dynamic; size 65535; }
            chain in {
                type filter hook input priority 0; policy accept;
                ip daddr 127.0.0.1 udp dport 9 meta mark set jhash ip saddr mod 256 seed 0x5afe ct mark set jhash ip saddr . udp sport mod 256 seed 0x5afe add @v4 { ip saddr . udp sport . meta mark . ct mark }
                ip6 daddr ::1 udp dport 9 meta mark set jhash ip6 saddr mod 256 seed 0x5afe ct mark set jhash ip6 saddr . udp sport mod 256 seed 0x5afe add @v6 { ip6 saddr . udp sport . meta mark . ct mark }
            }
        }
",
    );
    for n in 2..34 {
        net.on("a", &format!("ip address add fd00:{n:x}::9/128 dev lo nodad"));
    }
    net.inside("a", || {
        for n in 1..800_u32 {
            let from = Ipv4Addr::from(0x7f00_0002 + n * 7919 % 0x00ff_0000);
            UdpSocket::bind((from, 0)).unwrap().send_to(b"x", "127.0.0.1:9").unwrap();
        }
        for n in 2..34_u16 {
            let from = Ipv6Addr::new(0xfd00, n, 0, 0, 0, 0, 0, 9);
            UdpSocket::bind((from, 0)).unwrap().send_to(b"x", "[::1]:9").unwrap();
        }
    })
    .join()
    .unwrap();
    for (set, least) in [("v4", 700), ("v6", 30)] {
        let text = net.on("a", &format!("nft -n list set inet t {set}"));
        let elements = text.split_once("elements = {").unwrap().1.split_once('}').unwrap().0;
        let mut seen = 0;
        for element in elements.split(',') {
            let parts: Vec<&str> = element.split_whitespace().filter(|w| *w != ".").collect();
            let [from, port, by_address, by_port] = parts.as_slice() else { panic!("{element}") };
            let mark = |text: &str| u32::from_str_radix(text.trim_start_matches("0x"), 16).unwrap();
            let mut key = match from.parse().unwrap() {
                std::net::IpAddr::V4(v4) => v4.octets().to_vec(),
                std::net::IpAddr::V6(v6) => v6.octets().to_vec(),
            };
            assert_eq!(bucket(&key, 0x5afe, 256), mark(by_address), "{element}");
            key.extend_from_slice(&port.parse::<u16>().unwrap().to_be_bytes());
            key.extend_from_slice(&[0, 0]);
            assert_eq!(bucket(&key, 0x5afe, 256), mark(by_port), "{element}");
            seen += 1;
        }
        assert!(seen >= least, "{set}: only {seen}");
    }
}
