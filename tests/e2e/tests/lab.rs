//! Is the lab what it claims to be: cables, power cords, disks that forget, nothing left behind?

use anyhow::{Context, Result, ensure};
use e2e::lab::{Lab, scripts};
use e2e::wait;
use std::fmt::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

fn pings(lab: &Lab, from: &str, to: &str) -> Result<bool> {
    Ok(lab.try_exec(from, &["ping", "-c1", "-W1", to])?.status.success())
}

/// Can frames of `from` reach `to`? Told by the receiver's counter, since an answer takes the other direction.
fn reaches(lab: &Lab, from: &str, to: &str) -> Result<bool> {
    let counter = "nft delete table ip probe 2>/dev/null; nft add table ip probe; \
        nft add chain ip probe in '{ type filter hook input priority 0; }'; nft add rule ip probe in udp dport 9 counter";
    lab.sh(to, counter)?;
    let theirs = lab.address(to, "prod")?;
    // The neighbour table is given, so that the cut of the other direction cannot stop this one for want of an ARP answer.
    let mac = lab.sh(to, "cat /sys/class/net/eth0/address")?;
    lab.exec(from, &["ip", "neigh", "replace", &theirs, "lladdr", mac.trim(), "dev", "eth0"])?;
    lab.exec(from, &["bash", "-c", &format!("for i in 1 2 3; do echo >/dev/udp/{theirs}/9; done")])?;
    let seen = wait::until("frames counted", Duration::from_millis(500), || {
        let rules = lab.sh(to, "nft list chain ip probe in").map_err(|error| error.to_string())?;
        if rules.contains("packets 3") { Ok(()) } else { Err(rules) }
    });
    lab.exec(from, &["ip", "neigh", "del", &theirs, "dev", "eth0"])?;
    Ok(seen.is_ok())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn two_labs_side_by_side_do_not_meet() -> Result<()> {
    let (one, two) = (Lab::up("side", 2)?, Lab::up("side", 1)?);
    ensure!(one.address("node1", "prod")? != two.address("node1", "prod")?, "the same address in two labs");
    for host in ["node2", "client", "witness", "node2-repl"] {
        ensure!(pings(&one, "node1", host)?, "node1 does not reach {host}");
    }
    ensure!(!pings(&one, "node1", &two.address("node1", "prod")?)?, "the labs are connected");
    one.sh("node1", "echo mine > /srv/file; echo mine > /tmp/file; echo mine > /etc/of-this-host")?;
    for path in ["/srv/file", "/tmp/file", "/etc/of-this-host"] {
        ensure!(one.read("node1", path).as_deref() == Some("mine\n"), "{path} is not there");
        ensure!(one.read("node2", path).is_none() && two.read("node1", path).is_none(), "{path} is seen elsewhere");
        ensure!(!std::path::Path::new(path).exists(), "{path} is seen on the machine");
    }
    ensure!(one.exec("node1", &["hostname"])?.trim() == "node1");
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn cables_are_cut_per_direction_and_network() -> Result<()> {
    let lab = Lab::up("cables", 2)?;
    ensure!(reaches(&lab, "node1", "node2")? && reaches(&lab, "node2", "node1")?, "not connected at first");
    lab.run(&["cut", "node1", "node2", "--one-way", "--net", "prod"])?;
    ensure!(!reaches(&lab, "node1", "node2")?, "node1 -> node2 is cut");
    ensure!(reaches(&lab, "node2", "node1")?, "node2 -> node1 is not cut");
    ensure!(pings(&lab, "node1", "node2-repl")?, "the replication network is not cut");
    ensure!(pings(&lab, "node1", "client")?, "other hosts are not cut");
    lab.run(&["heal"])?;
    ensure!(pings(&lab, "node1", "node2")?, "healed");
    lab.run(&["cut", "node1", "all"])?;
    for host in ["node2", "node2-repl", "client", "witness"] {
        ensure!(!pings(&lab, "node1", host)?, "{host} is reached by an isolated host");
    }
    lab.run(&["heal", "--net", "prod"])?;
    ensure!(pings(&lab, "node1", "node2")? && pings(&lab, "node1", "client")?, "one network is healed");
    ensure!(!pings(&lab, "node1", "node2-repl")?, "the other one is not");
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn a_power_failure_loses_what_was_not_synced_and_nothing_else() -> Result<()> {
    let lab = Lab::up("power", 1)?;
    lab.sh(
        "node1",
        "cd /srv && echo kept > kept && sync kept . && echo lost > lost && dd if=/dev/zero of=big bs=1M count=20",
    )?;
    lab.sh("node1", "echo ram > /run/sk/state; sleep 1000 >/dev/null 2>&1 & true")?;
    let boot_id = || lab.read("node1", "/proc/sys/kernel/random/boot_id").context("no boot_id");
    let first_boot = boot_id()?;
    ensure!(first_boot == boot_id()?, "not the same within one boot");
    lab.run(&["poweroff", "node1"])?;
    ensure!(lab.try_exec("node1", &["true"])?.status.code() == Some(3), "a command ran on a host without power");
    ensure!(!pings(&lab, "client", "node1")?, "a host without power answers");
    lab.run(&["boot", "node1"])?;
    ensure!(lab.read("node1", "/srv/kept").as_deref() == Some("kept\n"), "synced data was lost");
    for path in ["/srv/lost", "/srv/big", "/run/sk/state"] {
        ensure!(lab.read("node1", path).is_none(), "{path} survived");
    }
    ensure!(lab.pids("node1", "sleep 1000")?.is_empty(), "a process survived");
    ensure!(first_boot != boot_id()?, "another boot, and it cannot be told from the first");
    ensure!(pings(&lab, "client", "node1")?, "not reachable after its boot");
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn a_paused_host_does_nothing_until_it_is_resumed() -> Result<()> {
    let lab = Lab::up("pause", 1)?;
    let mut counting = lab.spawn("node1", &["sh", "-c", "while :; do echo x >> /srv/count; sleep 0.01; done"])?;
    let count = || lab.read("node1", "/srv/count").map_or(0, |text| text.len());
    let grows = || {
        let before = count();
        wait::until("the counter grows", Duration::from_secs(2), || {
            if count() > before { Ok(()) } else { Err(before.to_string()) }
        })
    };
    grows()?;
    lab.run(&["pause", "node1"])?;
    let stopped = wait::until("every process stopped", Duration::from_secs(2), || {
        let before = count();
        std::thread::sleep(Duration::from_millis(100));
        if count() == before { Ok(()) } else { Err("still counting".into()) }
    });
    let paused_growth = grows();
    lab.run(&["resume", "node1"])?;
    let resumed = grows();
    lab.run(&["pause", "node1"])?;
    // Also a paused host can lose its power, and the commands that entered it end with it.
    lab.run(&["poweroff", "node1"])?;
    counting.wait()?;
    stopped?;
    ensure!(paused_growth.is_err(), "a paused host works");
    resumed
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn down_leaves_nothing_behind() -> Result<()> {
    let traces = |name: &str| -> Result<String> {
        let line = "grep -F \"$0\" /proc/mounts; losetup -a | grep -F \"$0\"; ip netns list | grep -F \"$0\"; \
            ls -d /run/sk-lab/\"$0\" /var/tmp/sk-lab/\"$0\" 2>/dev/null; true";
        let output = Command::new("sh").args(["-c", line, name]).output()?;
        let mut found = String::from_utf8(output.stdout)?;
        for process in std::fs::read_dir("/proc")?.flatten() {
            let command = std::fs::read(process.path().join("cmdline")).unwrap_or_default();
            let command = String::from_utf8_lossy(&command).replace('\0', " ");
            if command.contains(name) {
                writeln!(found, "{}: {command}", process.path().display())?;
            }
        }
        Ok(found)
    };
    let lab = Lab::up("traces", 2)?;
    let name = lab.name().to_owned();
    ensure!(traces(&name)?.contains("loop"), "the search finds nothing while the lab is up");
    let mut sleeping = lab.spawn("node2", &["sleep", "1000"])?;
    lab.run(&["poweroff", "node1"])?;
    lab.run(&["pause", "node2"])?;
    drop(lab);
    ensure!(!sleeping.wait()?.success(), "a command survived its host");
    let left = traces(&name)?;
    ensure!(left.is_empty(), "left behind:\n{left}");

    // An `up` that fails half-way, when two hosts run already, cleans up after itself.
    let tools = std::env::temp_dir().join(&name);
    std::fs::create_dir(&tools)?;
    let losetup = "#!/bin/sh\ncase \"$*\" in *--find*client.img) exit 1;; esac\nexec /usr/sbin/losetup \"$@\"\n";
    std::fs::write(tools.join("losetup"), losetup)?;
    std::fs::set_permissions(tools.join("losetup"), std::fs::Permissions::from_mode(0o755))?;
    let path = format!("{}:{}", tools.display(), std::env::var("PATH")?);
    let output = Command::new(scripts().join("lab")).args(["--name", &name, "up", "2"]).env("PATH", path).output()?;
    std::fs::remove_dir_all(&tools)?;
    ensure!(output.status.code() == Some(111), "up without a loop device: {:?}", output.status);
    let left = traces(&name)?;
    ensure!(left.is_empty(), "left behind by a failed up:\n{left}");
    Ok(())
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn wrong_usage_is_refused() -> Result<()> {
    let lab = |arguments: &[&str]| -> Result<Option<i32>> {
        Ok(Command::new(scripts().join("lab")).args(arguments).output()?.status.code())
    };
    ensure!(lab(&["frobnicate"])? == Some(100));
    ensure!(lab(&["--name", "../x", "up", "2"])? == Some(100));
    ensure!(lab(&["--name", "no-such-lab", "exec", "node1", "true"])? == Some(1));
    ensure!(lab(&["--name", "no-such-lab", "down"])? == Some(0), "down is idempotent");
    Ok(())
}
