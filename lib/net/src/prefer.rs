//! How does a virtual address become the source address of outgoing connections (`one_side`)? Pure.
//!
//! The kernel prefers the first address of a network, and the order cannot be changed without taking addresses away. Each
//! IPv4 route of the interface therefore gets two more specific halves that name the virtual address as source. The
//! kernel drops such routes together with the address, so nothing is left behind when the owner dies.

use crate::types::Subnet;
use std::net::IpAddr;

/// A unicast route of the main table with a single next hop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub to: Subnet,
    pub gateway: Option<IpAddr>,
    /// Interface index.
    pub index: u32,
    pub source: Option<IpAddr>,
    pub metric: Option<u32>,
}

/// The routes to add so that `address` becomes the source of everything leaving through interface `index`. Empty for IPv6,
/// where the kernel's own rules (RFC 6724) and preferred lifetimes choose.
pub fn routes(address: IpAddr, index: u32, present: &[Route]) -> Vec<Route> {
    let mut wanted: Vec<Route> = Vec::new();
    if address.is_ipv6() {
        return wanted;
    }
    let of_others = present.iter().filter(|r| r.index == index && r.source != Some(address) && r.to.first.is_ipv4());
    for route in of_others {
        for to in route.to.halves().into_iter().flatten() {
            let half = Route { to, source: Some(address), metric: None, ..route.clone() };
            let known = present.iter().any(|r| r.to == to && r.index == index) || wanted.iter().any(|r| r.to == to);
            if !known {
                wanted.push(half);
            }
        }
    }
    // Direct networks first: a gateway must be reachable when its route is added.
    wanted.sort_by_key(|r| r.gateway.is_some());
    wanted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn route(to: &str, gateway: Option<&str>, index: u32, source: Option<&str>) -> Route {
        let (first, prefix) = to.split_once('/').unwrap();
        Route {
            to: Subnet::of(first.parse().unwrap(), prefix.parse().unwrap()),
            gateway: gateway.map(|g| g.parse().unwrap()),
            index,
            source: source.map(|s| s.parse().unwrap()),
            metric: None,
        }
    }

    #[test]
    fn every_route_of_the_interface_gets_two_halves_once() {
        let vip: IpAddr = "10.0.0.50".parse().unwrap();
        let mut present = vec![
            route("0.0.0.0/0", Some("10.0.0.254"), 2, None),
            route("10.0.0.0/24", None, 2, Some("10.0.0.1")),
            route("192.168.0.0/24", None, 3, None),
        ];
        let added = routes(vip, 2, &present);
        let text: Vec<String> = added.iter().map(|r| r.to.to_string()).collect();
        assert_eq!(text, ["10.0.0.0/25", "10.0.0.128/25", "0.0.0.0/1", "128.0.0.0/1"]);
        assert!(added.iter().all(|r| r.source == Some(vip) && r.index == 2));
        present.extend(added);
        assert_eq!(routes(vip, 2, &present), [], "adding again changes nothing");
    }

    #[test]
    fn host_routes_and_ipv6_are_left_alone() {
        let present = [route("10.0.0.9/32", None, 2, None)];
        assert_eq!(routes("10.0.0.50".parse().unwrap(), 2, &present), []);
        assert_eq!(routes("fd00::1".parse().unwrap(), 2, &present), []);
    }
}
