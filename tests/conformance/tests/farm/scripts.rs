//! `scriptcontrol="on"`: traffic is the scripts' own.

use super::{ONE_GROUP, SCRIPTS, START, STOP, answered_by, ask, farm, scripted, started, userconfig};
use anyhow::{Result, ensure};
use conformance::{Cluster, SOON, Spec, wait};

/// Whether nobody answers clients.
fn closed(cluster: &Cluster) -> Result<()> {
    wait::until("nobody answers", SOON, || {
        let seen = ask(cluster, "client", 80, 3, 0.7).map_err(|error| format!("{error:#}"))?;
        if seen.keys().all(|k| k == "nobody" || k == "refused") { Ok(()) } else { Err(format!("{seen:?}")) }
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn traffic_is_closed_until_a_script_opens_it() -> Result<()> {
    Cluster::up("fcontrol", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let xml = userconfig(cluster, "vmac_invisible", r#"scriptcontrol="on""#, ONE_GROUP);
        let groups =
            |value: &str| format!("$SAFE/safekit -r saferpc_send vipd SETGROUPS {value} {value} {value} || exit 1\n");
        // Opens only when told by a file, so that the time before is seen.
        let start = format!(
            "{START}\nwhile [ ! -e /srv/web/go ]; do sleep 0.05; done\nsleep 0.2\n{}note end opened\n",
            groups("all")
        );
        let stop = STOP.replacen(
            "note begin stop_both \"$@\"\n",
            &format!("note begin stop_both \"$@\"\n[ \"$1\" = force ] || {{ {} }}\n", groups("none").trim()),
            1,
        );
        let spec = scripted(Spec::whole("web", &nodes, &xml, &SCRIPTS))
            .script("start_both", &start)
            .script("stop_both", &stop);
        let module = cluster.configure(&spec)?;
        module.everywhere(&["start"])?;
        for node in nodes {
            module.reaches(node, "UP Transient", SOON)?;
        }
        closed(cluster)?;
        cluster.lab.sh("node1", "touch /srv/web/go")?;
        module.reaches("node1", "UP Ready", SOON)?;
        answered_by(cluster, "client", 80, &["node1"])?;
        cluster.lab.sh("node2", "touch /srv/web/go")?;
        module.reaches("node2", "UP Ready", SOON)?;
        answered_by(cluster, "client", 80, &nodes)?;

        // By hand; and a member that dies is told again what the scripts wanted.
        module.order("node2", &["setgroups", "none"])?;
        answered_by(cluster, "client", 80, &["node1"])?;
        cluster.lab.kill("node2", "sk-farmfilter run")?;
        module.logged("node2", "sk-farmfilter ended unexpectedly", 1)?;
        module.order("node1", &["setgroups", "none"])?;
        closed(cluster)?;
        module.everywhere(&["setgroups", "all"])?;
        answered_by(cluster, "client", 80, &nodes)?;

        let during = std::thread::scope(|scope| {
            let clients = scope.spawn(|| ask(cluster, "client", 80, 2000, 5.0));
            module.order("node2", &["stop", "--wait"])?;
            clients.join().map_err(|_| anyhow::anyhow!("the client panicked"))?
        })?;
        ensure!(!during.contains_key("refused") && !during.contains_key("nobody"), "{during:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn scripts_of_an_ordinary_farm_cannot_open_traffic() -> Result<()> {
    Cluster::up("fnocontrol", 2)?.scenario(|cluster| {
        let module = farm(cluster, &["node1", "node2"], "vmac_invisible", ONE_GROUP)?;
        started(&module, &["node1"])?;
        let said = module.refused("node1", &["setgroups", "none"], 1)?;
        ensure!(said.contains("not controlled by scripts"), "{said}");
        answered_by(cluster, "client", 80, &["node1"]).map(drop)
    })
}
