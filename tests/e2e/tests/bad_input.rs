//! Is every mistake answered by one clear message, a documented exit code and the right state?

use anyhow::{Context, Result, ensure};
use e2e::mirror::{Mirror, SOON};
use e2e::wait;

const CONFIG: &str = "/etc/sk/modules/files/conf/userconfig.xml";

/// Runs a shell line on node1 that must fail with `code` and words that contain all of `words`.
fn refused(mirror: &Mirror, line: &str, code: i32, words: &[&str]) -> Result<()> {
    let output = mirror.lab.try_exec("node1", &["sh", "-c", line])?;
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.code() == Some(code), "{line}: {} instead of {code}: {said}", output.status);
    for word in words {
        ensure!(said.contains(word), "{line}: {word:?} is not in: {said}");
    }
    Ok(())
}

/// Waits until the module's log or the given state says why.
fn says(mirror: &Mirror, node: &str, words: &[&str]) -> Result<()> {
    wait::until(&format!("{node} says {words:?}"), SOON, || {
        let log = mirror.log(node);
        let found = log.lines().any(|line| words.iter().all(|word| line.contains(word)));
        if found { Ok(()) } else { Err(log.lines().last().unwrap_or_default().to_owned()) }
    })
}

fn neither_serves(mirror: &Mirror, node: &str) -> Result<()> {
    wait::until(&format!("{node} is STOP or WAIT NotReady"), SOON, || {
        let state = mirror.state(node)?;
        let seen = format!("{} {}", state.state, state.readiness);
        if ["STOP NotReady", "WAIT NotReady"].contains(&seen.as_str()) { Ok(()) } else { Err(seen) }
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn configuration() -> Result<()> {
    Mirror::configured("badconf", "files", "")?.scenario(|mirror| {
        mirror.lab.push_template()?;
        refused(
            mirror,
            "sk-module check /etc/sk/modules/template/conf/userconfig.xml",
            2,
            &["userconfig.xml:5:", "VIRTUAL_TO_BE_DEFINED"],
        )?;
        let spoil = |sed: &str, line: &str, code: i32, words: &[&str]| -> Result<()> {
            mirror.lab.sh("node1", &format!("cp {CONFIG} /tmp/good && sed -i '{sed}' {CONFIG}"))?;
            let outcome = refused(mirror, line, code, words);
            mirror.lab.sh("node1", &format!("cp /tmp/good {CONFIG}"))?;
            outcome
        };
        let config = "sk-module config -m files --id 1";
        spoil("s|</service>||", config, 2, &["userconfig.xml:"])?;
        spoil("s|<user/>|<user/><nonsense/>|", config, 2, &["userconfig.xml:", "nonsense"])?;
        spoil("s|2000ms|2000parsecs|", config, 2, &["userconfig.xml:4:", "2000parsecs"])?;
        spoil("s|\"default\"|\"nowhere\"|", config, 2, &["userconfig.xml:5:", "nowhere"])?;
        refused(mirror, "rm /etc/sk/cluster.xml; sk-module config -m files --id 1", 2, &["cluster.xml"])?;
        refused(mirror, "sk-module config -m unheard-of --id 1", 2, &["unheard-of"])?;
        refused(mirror, "sk-module start", 100, &["-m"])?;
        refused(mirror, "sk-module frobnicate", 100, &["frobnicate"])
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn script_not_executable() -> Result<()> {
    Mirror::configured("badscript", "files", "")?.scenario(|mirror| {
        let line = "chmod -x /etc/sk/modules/files/bin/start_prim; sk-module config -m files";
        refused(mirror, line, 2, &["start_prim", "executable"])?;
        // What was applied before is still there and works.
        mirror.start_pair()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn directory_missing() -> Result<()> {
    Mirror::configured("nodir", "files", "")?.scenario(|mirror| {
        mirror.lab.sh("node1", "rmdir /srv/data")?;
        // The order is accepted or refused at once; either way the module does not serve and says why.
        let _ = mirror.lab.try_exec("node1", &["sk-module", "prim", "-m", "files"])?;
        says(mirror, "node1", &["/srv/data"])?;
        neither_serves(mirror, "node1")?;
        mirror.order("node1", &["stop", "--wait"])?;
        mirror.lab.sh("node1", "mkdir /srv/data")?;
        mirror.start_pair()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn wrong_key() -> Result<()> {
    Mirror::configured("badkey", "files", "")?.scenario(|mirror| {
        mirror.lab.sh("node2", "head -c32 /dev/urandom | od -An -v -tx1 | tr -d ' \\n' > /etc/sk/cluster.key")?;
        mirror.order("node1", &["prim"])?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        let _ = mirror.lab.try_exec("node2", &["sk-module", "second", "-m", "files"])?;
        says(mirror, "node1", &["key"])?;
        neither_serves(mirror, "node2")?;
        mirror.reaches("node1", "ALONE Ready", SOON)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn unreadable_key() -> Result<()> {
    Mirror::configured("nokey", "files", "")?.scenario(|mirror| {
        mirror.lab.sh("node1", "echo short > /etc/sk/cluster.key")?;
        let output = mirror.lab.try_exec("node1", &["sk-module", "prim", "-m", "files", "--wait"])?;
        ensure!(!output.status.success(), "prim succeeded without a key");
        let said = String::from_utf8_lossy(&output.stderr).into_owned() + &mirror.log("node1");
        ensure!(said.contains("cluster.key"), "the key's file is not named: {said}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn unreachable_peer() -> Result<()> {
    Mirror::configured("nopeer", "files", "")?.scenario(|mirror| {
        mirror.lab.run(&["cut", "node1", "node2"])?;
        mirror.order("node1", &["prim"])?;
        mirror.reaches("node1", "ALONE Ready", SOON)?;
        // `second` fails when no primary is known.
        let output = mirror.lab.try_exec("node2", &["sk-module", "second", "-m", "files", "--wait"])?;
        ensure!(!output.status.success(), "second succeeded without a primary");
        neither_serves(mirror, "node2")?;
        mirror.lab.run(&["heal"])?;
        mirror.order("node2", &["start"])?;
        mirror.pair("node1", "node2")
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn virtual_address_in_use() -> Result<()> {
    Mirror::configured("vipused", "files", "")?.scenario(|mirror| {
        mirror.lab.exec("client", &["ip", "addr", "add", &format!("{}/24", mirror.vip), "dev", "eth0"])?;
        let mac = mirror.lab.sh("client", "cat /sys/class/net/eth0/address")?;
        let _ = mirror.lab.try_exec("node1", &["sk-module", "prim", "-m", "files"])?;
        says(mirror, "node1", &[&mirror.vip, mac.trim()])?;
        neither_serves(mirror, "node1")?;
        let shown = mirror.lab.exec("node1", &["ip", "-o", "addr"])?;
        ensure!(!shown.contains(&format!("{}/", mirror.vip)), "the address was taken though in use");
        mirror.order("node1", &["stop", "--wait"])?;
        mirror.lab.exec("client", &["ip", "addr", "del", &format!("{}/24", mirror.vip), "dev", "eth0"])?;
        mirror.order("node1", &["prim"])?;
        mirror.reaches("node1", "ALONE Ready", SOON).context("after the address was free again")
    })
}
