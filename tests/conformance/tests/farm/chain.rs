//! A farm as a chain: the strongest node that is there has all clients, the others wait. With an IPv6 address beside the IPv4 one.

use super::{SCRIPTS, ask_at, scripted, started, vip};
use anyhow::{Result, ensure};
use conformance::{Cluster, SOON, Spec, wait};

const ADDRESS: &str = "fd5a:fe::80";

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_chain_farm_goes_down_and_up_its_chain_for_both_families() -> Result<()> {
    chain("fchain", "vmac_invisible")
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_directed_chain_farm_goes_down_and_up_its_chain_for_both_families() -> Result<()> {
    chain("fchaind", "vmac_directed")
}

fn chain(purpose: &str, mode: &str) -> Result<()> {
    Cluster::up(purpose, 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        for (number, host) in (1..).zip(nodes.iter().chain(&["client"])) {
            cluster.lab.sh(host, &format!("ip address add fd5a:fe::{number}/64 dev eth0 nodad"))?;
        }
        let xml = format!(
            r#"<!DOCTYPE safe>
<safe><service mode="farm" boot="off">
  <farm pulse="100ms" slost_count="10"><lan name="default"/></farm>
  <vip><interface_list><interface><virtual_interface type="{mode}">
    <virtual_addr addr="{}" where="alias"/><virtual_addr addr="{ADDRESS}" where="alias"/>
  </virtual_interface></interface></interface_list>
  <loadbalancing_list><group name="Chain">
    <cluster><host name="node1" power="1"/><host name="node2" power="64"/><host name="node3" power="4096"/></cluster>
    <rule port="80" proto="tcp" filter="on_addr"/>
  </group></loadbalancing_list></vip>
  <user/>
</service></safe>
"#,
            vip(cluster)
        );
        let module = cluster.configure(&scripted(Spec::whole("web", &nodes, &xml, &SCRIPTS)))?;
        started(&module, &nodes)?;
        let served_by = |node: &str| -> Result<()> {
            for address in [&*vip(cluster), ADDRESS] {
                wait::until(&format!("{node} answers at {address}"), SOON, || {
                    let seen = ask_at(cluster, "client", address, 80, 20, 3.0).map_err(|error| format!("{error:#}"))?;
                    if seen.len() == 1 && seen.contains_key(node) { Ok(()) } else { Err(format!("{seen:?}")) }
                })?;
            }
            Ok(())
        };
        // What every node knows of the others.
        let shares_are = |wanted: &[(&str, u64)]| {
            wait::until(&format!("shares {wanted:?} in the state of node1"), SOON, || {
                let document = module.document("node1").map_err(|error| format!("{error:#}"))?;
                let nodes = document["farm"]["groups"][0]["nodes"].as_array().cloned().unwrap_or_default();
                let shares: Vec<_> =
                    nodes.iter().filter_map(|n| Some((n["node"].as_str()?, n["owned"].as_u64()?))).collect();
                let rates = nodes.iter().all(|n| n["connections_s"].is_u64());
                if shares == wanted && rates { Ok(()) } else { Err(document["farm"].to_string()) }
            })
        };
        served_by("node3")?;
        shares_are(&[("node1", 0), ("node2", 0), ("node3", 256)])?;
        module.order("node3", &["stop", "--wait"])?;
        served_by("node2")?;
        cluster.lab.run(&["poweroff", "node2"])?;
        served_by("node1")?;
        // The strongest is back: all clients are its own again, and the one that served stays up.
        module.order("node3", &["start", "--wait"])?;
        served_by("node3")?;
        shares_are(&[("node1", 0), ("node3", 256)])?;
        module.reaches("node1", "UP Ready", SOON)?;
        ensure!(module.times("node1", "start_both")? == 1, "node1 was touched");
        Ok(())
    })
}
