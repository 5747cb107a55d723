//! What fails in a farm beside whole nodes: processes of ours, an address, an interface; and a mirror on the same hosts.

use super::{ONE_GROUP, SCRIPTS, answered_by, ask, exactly_once, farm, load_is, started, vip};
use anyhow::{Result, ensure};
use conformance::{Cluster, LATER, SOON, Spec, wait};

/// The member dies, or stands still: the kernel stops accepting by itself, the others take over, and its successor joins again.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_member_that_dies_or_stands_still_is_replaced() -> Result<()> {
    Cluster::up("ffilter", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0")?;
        cluster.lab.kill("node1", "sk-farmfilter run")?;
        module.logged("node1", "sk-farmfilter ended unexpectedly", 1)?;
        answered_by(cluster, "client", 80, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0")?;
        module.reaches("node1", "UP Ready", SOON)?;
        ensure!(module.times("node1", "stop_both")? <= 1, "the application was stopped for it");

        let frozen = cluster.lab.pids("node1", "sk-farmfilter run")?;
        ensure!(frozen.len() == 1, "{frozen:?}");
        let pid = frozen[0].to_string();
        cluster.lab.exec("node1", &["kill", "-STOP", &pid])?;
        load_is(&module, "node2", "FarmProto_0", "256/256")?;
        answered_by(cluster, "client", 80, &["node2"])?;
        cluster.lab.exec("node1", &["kill", "-CONT", &pid])?;
        load_is(&module, "node2", "FarmProto_0", "128/256")?;
        answered_by(cluster, "client", 80, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0").map(drop)
    })
}

/// A member that stands still when the module is stopped: the operator waits a bounded time, and nothing is left.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_stop_does_not_wait_for_ever_for_a_member_that_stands_still() -> Result<()> {
    Cluster::up("ffrozen", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        answered_by(cluster, "client", 80, &nodes)?;
        let frozen = cluster.lab.pids("node1", "sk-farmfilter run")?;
        ensure!(frozen.len() == 1, "{frozen:?}");
        cluster.lab.exec("node1", &["kill", "-STOP", &frozen[0].to_string()])?;
        module.order("node1", &["stop"])?;
        module.logged("node1", "sk-farmfilter does not answer: it is killed", 1)?;
        module.reaches("node1", "STOP NotReady", LATER)?;
        ensure!(module.application("node1")?.is_empty());
        let address = vip(cluster);
        wait::until("nothing is left on node1", SOON, || {
            let line =
                format!("ip address show | grep -F {address}; nft list tables; pgrep -f '[s]k-farmfilter run'; true");
            let left = cluster.lab.sh("node1", &line).map_err(|error| format!("{error:#}"))?;
            if left.trim().is_empty() { Ok(()) } else { Err(left) }
        })?;
        answered_by(cluster, "client", 80, &["node2"]).map(drop)
    })
}

/// The runner dies: everything of it goes, its successor leads back to UP.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_runner_that_dies_leaves_nothing_and_comes_back() -> Result<()> {
    Cluster::up("frunner", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0")?;
        // Its guard first: nobody starts the runner again.
        module.kill("node1", "sk-module guard")?;
        module.kill("node1", "sk-module run")?;
        let address = vip(cluster);
        wait::until("nothing is left on node1", SOON, || {
            let line =
                format!("ip address show | grep -F {address}; nft list tables; pgrep -f '[s]k-farmfilter run'; true");
            let left = cluster.lab.sh("node1", &line).map_err(|error| format!("{error:#}"))?;
            if left.trim().is_empty() { Ok(()) } else { Err(left) }
        })?;
        load_is(&module, "node2", "FarmProto_0", "256/256")?;
        answered_by(cluster, "client", 80, &["node2"])?;
        cluster.lab.sh("node1", "setsid sk-module guard web </dev/null >/dev/null 2>&1 &")?;
        module.reaches("node1", "UP Ready", LATER)?;
        answered_by(cluster, "client", 80, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0")?;
        module.replays()
    })
}

/// The address is taken away by hand (C12), the cable is drawn (C6): the rules of mirrors hold.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn addresses_and_interfaces_are_watched() -> Result<()> {
    Cluster::up("faddr", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        module.resource_is("node1", &format!("ip.{}", vip(cluster)), "up")?;
        let line = format!("set -- $(ip -o address show | grep -F ' {}/'); ip address del $4 dev $2", vip(cluster));
        cluster.lab.sh("node1", &line)?;
        module.logged("node1", &format!("Resource ip.{} set to down by ipcheck", vip(cluster)), 1)?;
        module.logged("node1", "Action stopstart from failover rule ip_failure", 1)?;
        module.logged("node1", "Local state UP Ready", 2)?;
        answered_by(cluster, "client", 80, &nodes)?;

        let interface = cluster.lab.sh(
            "node1",
            &format!(
                "ip -o -4 address show | awk '$2 != \"lo\" && $4 ~ /^{}\\./ {{print $2; exit}}'",
                cluster.network()
            ),
        )?;
        cluster.lab.exec("node1", &["ip", "link", "set", interface.trim(), "down"])?;
        module.blocked("node1", "interface_failure")?;
        answered_by(cluster, "client", 80, &["node2"])?;
        cluster.lab.exec("node1", &["ip", "link", "set", interface.trim(), "up"])?;
        module.reaches("node1", "UP Ready", SOON)?;
        module.logged("node1", "Action wakeup from failover rule Implicit_wakeup", 1)?;
        answered_by(cluster, "client", 80, &nodes).map(drop)
    })
}

