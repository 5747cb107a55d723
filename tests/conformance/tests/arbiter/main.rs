//! M17, M18 of the conformance list, and what a store promises: one primary at most, whatever is cut, paused or switched off.

mod members;
mod parts;

use anyhow::{Result, ensure};
use conformance::{CALLBACK, Cluster, LATER, Module, SOON, Secured, Spec, Store, Witnesses, wait};
use std::time::{Duration, Instant};

const VIP: u8 = 50;
/// Longer than every timeout of the scenarios: lease, margin, heartbeats, lifetime of the address.
const LONG: Duration = Duration::from_secs(15);

fn with_witness(cluster: &Cluster) -> Result<Module<'_>> {
    let witness = cluster.lab.address("witness", "prod")?;
    let check = format!(r#"<check><splitbrain ident="wit" exec="ping" arg="{witness}" when="pre"/></check>"#);
    let module = cluster.configure(&Spec::mirror("mir").body(&check))?;
    module.start_pair()?;
    Ok(module)
}

fn with_store<'a>(cluster: &'a Cluster, store: &Store<'_>, attributes: &str) -> Result<Module<'a>> {
    let endpoints = store.endpoints();
    let check = format!(r#"<check><splitbrain ident="store" exec="etcd" arg="{endpoints}" {attributes}/></check>"#);
    let module = cluster.configure(&Spec::mirror("mir").vip(VIP).body(&check))?;
    module.start_pair()?;
    Ok(module)
}

const A_MINUTE: Duration = Duration::from_mins(1);

/// The states do not change for this long.
fn stays(module: &Module<'_>, wanted: [(&str, &str); 2], time: Duration) -> Result<()> {
    let began = Instant::now();
    while began.elapsed() < time {
        for (node, state) in wanted {
            let seen = module.state(node).map_err(anyhow::Error::msg)?;
            ensure!(format!("{} {}", seen.state, seen.readiness) == state, "{node}: {seen:?}");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

fn cut_from_everybody(cluster: &Cluster, node: &str) -> Result<()> {
    cluster.lab.run(&["cut", node, "all"]).map(drop)
}

fn no_address(cluster: &Cluster, node: &str) -> Result<()> {
    let address = format!("{}.{VIP}/", cluster.network());
    wait::until(&format!("{node} has no virtual address"), SOON, || {
        let seen = cluster.lab.exec(node, &["ip", "-o", "address"]).map_err(|e| format!("{e:#}"))?;
        if seen.contains(&address) { Err(seen) } else { Ok(()) }
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m17_only_the_node_that_reaches_the_witness_goes_on() -> Result<()> {
    Cluster::up("m17", 2)?.scenario(|cluster| {
        let module = with_witness(cluster)?;
        cluster.lab.run(&["cut", "node1", "node2"])?;
        cluster.lab.run(&["cut", "node2", "witness"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.blocked("node2", "splitbrain_failure")?;
        module.resource_is("node1", "splitbrain.uptodate", "up")?;
        module.resource_is("node2", "splitbrain.uptodate", "down")?;
        module.resource_is("node2", "splitbrain.wit", "down")?;
        ensure!(module.application("node2")?.is_empty(), "the application runs on node2");
        cluster.lab.run(&["heal"])?;
        module.pair("node1", "node2")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m18_without_the_witness_nobody_goes_on() -> Result<()> {
    Cluster::up("m18", 2)?.scenario(|cluster| {
        let module = with_witness(cluster)?;
        cluster.lab.run(&["poweroff", "witness"])?;
        cluster.lab.run(&["cut", "node1", "node2"])?;
        for node in ["node1", "node2"] {
            module.blocked(node, "splitbrain_failure")?;
            module.resource_is(node, "splitbrain.uptodate", "down")?;
            ensure!(module.application(node)?.is_empty(), "the application runs on {node}");
        }
        cluster.lab.run(&["heal"])?;
        module.pair("node1", "node2")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn the_loss_of_the_store_changes_nothing_until_the_peer_is_lost_too() -> Result<()> {
    Cluster::up("storeloss", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let module = with_store(cluster, &store, "")?;
        let mut witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        store.stop(0)?;
        stays(&module, [("node1", "PRIM Ready"), ("node2", "SECOND Ready")], LONG)?;
        witnesses.served_by("node1")?;
        // The peer's loss ends the service: nobody can tell any more who may serve.
        witnesses.leave("node2")?;
        cluster.lab.run(&["poweroff", "node2"])?;
        module.blocked("node1", "splitbrain_failure")?;
        no_address(cluster, "node1")?;
        ensure!(module.application("node1")?.is_empty(), "the application still runs");
        let before = witnesses.writes("node1");
        std::thread::sleep(Duration::from_secs(2));
        ensure!(witnesses.writes("node1") == before, "writes are acknowledged without a lease");
        store.resume(0)?;
        module.reaches("node1", "ALONE Ready", LATER)?;
        witnesses.served_by("node1")?;
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_swap_that_a_callback_objects_to_leaves_the_lease_where_it_is() -> Result<()> {
    Cluster::up("objects", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let check = format!(r#"<check><splitbrain ident="store" exec="etcd" arg="{}"/></check>"#, store.endpoints());
        let spec = Spec::mirror("mir").vip(VIP).rfs(r#"async="second" scripts="on""#).body(&check);
        let module = cluster.configure(&spec.script("_rfs_callback", CALLBACK))?;
        module.start_pair()?;
        let mut witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        cluster.lab.sh("node1", "echo _rfs_pritoscd >/srv/mir/objects")?;
        let given_up = |by: &str, times| {
            module.refused("node2", &["swap", "--wait"], 1)?;
            module.logged("node1", by, 1)?;
            module.logged("node2", "The other node gave the swap up and stays primary: its log says why", times)?;
            module.pair("node1", "node2")
        };
        given_up("Swap given up: this node stays primary", 1)?;
        // Nobody answers for the lease: the application is not even stopped.
        store.stop(0)?;
        let stops = module.times("node1", "stop_prim")?;
        given_up("no swap: the arbiter cannot be reached", 2)?;
        ensure!(module.times("node1", "stop_prim")? == stops, "the application was stopped for nothing");
        ensure!(module.log("node1").matches("no swap: ").count() == 1, "the arbiter is asked again and again");
        stays(&module, [("node1", "PRIM Ready"), ("node2", "SECOND Ready")], LONG)?;
        witnesses.served_by("node1")?;
        store.resume(0)?;
        cluster.lab.sh("node1", "rm /srv/mir/objects")?;
        module.order("node2", &["swap", "--wait"])?;
        module.pair("node2", "node1")?;
        witnesses.served_by("node2")?;
        module.order("node2", &["swap", "--wait"])?;
        module.pair("node1", "node2")?;
        witnesses.served_by("node1")?;
        // And the lease is where the service is: its holder's loss ends it.
        witnesses.leave("node1")?;
        cluster.lab.run(&["poweroff", "node1"])?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        witnesses.served_by("node2")?;
        cluster.lab.run(&["boot", "node1"])?;
        module.pair("node2", "node1")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_host_paused_for_a_minute_wakes_up_fenced() -> Result<()> {
    Cluster::up("paused", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let module = with_store(cluster, &store, "")?;
        let witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        cluster.lab.run(&["pause", "node1"])?;
        let paused = Instant::now();
        module.reaches("node2", "ALONE Ready", LATER)?;
        witnesses.served_by("node2")?;
        // The promise is about a whole minute: this is no wait for anything.
        std::thread::sleep(A_MINUTE.saturating_sub(paused.elapsed()));
        let before = witnesses.writes("node1");
        cluster.lab.run(&["resume", "node1"])?;
        module.pair("node2", "node1")?;
        ensure!(witnesses.writes("node1") == before, "node1 acknowledged what had waited for it");
        witnesses.served_by("node2")?;
        witnesses.never_both("node1", "node2")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn an_isolated_primary_has_stopped_before_its_rival_begins() -> Result<()> {
    Cluster::up("isolated", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let module = with_store(cluster, &store, "")?;
        let witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        cut_from_everybody(cluster, "node1")?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        module.blocked("node1", "splitbrain_failure")?;
        witnesses.served_by("node2")?;
        witnesses.never_both("node1", "node2")?;
        cluster.lab.run(&["heal"])?;
        module.pair("node2", "node1")?;
        drop(witnesses);
        // Now the other way round, and one way only: node2 hears everybody and is not heard.
        let witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node2")?;
        cluster.lab.run(&["cut", "node2", "all", "--one-way"])?;
        module.reaches("node1", "ALONE Ready", LATER)?;
        witnesses.served_by("node1")?;
        witnesses.never_both("node2", "node1")?;
        cluster.lab.run(&["heal"])?;
        module.pair("node1", "node2")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_cut_between_the_nodes_leaves_one_of_them() -> Result<()> {
    Cluster::up("between", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let module = with_store(cluster, &store, "")?;
        let witnesses = Witnesses::start(cluster, &module, VIP)?;
        witnesses.served_by("node1")?;
        cluster.lab.run(&["cut", "node1", "node2"])?;
        // Both reach the store: the primary keeps what it has.
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.blocked("node2", "splitbrain_failure")?;
        witnesses.served_by("node1")?;
        let record = store.record("node2", "mir")?;
        ensure!(record["record"]["owner"] == "node1" && record["record"]["alone"] == true, "{record}");
        cluster.lab.run(&["heal"])?;
        module.pair("node1", "node2")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn after_a_total_power_loss_the_owner_starts_alone_and_the_other_waits() -> Result<()> {
    Cluster::up("total", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured::default())?;
        let module = with_store(cluster, &store, "")?;
        for node in ["node1", "node2"] {
            cluster.lab.run(&["poweroff", node])?;
        }
        cluster.lab.run(&["boot", "node2"])?;
        module.blocked("node2", "rfs_notuptodate_server")?;
        module.logged("node2", "The arbiter says that node1 has the data of this module", 1)?;
        cluster.lab.run(&["poweroff", "node2"])?;
        cluster.lab.run(&["boot", "node1"])?;
        module.reaches("node1", "ALONE Ready", LATER)?;
        cluster.lab.run(&["boot", "node2"])?;
        module.pair("node1", "node2")?;
        // A swap moves the ownership with the role.
        module.order("node1", &["swap"])?;
        module.pair("node2", "node1")?;
        let record = store.record("node1", "mir")?;
        ensure!(record["record"]["owner"] == "node2" && record["record"]["alone"] == false, "{record}");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn the_store_may_ask_for_certificates_and_passwords() -> Result<()> {
    Cluster::up("secured", 2)?.scenario(|cluster| {
        let store = Store::start(cluster, "witness", Secured { tls: true })?;
        for (path, body) in [
            ("/v3/auth/user/add", r#"{"name":"root","password":"not told"}"#),
            ("/v3/auth/role/add", r#"{"name":"root"}"#),
            ("/v3/auth/user/grant", r#"{"user":"root","role":"root"}"#),
            ("/v3/auth/enable", "{}"),
        ] {
            store.post(path, body)?;
        }
        let tls = "/etc/sk/tls";
        for node in cluster.nodes() {
            cluster.lab.sh(node, &format!("mkdir -p {tls}; umask 077; echo 'not told' >{tls}/password"))?;
            for file in ["ca.pem", "client.pem", "client.key"] {
                let text = cluster.lab.exec("witness", &["cat", &format!("{tls}/{file}")])?;
                cluster.lab.exec(node, &["sh", "-c", "printf %s \"$1\" >\"$2\"", "sh", &text, &format!("{tls}/{file}")])?;
            }
        }
        let attributes = format!(
            r#"lease="4s" ca="{tls}/ca.pem" cert="{tls}/client.pem" key="{tls}/client.key" user="root" passwordfile="{tls}/password""#
        );
        let module = with_store(cluster, &store, &attributes)?;
        cluster.lab.exec("node1", &["sk-arbiter", "test", "-m", "mir"])?;
        let asks = [
            "sk-arbiter test -m AM",
            "sk-arbiter show -m AM",
            "sk-module state -m AM -v",
            "sk-module rules -m AM",
            "sk-module explain -m AM",
            "sk-vip show",
        ];
        module.fits("node1", &asks)?;
        cluster.lab.run(&["poweroff", "node1"])?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        // A wrong password is told as such.
        cluster.lab.sh("node2", &format!("echo wrong >{tls}/password"))?;
        let said = cluster.lab.try_exec("node2", &["sk-arbiter", "show", "-m", "mir"])?;
        let words = String::from_utf8_lossy(&said.stderr).into_owned();
        ensure!(said.status.code() == Some(2) && words.contains("login of root"), "{words}");
        Ok(())
    })
}
