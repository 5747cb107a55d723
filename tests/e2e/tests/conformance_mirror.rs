//! Does a mirror behave as the conformance list says, beyond M1–M9: scripts, their time limits, process supervision with
//! its limit, switches, forced starts, and do the journals replay?

use anyhow::{Result, ensure};
use e2e::mirror::{Mirror, SOON};
use e2e::wait;
use std::path::PathBuf;

/// A process to watch that is nobody else's: `sleep` under a name of its own.
const USERCONFIG: &str = r#"<safe>
  <service mode="mirror" boot="auto" maxloop="2">
    <heart pulse="300ms" timeout="2000ms"><heartbeat name="default"/><heartbeat name="repl" ident="flow"/></heart>
    <rfs async="second"><replicated dir="/srv/data" mode="read_only"/></rfs>
    <user nicestoptimeout="2" forcestoptimeout="2"><var name="WORD" value="two words"/></user>
    <errd polltimer="1"><proc name="watched" class="prim" action="restart"/></errd>
  </service>
</safe>
"#;

/// Every script notes how it was called; the file /srv/hang makes the plain stop_prim hang.
const SCRIPT: &str = r#"#!/bin/sh
name=${0##*/}
echo "$name $*" >>/srv/calls
case $name in
prestart) env | grep -E '^(SAFE|WORD)' | sort >/srv/environment; cp /bin/sleep /srv/watched ;;
start_prim)
    setsid /srv/watched 100000 </dev/null >/dev/null 2>&1 &
    "$SAFE/safekit" printe "words of start_prim" ;;
stop_prim)
    if [ -e /srv/hang ] && [ "$1" != force ]; then sleep 1000; fi
    pkill -x watched ;;
esac
exit 0
"#;

const SCRIPTS: &str = "prestart start_prim stop_prim start_sec stop_sec start_second transition poststop";

