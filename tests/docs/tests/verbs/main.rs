//! Every verb of every command, run for real on a node of its own: what changes something is in the log of commands with who and how
//! it ended, what asks is not; and none of them minds a reader that is gone, nor does half its work for it.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

mod node;
mod outcomes;
mod width;

use node::{Node, Reader};
use std::collections::BTreeSet;

/// What changes something, in an order in which the later ones find what the earlier ones made. `@` is the node's directory, `&` stands
/// between the verb and its arguments, `=` before the whole command where they are mixed. The module `databases-01` can be configured, `web` is installed on the way; neither ever runs.
const CHANGES: &[&str] = &[
    "sk-cluster create & server-north=127.0.0.1 server-south=127.0.0.2",
    "sk-cluster config & @/etc/cluster.xml lock",
    "sk-cluster config & unlock",
    "sk-cluster export &",
    "sk-cluster import &",
    "sk-cluster up &",
    "sk-cluster push &",
    "sk-cluster key renew &",
    "sk-cluster role add & ops control --output @/ops.key",
    "sk-cluster role remove & ops",
    "sk-module cluster-key & --output @/other.key",
    "sk-module init & --yes --template light -m light --process sleep",
    "sk-module install & -m web mirror",
    "sk-module config & -m databases-01 --id 7",
    "sk-module push & -m databases-01",
    "sk-module errd & off -m databases-01",
    "sk-module checker & off -m databases-01",
    "sk-module failover & off -m databases-01",
    "sk-module boot & on -m databases-01",
    "sk-module set & -m databases-01 -r usersetting.errd -v on",
    "sk-module setgroups & none -m databases-01",
    "sk-module resetloop & -m databases-01",
    "sk-module incloop & -i me -m databases-01",
    "sk-module update & -m databases-01",
    "sk-module start & -m web --wait",
    "sk-module prim & -m web",
    "sk-module primforce & -m web",
    "sk-module second & -m web",
    "sk-module stop & -m databases-01 --wait",
    "sk-module forcestop & -m databases-01",
    "sk-module restart & -m databases-01",
    "sk-module stopstart & -m databases-01",
    "sk-module swap & -m databases-01",
    "sk-module shutdown &",
    "sk-module package & -m databases-01 @/m.safe",
    "sk-module logsave & -m databases-01 @/m.log",
    "sk-module snapshot & -m databases-01 @/m.tar.gz",
    "sk-module anonymise & @/m.tar.gz @/a.tar.gz",
    "safekit config & -m databases-01",
    "safekit deconfig & -m databases-01",
    "safekit config & -m databases-01",
    "safekit boot & on -m databases-01",
    "safekit start & -m web",
    "safekit prim & -m web",
    "safekit primforce & -m web",
    "safekit second & -m web",
    "safekit secondforce & -d 2026-01-01 -m web",
    "safekit rfssync & external prim backup-7 -m databases-01",
    "safekit stop & -m databases-01",
    "safekit forcestop & -m databases-01",
    "safekit restart & -m databases-01",
    "safekit stopstart & -m databases-01",
    "safekit swap & -m databases-01",
    "safekit update & -m databases-01",
    "safekit shutdown &",
    "safekit set & -m databases-01 -r custom.x -v up",
    "safekit errd & enable prim -m databases-01",
    "safekit errd & off -m databases-01",
    "safekit checker & off -m databases-01",
    "safekit failover & off -m databases-01",
    "safekit resetloop & -m databases-01",
    "safekit incloop & -i me -m databases-01",
    "safekit kill & -name=no-such-name -level=terminate",
    "safekit logsave & -m databases-01 @/m2.log",
    "safekit snapshot & -m databases-01 @/m2.tar.gz",
    "safekit module install & -m three @/m.safe -M 30",
    "safekit module package & -m three @/three.safe",
    "safekit module uninstall & -m three",
    "safekit dump & -m databases-01",
    "safekit clean & log -m databases-01",
    "safekit webserver & restart",
    "safekit notification & enable",
    "sk-replicate salvage restore = sk-replicate salvage -m databases-01 restore 2026-01-02T030405Z/data/file --to @/back",
    "sk-replicate salvage prune = sk-replicate salvage -m databases-01 prune --all --yes",
    "sk-replicate policy external = sk-replicate policy -m databases-01 external second backup-7",
    "sk-replicate policy full = sk-replicate policy -m databases-01 full",
    "sk-replicate policy default = sk-replicate policy -m databases-01 default",
    "sk-arbiter release & -m databases-01 --owner server-north",
    "sk-farmfilter clean & -m no-such-module",
    "sk-vip add & 192.0.2.77",
    "sk-vip remove & 192.0.2.77",
    "sk-module deconfig & -m databases-01",
    "sk-module boot &",
    "sk-module uninstall & -m web",
    "sk-cluster deconfig &",
];

