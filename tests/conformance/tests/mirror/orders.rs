//! M1–M10, M24, M29: what the operator orders.

use crate::{application, handed_over, mirror, pair, paired, read, runs_only, write};
use anyhow::{Result, ensure};
use conformance::{Cluster, LATER, SOON, Spec, wait};

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m01_a_new_module_waits_for_the_choice_of_its_primary() -> Result<()> {
    Cluster::up("m01", 2)?.scenario(|cluster| {
        let module = mirror(cluster)?;
        module.everywhere(&["start"])?;
        for node in ["node1", "node2"] {
            module.blocked(node, "rfs_notuptodate_server")?;
            module.in_order(
                node,
                "Action start called by root",
                &[
                    "Action start called by root",
                    "Local state WAIT Transient",
                    "Script prestart \"start\"",
                    "Action wait from failover rule rfs_notuptodate_server",
                    "Data may be not uptodate for replicated directories (wait for the start of the remote server)",
                    "If you are sure that this server has valid data, run safekit prim to force start as primary",
                    "Local state WAIT NotReady",
                ],
            )?;
            module.resource_is(node, "rfs.uptodate", "down")?;
        }
        // The way out that the messages name.
        module.order("node1", &["stop", "--wait"])?;
        module.order("node1", &["prim"])?;
        module.pair("node1", "node2")?;
        module.in_order(
            "node2",
            "Action wait from failover rule",
            &["Action wakeup from failover rule Implicit_wakeup", "Local state SECOND Ready"],
        )?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m02_prim_and_second_start_a_new_pair() -> Result<()> {
    Cluster::up("m02", 2)?.scenario(|cluster| {
        let module = mirror(cluster)?;
        cluster.lab.sh("node1", &format!("echo one >{}/first", module.directory()))?;
        module.order("node1", &["prim"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        application(&module, "node1")?;
        module.order("node2", &["second"])?;
        module.pair("node1", "node2")?;
        module.in_order(
            "node1",
            "Action prim called by root",
            &["Local state ALONE Transient", "Script start_prim", "Local state ALONE Ready", "Local state PRIM Ready"],
        )?;
        module.in_order(
            "node2",
            "Action second called by root",
            &["Local state SECOND Transient", "Reintegration ended (synchronize)", "Local state SECOND Ready"],
        )?;
        ensure!(read(cluster, &module, "node2", "first").as_deref() == Some("one\n"), "not in the first copy");
        ensure!(module.times("node2", "start_prim")? == 0, "start_prim ran on the secondary");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m03_a_pair_stopped_in_order_comes_back_as_it_was() -> Result<()> {
    Cluster::up("m03", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        for node in ["node2", "node1"] {
            module.order(node, &["stop", "--wait"])?;
        }
        let before = module.times("node1", "start_prim")?;
        module.everywhere(&["start"])?;
        module.pair("node1", "node2")?;
        let after = "Action start called by root";
        // The peer becomes SECOND at the same time: its line stands before or behind.
        module.in_order("node1", after, &["Script start_prim", "Local state PRIM Ready"])?;
        module.in_order("node1", after, &["Script start_prim", "Remote state SECOND Ready"])?;
        ensure!(module.times("node1", "start_prim")? == before + 1, "{before}");
        ensure!(module.times("node2", "start_prim")? == 0, "start_prim ran on the secondary");
        runs_only(&module, "node1", "node2")
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m04_stop_of_the_primary_is_a_failover() -> Result<()> {
    Cluster::up("m04", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        // A stop script that takes its time: the peer must wait for it.
        cluster.lab.sh("node1", "echo 1.5 >/srv/mir/slow")?;
        module.order("node1", &["stop", "--wait"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        module.in_order(
            "node1",
            "Action stop called by root",
            &["Script stop_prim", "Local state WAIT Transient", "Local state STOP NotReady"],
        )?;
        module.in_order(
            "node2",
            "Action alone called by heart: remote stop",
            &["Script start_prim", "Local state ALONE Ready"],
        )?;
        handed_over(&module, "node1", "node2")?;
        runs_only(&module, "node2", "node1")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m05_a_stopped_node_comes_back_as_secondary() -> Result<()> {
    Cluster::up("m05", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        module.order("node1", &["stop", "--wait"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        let before = application(&module, "node2")?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        module.in_order(
            "node1",
            "Action start called by root",
            &["Local state SECOND Transient", "Local state SECOND Ready"],
        )?;
        ensure!(application(&module, "node2")? == before, "the application was restarted");
        runs_only(&module, "node2", "node1")
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m06_restart_keeps_the_roles() -> Result<()> {
    Cluster::up("m06", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        let before = application(&module, "node1")?;
        let remote = module.messages("node2", "").len();
        module.order("node1", &["restart", "--wait"])?;
        module.pair("node1", "node2")?;
        module.in_order(
            "node1",
            "Action restart called by root",
            &[
                "Local state PRIM Transient",
                "Script stop_prim",
                "Script stop_prim \"force\"",
                "Script start_prim",
                "Local state PRIM Ready",
            ],
        )?;
        ensure!(application(&module, "node1")? != before, "the application was not restarted");
        let said = module.messages("node2", "").split_off(remote);
        ensure!(!said.iter().any(|line| line.starts_with("Local state")), "the secondary moved: {said:?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m07_the_virtual_address_goes_along() -> Result<()> {
    Cluster::up("m07", 2)?.scenario(|cluster| {
        let module = paired(cluster, &Spec::mirror("mir").vip(50))?;
        let vip = format!("{}.50", cluster.network());
        let holds = |node: &str| -> Result<bool> {
            Ok(cluster.lab.exec(node, &["ip", "-o", "addr", "show", "dev", "eth0"])?.contains(&format!("inet {vip}/")))
        };
        ensure!(holds("node1")? && !holds("node2")?, "the address is not on the primary alone");
        module.logged("node1", &format!("Virtual IP {vip} set"), 1)?;
        let mac = |node: &str| -> Result<String> {
            Ok(cluster.lab.exec(node, &["cat", "/sys/class/net/eth0/address"])?.trim().to_owned())
        };
        let neighbour = |mac: &str| {
            wait::until(&format!("the client's ARP entry is {mac}"), SOON, || {
                let seen = cluster.lab.exec("client", &["ip", "neigh", "show", &vip]).map_err(|e| e.to_string())?;
                if seen.contains(mac) { Ok(()) } else { Err(seen) }
            })
        };
        cluster.lab.exec("client", &["ping", "-c1", "-W2", &vip])?;
        neighbour(&mac("node1")?)?;
        module.order("node1", &["stopstart"])?;
        module.pair("node2", "node1")?;
        ensure!(holds("node2")? && !holds("node1")?, "the address has not moved");
        neighbour(&mac("node2")?)?;
        module.in_order(
            "node1",
            "Action stopstart called by root",
            &[
                "Script stop_prim",
                "Local state STOP NotReady",
                "Action start called automatically",
                "Local state SECOND Ready",
            ],
        )?;
        module.logged("node2", &format!("Virtual IP {vip} set"), 1)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m08_the_secondary_shows_the_data_and_takes_no_writes() -> Result<()> {
    Cluster::up("m08", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        write(cluster, &module, "node1", "file1", "1")?;
        ensure!(read(cluster, &module, "node2", "file1").as_deref() == Some("1"), "file1 is not on the secondary");
        let directory = module.directory();
        for line in
            ["rm D/file1", "echo x >D/mine", "echo x >>D/file1", "mkdir D/sub", "mv D/file1 D/file2", "chmod 0 D/file1"]
        {
            let line = line.replace('D', directory);
            ensure!(cluster.lab.sh("node2", &line).is_err(), "the secondary lets somebody do: {line}");
        }
        ensure!(read(cluster, &module, "node2", "file1").as_deref() == Some("1"), "changed on the secondary");
        // What the primary deletes is gone on both.
        cluster.lab.sh("node1", &format!("rm {directory}/file1; sync {directory}"))?;
        ensure!(read(cluster, &module, "node2", "file1").is_none(), "a deletion did not arrive");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m09_changes_made_alone_are_reintegrated() -> Result<()> {
    Cluster::up("m09", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        write(cluster, &module, "node1", "file1", "1")?;
        module.order("node1", &["stop", "--wait"])?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        write(cluster, &module, "node2", "file2", "2")?;
        cluster.lab.sh("node2", &format!("rm {0}/file1; sync {0}", module.directory()))?;
        ensure!(read(cluster, &module, "node1", "file2").is_none(), "file2 is on the stopped node");
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        ensure!(read(cluster, &module, "node1", "file2").as_deref() == Some("2"), "file2 was not reintegrated");
        ensure!(read(cluster, &module, "node1", "file1").is_none(), "a deletion was not reintegrated");
        let seen = module.messages("node1", "Action start called by root");
        let at = |words: &str| seen.iter().position(|line| line.starts_with(words));
        let order = [
            at("Local state SECOND Transient"),
            at(&format!("Updating directory tree from {}", module.directory())),
            at("Copied "),
            at("Reintegration ended (synchronize)"),
            at("Local state SECOND Ready"),
        ];
        ensure!(order.iter().all(Option::is_some) && order.is_sorted(), "{order:?} in {seen:#?}");
        // The next one has nothing to copy and says so by saying nothing.
        module.order("node1", &["stop", "--wait"])?;
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")?;
        let again = module.messages("node1", "Action start called by root");
        ensure!(!again.iter().any(|line| line.starts_with("Copied ")), "{again:#?}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m10_the_shutdown_of_a_host_is_a_clean_stop() -> Result<()> {
    Cluster::up("m10", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        // What the host's init system runs before it switches off.
        cluster.lab.exec("node1", &["/opt/sk/safekit", "shutdown"])?;
        module.in_order(
            "node1",
            "Action shutdown called by SYSTEM/root",
            &["Script stop_prim", "Local state STOP NotReady"],
        )?;
        module.reaches("node2", "ALONE Ready", SOON)?;
        module.in_order(
            "node2",
            "Action alone called by heart: remote stop",
            &["Script start_prim", "Local state ALONE Ready"],
        )?;
        handed_over(&module, "node1", "node2")?;
        cluster.lab.run(&["poweroff", "node1"])?;
        let before = application(&module, "node2")?;
        // It was running: boot="auto" starts it again.
        cluster.lab.run(&["boot", "node1"])?;
        module.pair("node2", "node1")?;
        module.logged("node1", "Action start called at boot time", 1)?;
        ensure!(application(&module, "node2")? == before, "the application was restarted");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m24_swap_moves_the_application_without_an_instant_of_two() -> Result<()> {
    Cluster::up("m24", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        cluster.lab.sh("node1", "echo 1 >/srv/mir/slow")?;
        write(cluster, &module, "node1", "file", "before")?;
        module.order("node1", &["swap"])?;
        module.pair("node2", "node1")?;
        handed_over(&module, "node1", "node2")?;
        runs_only(&module, "node2", "node1")?;
        module.in_order(
            "node1",
            "Action swap called by root",
            &["Begin of Swap", "Script stop_prim", "Local state SECOND Ready"],
        )?;
        ensure!(module.log("node2").contains("Begin of Swap"), "the peer does not say that a swap begins");
        ensure!(read(cluster, &module, "node2", "file").as_deref() == Some("before"));
        write(cluster, &module, "node2", "file", "after")?;
        // Asked for on the secondary it is the same.
        module.order("node1", &["swap"])?;
        module.pair("node1", "node2")?;
        handed_over(&module, "node2", "node1")?;
        runs_only(&module, "node1", "node2")?;
        ensure!(read(cluster, &module, "node1", "file").as_deref() == Some("after"));
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn m29_prim_beside_a_primary_and_second_without_one_fail() -> Result<()> {
    Cluster::up("m29", 2)?.scenario(|cluster| {
        let module = pair(cluster)?;
        // As SECOND it is not even stopped.
        let said = module.refused("node2", &["prim"], 1)?;
        ensure!(said.contains("not stopped"), "{said}");
        module.order("node2", &["stop", "--wait"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        let said = module.refused("node2", &["prim", "--wait"], 1)?;
        ensure!(said.contains("Requested prim start aborted: the other node is primary"), "{said}");
        module.reaches("node2", "STOP NotReady", LATER)?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.order("node1", &["stop", "--wait"])?;
        let said = module.refused("node2", &["second", "--wait"], 1)?;
        ensure!(said.contains("the other node is not primary"), "{said}");
        module.reaches("node2", "STOP NotReady", LATER)?;
        module.everywhere(&["start"])?;
        module.pair("node1", "node2")
    })
}
