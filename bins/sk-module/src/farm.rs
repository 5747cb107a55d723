//! What must `sk-farmfilter` be told of a farm module?

use crate::instance::{Instance, Network};
use config::VirtualMac;
use serde_json::{Value, json};
use sys::node::numeric;

impl Instance {
    /// The specification of the member; `None` when the module shares no traffic (no farm, or a farm behind a balancer).
    pub fn farm_spec(&self) -> Option<Value> {
        let (Network::Farm(links), Some(farm), Some(vip)) = (&self.network, self.config.farm(), &self.config.vip)
        else {
            return None;
        };
        let lans: Vec<Value> = links
            .lans
            .iter()
            .map(|lan| {
                let nodes: Vec<Value> =
                    lan.nodes.iter().map(|(node, addr)| json!({"node": node, "addr": numeric(addr)})).collect();
                json!({"ident": lan.ident, "nodes": nodes})
            })
            .collect();
        Some(json!({
            "module": self.module, "node": self.node, "key_file": self.roots.cluster_key(), "port": farm.port(self.id),
            "pulse_ms": farm.pulse.as_millis() as u64, "mlost_count": farm.leader_missed, "slost_count": farm.follower_missed,
            "lease_ms": null, "lans": lans, "script_control": vip.script_control, "tcp_reset": vip.tcp_reset,
            "early_drop": vip.early_drop,
            "addresses": farm_addresses(vip), "groups": groups(vip),
        }))
    }

    /// How long a node of the farm is silent before it counts as absent.
    pub fn farm_absence_ms(&self) -> u64 {
        self.config.farm().map_or(0, |f| (f.pulse.as_millis() as u64).saturating_mul(u64::from(f.follower_missed)))
    }

    /// Whether traffic is opened and closed by scripts.
    pub fn is_script_controlled(&self) -> bool {
        self.config.vip.as_ref().is_some_and(|v| v.script_control)
    }
}

fn farm_addresses(vip: &config::Vip) -> Vec<Value> {
    let all = vip.interfaces.iter().flat_map(|i| i.addresses.iter().map(move |a| (i, a)));
    all.map(|(i, a)| {
        let mac = match a.mac {
            Some(VirtualMac::Invisible(mac)) => Some(mac.map(|byte| format!("{byte:02x}")).join(":")),
            Some(VirtualMac::Directed) | None => None,
        };
        json!({
            "address": numeric(&a.addr), "prefix": a.prefix, "interface": i.name,
            "mode": a.mac.map_or("vmac_directed", VirtualMac::as_str), "mac": mac, "check": a.check,
            // The watch does this all the time; the member would say it a second time.
            "interface_check": false,
            "arp_reroute": i.arp_reroute, "arp_interval_ms": i.arp_interval.as_millis() as u64,
            "arp_elapse_ms": i.arp_elapse.as_millis() as u64,
        })
    })
    .collect()
}

fn groups(vip: &config::Vip) -> Vec<Value> {
    let numbered = vip.groups.iter().enumerate();
    numbered
        .map(|(number, group)| {
            let hosts = group.hosts.iter().flatten();
            let hosts: Vec<Value> = hosts.map(|h| json!({"node": h.name, "power": h.power})).collect();
            let rules = group.rules.iter().map(|r| {
                json!({
                    "address": r.addr.as_deref().map_or_else(|| "*".to_owned(), numeric),
                    "port": r.port.map_or_else(|| json!("*"), |p| json!(p)),
                    "proto": r.proto, "filter": r.filter,
                })
            });
            json!({"name": format!("{}_{number}", group.name), "hosts": hosts, "rules": rules.collect::<Vec<_>>()})
        })
        .collect()
}
