//! Which interfaces carry? Pure: compares what the kernel lists with what was reported last.

use crate::types::{Link, Subnet};
use serde::Serialize;

/// `intf {"ident":"10.0.0.0","interface":"eth0","value":"up"}`
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Report {
    pub ident: String,
    pub interface: String,
    pub value: &'static str,
}

struct Watched {
    ident: String,
    interface: String,
    carrier: Option<bool>,
}

/// The interfaces watched, each once per network.
#[derive(Default)]
pub struct Interfaces(Vec<Watched>);

impl Interfaces {
    /// Watches an interface under the first address of a network; the same pair twice counts once.
    pub fn watch(&mut self, subnet: Subnet, interface: &str) {
        let ident = subnet.first.to_string();
        if !self.0.iter().any(|w| w.ident == ident && w.interface == interface) {
            self.0.push(Watched { ident, interface: interface.to_owned(), carrier: None });
        }
    }

    /// What changed since the last call; everything at the first. An interface that is gone is down.
    pub fn update(&mut self, links: &[Link]) -> Vec<Report> {
        let mut reports = Vec::new();
        for watched in &mut self.0 {
            let carrier = links.iter().any(|l| l.name == watched.interface && l.carrier);
            if watched.carrier.replace(carrier) != Some(carrier) {
                reports.push(Report {
                    ident: watched.ident.clone(),
                    interface: watched.interface.clone(),
                    value: if carrier { "up" } else { "down" },
                });
            }
        }
        reports
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(name: &str, carrier: bool) -> Link {
        Link { index: 2, name: name.into(), mac: None, up: true, carrier, loopback: false, arp: true }
    }

    #[test]
    fn only_changes_are_reported_and_a_lost_interface_is_down() {
        let mut interfaces = Interfaces::default();
        let subnet = Subnet::of("10.0.0.50".parse().unwrap(), 24);
        interfaces.watch(subnet, "eth0");
        interfaces.watch(subnet, "eth0");
        let values = |reports: Vec<Report>| reports.into_iter().map(|r| (r.ident, r.value)).collect::<Vec<_>>();
        let up = [link("eth0", true)];
        assert_eq!(values(interfaces.update(&up)), [("10.0.0.0".into(), "up")]);
        assert_eq!(values(interfaces.update(&up)), []);
        assert_eq!(values(interfaces.update(&[link("eth0", false)])), [("10.0.0.0".into(), "down")]);
        assert_eq!(values(interfaces.update(&[link("eth1", true)])), []);
        assert_eq!(values(interfaces.update(&up)), [("10.0.0.0".into(), "up")]);
    }
}