/// What only asks, or says what would be done.
const ASKS: &[&str] = &[
    "sk-module check & @/etc/modules/databases-01/conf/userconfig.xml",
    "sk-module config & -m databases-01 --plan",
    "sk-module init & --check",
    "sk-module init & --dry-run --yes --template light -m other --process sleep",
    "sk-module boot & status",
    "sk-module errd & list -m databases-01",
    "sk-module confcheck & -m databases-01",
    "sk-module confinfo & -m databases-01",
    "sk-module list &",
    "sk-module list & --available",
    "sk-module state &",
    "sk-module state & -m databases-01 -v",
    "sk-module state & -m databases-01 -q",
    "sk-module waitstate & -m databases-01 STOP",
    "sk-module waitstart & -m databases-01",
    "sk-module waitstop & -m databases-01",
    "sk-module log & -m databases-01",
    // A checker reports; the module's log and the history have it.
    "sk-module set & -m databases-01 -r custom.x -v up -i checker",
    "sk-module get & -m databases-01 -r usersetting.errd",
    "sk-module checkloop & -m databases-01",
    "sk-module history & -m databases-01",
    "sk-module level &",
    "sk-module cmdlog &",
    "sk-module doctor & --offline",
    "sk-module rules & -m databases-01",
    "sk-module plan & -m databases-01 STOP WAIT",
    "sk-module replay & @/etc/cluster.xml",
    "sk-module explain & -m databases-01",
    "safekit print &",
    // Words of scripts for the module's log.
    "safekit printi & -m databases-01 hello",
    "safekit printe & -m databases-01 hello",
    "safekit printw & -m databases-01 hello",
    "safekit rfsverify & -m databases-01",
    "safekit rfsdiff & -m databases-01",
    "safekit confcheck & -m databases-01",
    "safekit confinfo & -m databases-01",
    "safekit level &",
    "safekit cmdlog &",
    "safekit waitstart & -m nothing",
    "safekit waitstop & -m databases-01",
    "safekit waitstate & -m databases-01 STOP",
    "safekit state &",
    "safekit state & -m databases-01 -v",
    "safekit log & -m databases-01",
    "safekit get & -m databases-01 -r usersetting.errd",
    "safekit checkloop & -m databases-01",
    "safekit errd & list -m databases-01",
    "safekit module list &",
    "safekit module listid &",
    "safekit module getports & -m databases-01",
    "safekit module genkey & -m databases-01",
    "safekit module delkey & -m databases-01",
    "sk-cluster confcheck &",
    "sk-cluster confinfo &",
    "sk-cluster state &",
    "sk-cluster key status &",
    "sk-cluster role list &",
    "sk-cluster on & server-south sk-module state",
    "sk-check tcp & 127.0.0.1:1",
    "sk-check ping & 127.0.0.1",
    "sk-check intf & lo",
    "sk-check ip & 127.0.0.1",
    "sk-check module & databases-01",
    "sk-check custom & --timeout 1s -- /bin/true",
    "sk-errd list & --name nobody",
    "sk-health check & databases-01",
    "sk-health metrics &",
    "sk-notify test & --script /bin/true",
    "sk-top &",
    "sk-top & --json",
    "sk-replicate status & -m databases-01",
    "sk-replicate lineage & -m databases-01",
    "sk-replicate verify & -m databases-01",
    "sk-replicate diff & -m databases-01",
    "sk-replicate policy show = sk-replicate policy -m databases-01 show",
    "sk-replicate salvage list = sk-replicate salvage -m databases-01 list",
    "sk-replicate salvage prune = sk-replicate salvage -m databases-01 prune --all",
    "sk-arbiter show & -m databases-01",
    "sk-arbiter test & -m databases-01",
    "sk-farmfilter show &",
    "sk-farmfilter who & 192.0.2.1:1",
    "sk-farmfilter plan & --spec @/none",
    "sk-vip show &",
    "sk-vip probe & 127.0.0.1",
];

