//! A configuration changed while the module serves (§3.11 of the product's guide), and `prim fullsync`: what of it is seen on hosts.

use anyhow::{Result, ensure};
use conformance::{Cluster, LATER, SOON, Spec, wait};

/// The application goes on writing while the replication engine, the heartbeats and the supervision are started again.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_lone_primary_takes_a_configuration_under_its_application() -> Result<()> {
    Cluster::up("dyn", 2)?.scenario(|cluster| {
        let module = cluster.configure(&Spec::mirror("dyn"))?;
        module.start_pair()?;
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        let directory = module.directory().to_owned();
        let writer = format!(
            "set -e; i=0; while [ ! -e /srv/dyn/enough ]; do i=$((i+1)); echo $i | dd of={directory}/f$((i%7)) conv=fsync status=none; echo $i >/srv/dyn/written; done; echo fine >/srv/dyn/ended"
        );
        cluster.lab.sh("node1", &format!("setsid sh -c '{writer}' </dev/null >/srv/dyn/writer 2>&1 &"))?;
        wait::until("the writer writes", SOON, || cluster.lab.read("node1", "/srv/dyn/written").map(|_| ()).ok_or("nothing yet".to_owned()))?;
        let before: u64 = cluster.lab.read("node1", "/srv/dyn/written").unwrap_or_default().trim().parse()?;
        let edit = "sed -i 's/async=\"second\"/async=\"none\"/; s/timeout=\"2000ms\"/timeout=\"2500ms\"/; s/mode=\"mirror\"/mode=\"mirror\" maxloop=\"5\"/' /etc/sk/modules/dyn/conf/userconfig.xml";
        for node in ["node1", "node2"] {
            cluster.lab.sh(node, edit)?;
        }
        let plan = module.order("node1", &["config", "--plan"])?;
        for line in [
            "service maxloop: \"3\" becomes \"5\"",
            "service/rfs async: \"second\" becomes \"none\"",
            "sk-heartbeat is started again with its new configuration",
            "sk-replicate is started again with its new configuration",
        ] {
            ensure!(plan.lines().any(|seen| seen == line), "no {line:?} in {plan}");
        }
        module.order("node1", &["config"])?;
        module.order("node2", &["config"])?;
        wait::until("the writer goes on", SOON, || {
            let now = cluster.lab.read("node1", "/srv/dyn/written").unwrap_or_default();
            let now: u64 = now.trim().parse().map_err(|_| "unreadable".to_owned())?;
            if now > before + 200 { Ok(()) } else { Err("not yet".to_owned()) }
        })?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        ensure!(!module.log("node1").contains("ended unexpectedly"), "a process died: {}", module.log("node1"));
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")?;
        cluster.lab.sh("node1", "touch /srv/dyn/enough")?;
        wait::until("the writer ended without an error", SOON, || {
            cluster.lab.read("node1", "/srv/dyn/ended").map(|_| ()).ok_or("not yet".to_owned())
        })?;
        let spec = cluster.lab.exec("node1", &["cat", "/run/sk/dyn/replicate.json"])?;
        ensure!(spec.contains("\"async\":\"none\""), "the engine was told the new configuration: {spec}");
        cluster.lab.exec("node1", &["sk-replicate", "verify", "-m", "dyn"])?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn prim_fullsync_makes_the_secondary_compare_everything_once() -> Result<()> {
    Cluster::up("full", 2)?.scenario(|cluster| {
        let module = cluster.configure(&Spec::mirror("full"))?;
        module.start_pair()?;
        for node in ["node2", "node1"] {
            module.order(node, &["stop", "--wait"])?;
        }
        module.order("node1", &["prim", "--fullsync"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")?;
        let modes = |text: &str| text.matches("Reintegration mode: ").count();
        let first = module.log("node2");
        ensure!(first.contains("Reintegration mode: full"), "{first}");
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.order("node2", &["start"])?;
        module.pair("node1", "node2")?;
        wait::until("the second start", LATER, || {
            let log = module.log("node2");
            if modes(&log) > modes(&first) || log.matches("Local state SECOND Ready").count() > 2 {
                Ok(())
            } else {
                Err("not yet".to_owned())
            }
        })?;
        let log = module.log("node2");
        ensure!(
            log.matches("Reintegration mode: full").count() == first.matches("Reintegration mode: full").count(),
            "only once: {log}"
        );
        module.replays()
    })
}
