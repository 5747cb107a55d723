//! Cases B1–B7 of the conformance list, installation and boot; and what helpers and cleaners get of a module.

use anyhow::{Context, Result, ensure};
use conformance::{Cluster, Module, SOON, Spec, wait};

const SAFEKIT: &str = "/opt/sk/safekit";

/// `safekit` with arguments on a node: exit code, stdout, stderr.
fn safekit(cluster: &Cluster, node: &str, arguments: &[&str]) -> Result<(i32, String, String)> {
    let output = cluster.lab.try_exec(node, &[&[SAFEKIT], arguments].concat())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code().context("killed")?, text(&output.stdout), text(&output.stderr)))
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn b01_the_roots_are_printed() -> Result<()> {
    Cluster::up("b01", 1)?.scenario(|cluster| {
        let (code, text, _) = safekit(cluster, "node1", &["-p"])?;
        ensure!(code == 0, "{code}");
        for line in [r#"SAFE="/opt/sk""#, r#"SAFEVAR="/var/lib/sk""#, r#"SAFEBIN="/opt/sk/private/bin""#] {
            ensure!(text.lines().any(|seen| seen == line), "no {line} in {text}");
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn b02_level_names_host_system_and_release() -> Result<()> {
    Cluster::up("b02", 1)?.scenario(|cluster| {
        let (code, text, _) = safekit(cluster, "node1", &["level"])?;
        ensure!(code == 0, "{code}");
        let lines: Vec<&str> = text.lines().collect();
        let [host, os, safekit, license] = lines.as_slice() else { anyhow::bail!("{text}") };
        ensure!(*host == "Host: node1" && os.starts_with("OS: "), "{text}");
        ensure!(safekit.starts_with("SafeKit: ") && license.starts_with("License: "), "{text}");
        Ok(())
    })
}

/// There is no daemon; what can be missing is a module's runner.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn b03_without_a_runner_commands_say_so() -> Result<()> {
    Cluster::up("b03", 2)?.scenario(|cluster| {
        let module = cluster.configure(&Spec::mirror("mir"))?;
        let (code, text, _) = safekit(cluster, "node1", &["state", "-m", "mir"])?;
        ensure!(code == 0 && text.starts_with("mir: STOP (NotReady)"), "{code} {text}");
        for verb in ["swap", "restart", "stopstart"] {
            let (code, _, words) = safekit(cluster, "node1", &[verb, "-m", "mir"])?;
            ensure!(code == 1 && words.contains("module mir is not running"), "{verb}: {code} {words}");
            let said = module.refused("node1", &[verb], 3)?;
            ensure!(said.contains("mir"), "{verb}: {said}");
        }
        // What is stopped need not be stopped; what is started gets a runner.
        let (code, _, words) = safekit(cluster, "node1", &["stop", "-m", "mir"])?;
        ensure!(code == 0, "{words}");
        let (code, _, words) = safekit(cluster, "node1", &["prim", "-m", "mir"])?;
        ensure!(code == 0, "{words}");
        module.reaches("node1", "ALONE Ready", SOON)?;
        // A runner that does not answer any more is not waited for without end.
        let pid = cluster.lab.pids("node1", "sk-module run mir")?.first().context("no runner")?.to_string();
        cluster.lab.exec("node1", &["kill", "-STOP", &pid])?;
        let (code, _, words) = safekit(cluster, "node1", &["get", "-r", "state.local", "-m", "mir"])?;
        cluster.lab.exec("node1", &["kill", "-CONT", &pid])?;
        ensure!(code != 0 && words.contains("the runner of module mir did not answer"), "{code} {words}");
        module.reaches("node1", "ALONE Ready", SOON)
    })
}

/// The daemon of each node carries commands, not a web service.
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn b04_commands_for_other_hosts_run_where_they_can_and_the_rest_is_told() -> Result<()> {
    Cluster::up("b04", 2)?.scenario(|cluster| {
        for node in ["node1", "node2"] {
            cluster.lab.exec(node, &["sk-cluster", "up"])?;
        }
        let count = |text: &str, what: &str| text.lines().filter(|line| line.starts_with(what)).count();
        for hosts in ["*", "node1,node2", "[https],node1,node2"] {
            let (code, text, words) = safekit(cluster, "node1", &["-H", hosts, "level"])?;
            ensure!(code == 0 && count(&text, "---------------- Server=") == 2, "{code} {text} {words}");
            ensure!(count(&text, "Host: node1") == 1 && count(&text, "Host: node2") == 1, "{text}");
        }
        cluster.lab.kill("node2", "sk-cluster serve")?;
        let (code, text, words) = safekit(cluster, "node1", &["-H", "*", "level"])?;
        ensure!(code == 2 && count(&text, "---------------- Server=") == 2, "{code} {text} {words}");
        ensure!(count(&text, "Host: node1") == 1 && words.contains("node2: Error: nobody answers"), "{text} {words}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn b05_boot_status_states_and_numbers_are_listed() -> Result<()> {
    Cluster::up("b05", 2)?.scenario(|cluster| {
        let one = cluster.configure(&Spec::mirror("one").id(3))?;
        cluster.configure(&Spec::mirror("two").id(7).service(r#"boot="off""#))?;
        one.start_pair()?;
        for (node, state) in [("node1", "one: PRIM (Ready)"), ("node2", "one: SECOND (Ready)")] {
            let (code, text, _) = safekit(cluster, node, &["module", "listid"])?;
            ensure!(code == 0 && text == "3    one\n7    two\n", "{text}");
            let (code, text, _) = safekit(cluster, node, &["state"])?;
            let there = text.lines().any(|line| line.starts_with(state));
            ensure!(code == 0 && there && text.lines().any(|line| line.starts_with("two: STOP (NotReady)")), "{text}");
            let (code, text, _) = safekit(cluster, node, &["boot", "status"])?;
            let line = |module: &str| text.lines().find(|line| line.starts_with(module)).unwrap_or_default().to_owned();
            ensure!(code == 0 && line("one").contains("auto") && line("two").contains("off"), "{text}");
        }
        Ok(())
    })
}

/// A module on node1 with an attribute `boot`, alone and running.
fn alone<'a>(cluster: &'a Cluster, name: &str, id: u32, boot: &str) -> Result<Module<'a>> {
    let module = cluster.configure(&Spec::mirror(name).id(id).service(&format!(r#"boot="{boot}""#)))?;
    module.order("node1", &["prim"])?;
    module.reaches("node1", "ALONE Ready", SOON)?;
    Ok(module)
}

fn reboot(cluster: &Cluster) -> Result<()> {
    cluster.lab.run(&["poweroff", "node1"])?;
    cluster.lab.run(&["boot", "node1"]).map(drop)
}

/// The boot of the host is over for a module: its runner has answered and the module has not moved.
fn stays_stopped(module: &Module<'_>) -> Result<()> {
    module.reaches("node1", "STOP NotReady", SOON)?;
    wait::until("the runner answers", SOON, || module.resource("node1", "state.local").map_err(|e| e.to_string()))?;
    ensure!(!module.log("node1").contains("Action start called at boot time"), "{}", module.log("node1"));
    module.reaches("node1", "STOP NotReady", SOON)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn b06_boot_on_starts_the_module_at_boot() -> Result<()> {
    Cluster::up("b06", 2)?.scenario(|cluster| {
        let running = alone(cluster, "run", 1, "on")?;
        let stopped = alone(cluster, "stop", 2, "on")?;
        stopped.order("node1", &["stop", "--wait"])?;
        let off = alone(cluster, "off", 3, "off")?;
        let ignored = alone(cluster, "ign", 4, "ignore")?;
        // A module that cannot come up keeps nobody waiting; by its name it would be the first.
        alone(cluster, "broken", 5, "on")?;
        cluster.lab.sh("node1", "echo nonsense >/var/lib/sk/modules/broken/active/conf/userconfig.xml; sync")?;
        reboot(cluster)?;
        for module in [&running, &stopped] {
            module.reaches("node1", "ALONE Ready", SOON)?;
            module.in_order(
                "node1",
                "Action start called at boot time",
                &["Local state WAIT Transient", "Script start_prim", "Local state ALONE Ready"],
            )?;
        }
        stays_stopped(&off)?;
        stays_stopped(&ignored)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn b07_boot_auto_starts_only_what_ran() -> Result<()> {
    Cluster::up("b07", 2)?.scenario(|cluster| {
        let running = alone(cluster, "run", 1, "auto")?;
        let stopped = alone(cluster, "stop", 2, "auto")?;
        stopped.order("node1", &["stop", "--wait"])?;
        reboot(cluster)?;
        running.reaches("node1", "ALONE Ready", SOON)?;
        running.logged("node1", "Action start called at boot time", 1)?;
        stays_stopped(&stopped)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_module_is_packed_for_a_helper_and_cleaned_when_it_stands_still() -> Result<()> {
    Cluster::up("clean", 2)?.scenario(|cluster| {
        let module = cluster.configure(&Spec::mirror("mir").id(2))?;
        module.start_pair()?;
        let (code, text, words) = safekit(cluster, "node1", &["module", "getports", "-m", "mir"])?;
        ensure!(code == 0 && text.ends_with("heart port UDP 8888\nrfs safenfs_port TCP 5604\n"), "{text}{words}");
        for _ in 0..5 {
            let (code, text, words) = safekit(cluster, "node1", &["dump", "-m", "mir"])?;
            ensure!(code == 0 && text.starts_with("/var/lib/sk/dumps/mir/dump_"), "{text}{words}");
            let listed = cluster.lab.sh("node1", &format!("tar -tzf {}", text.trim()))?;
            ensure!(listed.contains("journal.jsonl") && !listed.contains("cluster.key"), "{listed}");
            // Their names have seconds.
            cluster
                .lab
                .sh("node1", "date +%s >/tmp/now; until [ \"$(date +%s)\" != \"$(cat /tmp/now)\" ]; do :; done")?;
        }
        let kept = cluster.lab.sh("node1", "ls /var/lib/sk/dumps/mir")?;
        ensure!(kept.lines().count() == 3, "{kept}");
        let (code, _, words) = safekit(cluster, "node1", &["clean", "log", "-m", "mir"])?;
        ensure!(code == 1 && words.contains("is PRIM"), "{words}");
        // It stops at first: the other node takes over in order.
        let (code, _, words) = safekit(cluster, "node1", &["clean", "-m", "mir"])?;
        ensure!(code == 0, "{words}");
        module.reaches("node2", "ALONE Ready", SOON)?;
        ensure!(module.log("node1").is_empty(), "{}", module.log("node1"));
        let (code, text, _) = safekit(cluster, "node1", &["cmdlog"])?;
        ensure!(code == 0 && text.contains("| START | clean all "), "{text}");
        // Nothing that matters was lost with it.
        module.order("node1", &["start"])?;
        module.pair("node2", "node1")
    })
}