/// Verbs that go on until they are ended, or run what is named.
const ELSEWHERE: &[&str] = &[
    "safekit cluster",
    "safekit logview",
    "safekit run",
    "sk-arbiter run",
    "sk-check run",
    "sk-cluster serve",
    "sk-errd run",
    "sk-farmfilter run",
    "sk-health serve",
    "sk-heartbeat carry",
    "sk-heartbeat run",
    "sk-module guard",
    "sk-module run",
    "sk-notify run",
    "sk-replicate run",
    "sk-vip hold",
    "sk-vip watch",
];

fn verb_of(line: &str) -> &str {
    line.split(" = ").next().and_then(|l| l.split(" &").next()).unwrap_or_default()
}

#[test]
fn every_verb_is_known_to_change_something_or_not() {
    let all = docs::verbs();
    let known: BTreeSet<&str> =
        CHANGES.iter().chain(ASKS).map(|line| verb_of(line)).chain(ELSEWHERE.iter().copied()).collect();
    let unknown: Vec<&String> = all.iter().filter(|v| !known.contains(v.as_str())).collect();
    assert!(unknown.is_empty(), "are these in the log of commands? {unknown:#?}");
    let gone: Vec<&&str> = known.iter().filter(|v| !all.iter().any(|known| known == **v)).collect();
    assert!(gone.is_empty(), "no verbs any more: {gone:#?}");
}

/// Runs all of `CHANGES`, `ASKS` in between while there is most to see; the exit codes.
fn story(node: &Node, reader: Reader) -> Vec<(String, i32)> {
    let mut place = 0;
    let mut codes = Vec::new();
    for line in CHANGES {
        if *line == "sk-module deconfig & -m databases-01" {
            for question in ASKS {
                let outcome = node.run(question, reader);
                assert_eq!(node.logged(&mut place), Vec::<String>::new(), "{question} changes nothing");
                codes.push(((*question).to_owned(), outcome.code.unwrap()));
            }
        }
        let outcome = node.run(line, reader);
        let code = outcome.code.unwrap();
        let log = node.logged(&mut place);
        let pid = format!("| {} |", outcome.pid);
        let own: Vec<&String> = log.iter().filter(|l| l.contains(&pid)).collect();
        let [start, end] = own[..] else {
            panic!("{line}: not two lines of {pid} in {log:#?}: {}", outcome.complaints)
        };
        assert!(start.contains(" | START | ") && start.contains(" -u ") && start.contains("(uid "), "{line}: {start}");
        assert!(end.ends_with(&format!("| END | {code}")), "{line} ended with {code}: {end}");
        codes.push(((*line).to_owned(), code));
    }
    codes
}

#[test]
fn what_changes_something_is_in_the_log_of_commands_whoever_reads_its_words() {
    let home = tempfile::tempdir().unwrap();
    let mut seen = Vec::new();
    for (name, reader) in [("read", Reader::Reads), ("gone", Reader::Gone), ("full", Reader::Full)] {
        let node = Node::new(&home.path().join(name));
        let codes = story(&node, reader);
        let too_wide = node.too_wide.take();
        assert!(too_wide.is_empty(), "wider than 80 columns: {too_wide:#?}");
        seen.push((codes, node.files()));
    }
    let [(codes, files), gone, full] = &seen[..] else { panic!("three nodes") };
    assert_eq!(codes, &gone.0, "a reader that is gone changes an exit code");
    assert_eq!(files, &gone.1, "a reader that is gone changes what is done");
    assert_eq!(files, &full.1, "words that cannot be written change what is done");
    let changes = |codes: &[(String, i32)]| -> Vec<(String, i32)> {
        codes.iter().filter(|(line, _)| CHANGES.contains(&line.as_str())).cloned().collect()
    };
    // What prints its result, and cannot, has failed.
    let written = |(line, _): &(String, i32)| !line.starts_with("sk-cluster export");
    let (codes, full) = (changes(codes), changes(&full.0));
    assert!(codes.iter().zip(&full).filter(|(c, _)| written(c)).all(|(c, f)| c == f), "{codes:#?} {full:#?}");
    let good = codes.iter().filter(|(_, code)| *code == 0).count();
    assert!(good > 30, "only {good} did what they were asked: {codes:#?}");
}