/// A farm and a mirror on the same hosts do not disturb each other.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_farm_and_a_mirror_share_hosts() -> Result<()> {
    Cluster::up("fmirror", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let web = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        let mirror = cluster.configure(&Spec::mirror("mir").id(2).vip(81))?;
        started(&web, &nodes)?;
        mirror.start_pair()?;
        answered_by(cluster, "client", 80, &nodes)?;
        mirror.order("node1", &["swap"])?;
        mirror.pair("node2", "node1")?;
        for node in nodes {
            web.reaches(node, "UP Ready", SOON)?;
            ensure!(web.times(node, "start_both")? == 1, "the farm was disturbed");
        }
        cluster.lab.run(&["poweroff", "node2"])?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        load_is(&web, "node1", "FarmProto_0", "256/256")?;
        answered_by(cluster, "client", 80, &["node1"])?;
        cluster.lab.run(&["boot", "node2"])?;
        web.reaches("node2", "UP Ready", LATER)?;
        mirror.pair("node1", "node2")?;
        answered_by(cluster, "client", 80, &nodes).map(drop)
    })
}

/// A node whose address is taken does not serve, says why, and serves once it is free.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn an_address_that_another_machine_has_is_refused() -> Result<()> {
    Cluster::up("fconflict", 2)?.scenario(|cluster| {
        let module = farm(cluster, &["node1", "node2"], "vmac_invisible", ONE_GROUP)?;
        let address = vip(cluster);
        let line = format!(
            "dev=$(ip -o -4 address show | awk '$2 != \"lo\" && $4 ~ /^{}\\./ {{print $2; exit}}'); ip address add {address}/24 dev $dev && echo $dev",
            cluster.network()
        );
        let device = cluster.lab.sh("witness", &line)?;
        module.order("node1", &["start"])?;
        module.blocked("node1", "ip_failure")?;
        module.logged("node1", &format!("address {address} is already used"), 1)?;
        ensure!(module.times("node1", "start_both")? == 0, "the application was started without its address");
        cluster.lab.exec("witness", &["ip", "address", "del", &format!("{address}/24"), "dev", device.trim()])?;
        module.reaches("node1", "UP Ready", SOON)?;
        answered_by(cluster, "client", 80, &["node1"]).map(drop)
    })
}

/// Scripts that are not there do no harm; what `SCRIPTS` names is all a farm calls.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_farm_calls_its_scripts_and_no_others() -> Result<()> {
    Cluster::up("fscripts", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        ensure!(ask(cluster, "client", 80, 10, 3.0)?.values().sum::<u32>() == 10);
        module.order("node1", &["stopstart"])?;
        module.logged("node1", "Local state UP Ready", 2)?;
        module.order("node1", &["stop", "--wait"])?;
        let called: Vec<String> =
            module.calls("node1")?.into_iter().filter(|c| c.edge == "begin").map(|c| c.words).collect();
        ensure!(called.iter().all(|c| SCRIPTS.iter().any(|s| c.starts_with(s))), "{called:?}");
        for expected in
            ["start_both WAIT UP start", "stop_both UP WAIT stopstart", "stop_both force WAIT STOP stopstart"]
        {
            ensure!(called.iter().any(|c| c == expected), "no {expected:?} in {called:?}");
        }
        Ok(())
    })
}

/// The key of the cluster is renewed while clients are served: nobody leaves the farm, and who comes later speaks with the new key.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn the_key_is_renewed_while_clients_are_served() -> Result<()> {
    Cluster::up("fkey", 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        let module = farm(cluster, &nodes, "vmac_invisible", ONE_GROUP)?;
        started(&module, &nodes)?;
        answered_by(cluster, "client", 80, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0")?;
        for node in nodes {
            cluster.lab.exec(node, &["sk-cluster", "up"])?;
        }
        let memberships = || nodes.map(|node| module.log(node).matches("farm membership: ").count());
        let key = |node: &str| cluster.lab.read(node, "/etc/sk/cluster.key").unwrap_or_default();
        let (before, known) = (key("node1"), memberships());
        let during = std::thread::scope(|scope| {
            let clients = scope.spawn(|| ask(cluster, "client", 80, 3000, 5.0));
            for _ in 0..2 {
                cluster.lab.exec("node1", &["sk-cluster", "key", "renew"])?;
            }
            clients.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
        })?;
        ensure!(!during.contains_key("refused") && !during.contains_key("nobody"), "{during:?}");
        let after = key("node1");
        ensure!(
            nodes.iter().all(|node| key(node) == after) && !after.contains(before.trim()),
            "not renewed everywhere"
        );
        exactly_once(&module, &nodes, "FarmProto_0")?;
        ensure!(memberships() == known, "the farm changed: {known:?}, then {:?}", memberships());
        // Who begins anew has never seen the former key.
        cluster.lab.kill("node3", "sk-farmfilter run")?;
        module.logged("node3", "sk-farmfilter ended unexpectedly", 1)?;
        module.order("node2", &["stop", "--wait"])?;
        module.order("node2", &["start", "--wait"])?;
        answered_by(cluster, "client", 80, &nodes)?;
        exactly_once(&module, &nodes, "FarmProto_0").map(drop)
    })
}