fn configured(purpose: &str) -> Result<Mirror> {
    let mirror = Mirror::configured(purpose, "files", r#"async="second""#)?;
    let own = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{purpose}-{}", std::process::id()));
    std::fs::create_dir_all(own.join("conf"))?;
    std::fs::create_dir_all(own.join("bin"))?;
    std::fs::write(own.join("conf/userconfig.xml"), USERCONFIG)?;
    for script in SCRIPTS.split(' ') {
        std::fs::write(own.join("bin").join(script), SCRIPT)?;
    }
    for node in ["node1", "node2"] {
        mirror.lab.run(&["push", node, &own.to_string_lossy(), "/etc/sk/modules/files"])?;
        mirror.lab.sh(node, "chmod +x /etc/sk/modules/files/bin/*")?;
        mirror.order(node, &["config"])?;
    }
    Ok(mirror)
}

/// What the scripts noted since the last time.
fn calls(mirror: &Mirror, node: &str) -> Result<Vec<String>> {
    let text = mirror.lab.sh(node, "touch /srv/calls && cat /srv/calls && : >/srv/calls")?;
    Ok(text.lines().map(str::to_owned).collect())
}

/// The log's messages of the levels shown by default, from the first that contains `begin` on.
fn messages(mirror: &Mirror, node: &str, begin: &str) -> Vec<String> {
    let log = mirror.log(node);
    let shown = log.lines().filter_map(|line| {
        let mut parts = line.splitn(4, " | ").skip(2);
        let (level, words) = (parts.next()?, parts.next()?);
        matches!(level, "U" | "E" | "C" | "S")
            .then(|| words.split_once(" > userlog_").map_or(words, |(script, _)| script).to_owned())
    });
    shown.skip_while(|words| !words.contains(begin)).collect()
}

/// The lines appear in this order, with others in between.
fn in_order(seen: &[String], wanted: &[&str]) -> Result<()> {
    let mut rest = seen.iter();
    for line in wanted {
        ensure!(rest.any(|seen| seen == line), "no {line:?} (in its place) in {seen:#?}");
    }
    Ok(())
}

/// 0 when every decision of a node's journal is taken again.
fn replays(mirror: &Mirror) -> Result<()> {
    for node in ["node1", "node2"] {
        mirror.lab.exec(node, &["sk-module", "replay", "-q", "/var/lib/sk/modules/files/journal.jsonl"])?;
    }
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn scripts_their_limits_and_supervision() -> Result<()> {
    configured("scripts")?.scenario(|mirror| {
        mirror.start_pair()?;
        let node1 = calls(mirror, "node1")?;
        let wanted = [
            "transition STOP WAIT start",
            "prestart STOP WAIT start",
            "transition WAIT ALONE start",
            "start_prim WAIT ALONE start",
            "start_sec WAIT ALONE start",
            "stop_sec ALONE PRIM start",
            "transition ALONE PRIM start",
        ];
        ensure!(node1 == wanted, "{node1:#?}");
        let environment = mirror.lab.read("node1", "/srv/environment").unwrap_or_default();
        let wanted = "SAFE=/opt/sk\nSAFEBIN=/opt/sk/private/bin\nSAFEMODULE=files\nSAFESCRIPT=prestart\n\
                      SAFEUSERBIN=/var/lib/sk/modules/files/active/bin\nSAFEUSERCONF=/var/lib/sk/modules/files/active/conf\n\
                      SAFEUSERVAR=/var/lib/sk/modules/files\nSAFEVAR=/var/lib/sk\nWORD=two words\n";
        ensure!(environment == wanted, "{environment}");
        mirror.logged("node1", "| safekit | E | words of start_prim", 1)?;
        let code = mirror.lab.try_exec("node1", &["sk-module", "state", "-m", "files", "-lq"])?.status.code();
        ensure!(code == Some(3), "{code:?}");

        // A graceful stop that hangs is killed, and the forced one follows.
        mirror.lab.sh("node1", "touch /srv/hang")?;
        mirror.order("node1", &["restart", "--wait"])?;
        mirror.lab.sh("node1", "rm /srv/hang")?;
        in_order(
            &messages(mirror, "node1", "Action restart called by root"),
            &[
                "Local state PRIM Transient",
                "Script stop_prim",
                "Script stop_prim did not end in time and was killed",
                "Script stop_prim \"force\"",
                "Script start_prim",
                "Local state PRIM Ready",
            ],
        )?;

        // Supervision restarts twice; the third time inside the interval is a failover.
        for _ in 0..2 {
            let before = messages(mirror, "node1", "").iter().filter(|m| *m == "Action restart called by errd").count();
            mirror.lab.exec("node1", &["pkill", "-9", "-x", "watched"])?;
            mirror.logged("node1", "Action restart called by errd", before + 1)?;
            mirror.reaches("node1", "PRIM Ready", SOON)?;
            wait::until("the process runs again", SOON, || {
                let got = mirror.order("node1", &["get", "-r", "proc.watched"]).map_err(|e| e.to_string())?;
                if got.trim() == "up" { Ok(()) } else { Err(got) }
            })?;
        }
        mirror.lab.exec("node1", &["pkill", "-9", "-x", "watched"])?;
        mirror.reaches("node1", "STOP NotReady", SOON)?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        in_order(
            &messages(mirror, "node1", "Process watched not running"),
            &[
                "Process watched not running",
                "Action restart called by errd",
                "Resource proc.watched set to down by errd",
                "Local state PRIM Transient",
                "Script stop_prim",
                "Script stop_prim \"force\"",
                "Script start_prim",
                "Local state PRIM Ready",
                "Action restart called by errd",
                "Resource proc.watched set to down by errd",
                "Action restart called by errd",
                "Resource proc.watched set to down by errd",
                "Action stop called by maxloop",
                "Action stop called by heart : local fault",
                "Script stop_prim",
                "Local state WAIT Transient",
                "Script stop_prim \"force\"",
                "Local state STOP NotReady",
            ],
        )?;
        in_order(
            &messages(mirror, "node2", "Action alone called by heart: remote stop"),
            &["Script start_prim", "Local state ALONE Ready"],
        )?;
        replays(mirror)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn switches_outlive_the_runner_and_forced_starts_work() -> Result<()> {
    configured("switches")?.scenario(|mirror| {
        mirror.start_pair()?;
        for node in ["node1", "node2"] {
            mirror.lab.exec(node, &["/opt/sk/safekit", "errd", "off", "-m", "files"])?;
            mirror.order(node, &["failover", "off"])?;
        }
        // Off outlives the death of the runner and the stop of the module.
        mirror.lab.kill("node2", "sk-module run")?;
        mirror.logged("node2", "Local state SECOND Ready", 2)?;
        mirror.pair("node1", "node2")?;
        mirror.order("node1", &["swap", "--wait"])?;
        mirror.pair("node2", "node1")?;
        ensure!(mirror.order("node2", &["get", "-r", "usersetting.errd"])?.trim() == "off");
        mirror.lab.exec("node2", &["pkill", "-9", "-x", "watched"])?;
        // M22: without failover the secondary waits for its primary.
        mirror.lab.run(&["poweroff", "node2"])?;
        mirror.reaches("node1", "WAIT NotReady", SOON)?;
        in_order(
            &messages(mirror, "node1", "Failover-off configured"),
            &[
                "Failover-off configured",
                "Action stopstart called by failover-off",
                "Transition STOPSTART from failover-off",
                "Local state WAIT NotReady",
            ],
        )?;
        ensure!(!mirror.log("node2").contains("called by errd"), "errd is off");
        mirror.lab.run(&["boot", "node2"])?;
        mirror.pair("node2", "node1")?;

        // A configuration sets both switches back.
        for node in ["node1", "node2"] {
            mirror.order(node, &["stop", "--wait"])?;
            mirror.order(node, &["config"])?;
        }
        // node1 was stopped first: its data are the older ones, and primforce serves them all the same.
        mirror.order("node1", &["primforce", "--wait"])?;
        mirror.order("node2", &["start"])?;
        mirror.pair("node1", "node2")?;
        for resource in ["usersetting.errd", "usersetting.failover"] {
            ensure!(mirror.order("node1", &["get", "-r", resource])?.trim() == "on", "{resource}");
        }
        let refused = mirror.lab.try_exec("node2", &["sk-module", "prim", "-m", "files"])?;
        ensure!(refused.status.code() == Some(1), "{refused:?}");
        // M10: the end of a host in good order; the same runner is then told of a boot.
        mirror.lab.exec("node1", &["sk-module", "shutdown"])?;
        mirror.reaches("node2", "ALONE Ready", SOON)?;
        mirror.lab.exec("node1", &["sk-module", "boot"])?;
        mirror.pair("node2", "node1")?;
        replays(mirror)
    })
}
