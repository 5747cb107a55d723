//! Several modules on the same hosts: does each go its own way?

use anyhow::{Context, Result, ensure};
use conformance::{Cluster, LATER, Module, SOON, Spec, wait};

/// The module's application runs on one of two nodes.
fn runs_on(module: &Module<'_>, here: &str, not_here: &str) -> Result<()> {
    let (here_pids, there) = (module.application(here)?, module.application(not_here)?);
    ensure!(here_pids.len() == 1 && there.is_empty(), "{}: {here} {here_pids:?}, {not_here} {there:?}", module.name());
    Ok(())
}

fn holds(cluster: &Cluster, node: &str, last: u8) -> Result<bool> {
    let address = format!("inet {}.{last}/", cluster.network());
    Ok(cluster.lab.exec(node, &["ip", "-o", "addr", "show", "dev", "eth0"])?.contains(&address))
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn active_active_each_node_serves_its_own_module_and_the_other_s_when_it_must() -> Result<()> {
    Cluster::up("crossed", 2)?.scenario(|cluster| {
        let service = |node: &str| format!(r#"boot="auto" defaultprim="{node}""#);
        let left = cluster.configure(&Spec::mirror("left").id(1).vip(51).service(&service("node1")))?;
        let right = cluster.configure(&Spec::mirror("right").id(2).vip(52).service(&service("node2")))?;
        left.start_pair()?;
        right.order("node2", &["prim"])?;
        right.reaches("node2", "ALONE Ready", SOON)?;
        right.order("node1", &["second"])?;
        right.pair("node2", "node1")?;
        ensure!(holds(cluster, "node1", 51)? && holds(cluster, "node2", 52)?);
        ensure!(!holds(cluster, "node1", 52)? && !holds(cluster, "node2", 51)?);

        let untouched = right.messages("node2", "").len();
        let pid = right.application("node2")?;
        cluster.lab.run(&["poweroff", "node1"])?;
        left.reaches("node2", "ALONE Ready", SOON)?;
        right.reaches("node2", "ALONE Ready", SOON)?;
        ensure!(holds(cluster, "node2", 51)? && holds(cluster, "node2", 52)?);
        ensure!(right.application("node2")? == pid, "the module that served already was restarted");
        let said = right.messages("node2", "").split_off(untouched);
        ensure!(!said.iter().any(|line| line.starts_with("Script start_prim")), "{said:#?}");

        // The crossed default primaries bring both back to where they belong.
        cluster.lab.run(&["boot", "node1"])?;
        left.logged("node2", "Transition SWAP from defaultprim", 1)?;
        left.pair("node1", "node2")?;
        right.pair("node2", "node1")?;
        ensure!(right.application("node2")? == pid, "the module that served already was restarted");
        runs_on(&left, "node1", "node2")?;
        ensure!(holds(cluster, "node1", 51)? && holds(cluster, "node2", 52)?);
        left.replays()?;
        right.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn n_minus_1_one_host_stands_by_for_two() -> Result<()> {
    Cluster::up("n-1", 3)?.scenario(|cluster| {
        let spec = |name: &str, id, node| {
            Spec::mirror(name).id(id).between(node, 3).service(&format!(r#"boot="auto" defaultprim="node{node}""#))
        };
        let one = cluster.configure(&spec("one", 1, 1))?;
        let two = cluster.configure(&spec("two", 2, 2))?;
        one.start_pair()?;
        two.start_pair()?;
        cluster.lab.run(&["poweroff", "node1"])?;
        one.reaches("node3", "ALONE Ready", SOON)?;
        two.pair("node2", "node3")?;
        runs_on(&two, "node2", "node3")?;
        cluster.lab.run(&["poweroff", "node2"])?;
        two.reaches("node3", "ALONE Ready", SOON)?;
        ensure!(one.application("node3")?.len() == 1 && two.application("node3")?.len() == 1);
        cluster.lab.run(&["boot", "node2"])?;
        two.pair("node2", "node3")?;
        one.reaches("node3", "ALONE Ready", SOON)?;
        cluster.lab.run(&["boot", "node1"])?;
        one.pair("node1", "node3")?;
        runs_on(&one, "node1", "node3")?;
        runs_on(&two, "node2", "node3")?;
        one.replays()?;
        two.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_dependent_mirror_waits_for_the_other_and_follows_its_failover() -> Result<()> {
    Cluster::up("depends", 2)?.scenario(|cluster| {
        let health =
            |node: &str| cluster.lab.sh(node, "setsid /opt/sk/bin/sk-health serve </dev/null >/dev/null 2>&1 &");
        health("node1")?;
        health("node2")?;
        let checker = format!(
            r#"<check><module name="db" ident="db"><to addr="{}.60" interval="2" timeout="5"/></module></check>"#,
            cluster.network()
        );
        let service = r#"boot="auto" maxloop="10""#;
        let db = cluster.configure(&Spec::mirror("db").id(1).vip(60))?;
        let app = cluster.configure(&Spec::mirror("app").id(2).without_rfs().service(service).body(&checker))?;
        db.start_pair()?;
        app.start_pair()?;
        // The other fails over: whatever its checker saw in between, the dependent module serves again.
        cluster.lab.run(&["poweroff", "node1"])?;
        db.reaches("node2", "ALONE Ready", SOON)?;
        app.reaches("node2", "ALONE Ready", LATER)?;
        cluster.lab.run(&["boot", "node1"])?;
        health("node1")?;
        db.pair("node2", "node1")?;
        wait::until("the dependent module is a pair again", LATER, || {
            let (one, two) = (app.state("node1")?, app.state("node2")?);
            let seen = format!("{} {} {} {}", one.state, one.readiness, two.state, two.readiness);
            let pair = ["PRIM Ready SECOND Ready", "SECOND Ready PRIM Ready"].contains(&seen.as_str());
            if pair { Ok(()) } else { Err(seen) }
        })?;
        // Without the other it waits everywhere, and wakes with it.
        db.order("node1", &["stop", "--wait"])?;
        db.order("node2", &["stop", "--wait"])?;
        app.blocked("node1", "module_failure")?;
        app.blocked("node2", "module_failure")?;
        ensure!(app.application("node1")?.is_empty() && app.application("node2")?.is_empty());
        db.everywhere(&["start"])?;
        wait::until("the dependent module serves again", LATER, || {
            let (one, two) = (app.state("node1")?, app.state("node2")?);
            let serves = |state: &str| matches!(state, "PRIM" | "ALONE");
            if serves(&one.state) || serves(&two.state) { Ok(()) } else { Err(format!("{} {}", one.state, two.state)) }
        })?;
        app.replays()
    })
}

/// `count` mirrors on one pair: every second one with a directory, the others without. The first half has its primary on
/// node1, the other on node2.
fn crowd(count: usize) -> Result<()> {
    Cluster::up(&format!("crowd{count}"), 2)?.scenario(|cluster| {
        let mut modules = Vec::new();
        for number in 1..=count {
            let spec = Spec::mirror(&format!("m{number}")).id(u32::try_from(number)?);
            modules.push(cluster.configure(&if number % 2 == 0 { spec } else { spec.without_rfs() })?);
        }
        let home = |number: usize| if number < count / 2 { ("node1", "node2") } else { ("node2", "node1") };
        for (number, module) in modules.iter().enumerate() {
            module.order(home(number).0, &["prim"])?;
        }
        for (number, module) in modules.iter().enumerate() {
            module.reaches(home(number).0, "ALONE Ready", LATER)?;
            module.order(home(number).1, &["second"])?;
        }
        for (number, module) in modules.iter().enumerate() {
            module.pair(home(number).0, home(number).1)?;
            let file = format!("{}/name", module.directory());
            cluster.lab.sh(home(number).0, &format!("echo {} >{file}; sync {file}", module.name()))?;
        }
        let mut applications = Vec::new();
        for module in modules.iter().skip(count / 2) {
            applications.push(module.application("node2")?);
        }
        cluster.lab.run(&["poweroff", "node1"])?;
        for (number, module) in modules.iter().enumerate() {
            module.reaches("node2", "ALONE Ready", LATER)?;
            ensure!(module.application("node2")?.len() == 1, "{} runs not once", module.name());
            if number % 2 == 1 {
                let name = cluster.lab.read("node2", &format!("{}/name", module.directory()));
                ensure!(name.as_deref() == Some(&format!("{}\n", module.name())), "{}: {name:?}", module.name());
            }
        }
        for (module, before) in modules.iter().skip(count / 2).zip(&applications) {
            ensure!(module.application("node2")? == *before, "{} was restarted", module.name());
        }
        cluster.lab.run(&["boot", "node1"])?;
        for module in &modules {
            module.pair("node2", "node1")?;
        }
        // Every decision of every module is its own: it can be taken again from its journal alone.
        modules.iter().try_for_each(Module::replays)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn eight_modules_on_a_pair_fail_over_each_for_itself() -> Result<()> {
    crowd(8)
}

/// By hand: `SK_CROWD=32 cargo nextest run -p conformance --test modules --run-ignored all as_many_modules`.
#[test]
#[ignore = "needs root and a lab; with SK_CROWD=32 it takes minutes: scripts/test runs it with two"]
fn as_many_modules_on_a_pair_as_sk_crowd_says() -> Result<()> {
    crowd(std::env::var("SK_CROWD").ok().map_or(Ok(2), |count| count.parse()).context("SK_CROWD is no number")?)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn modules_that_would_share_something_are_refused() -> Result<()> {
    Cluster::up("shared", 2)?.scenario(|cluster| {
        cluster.configure(&Spec::mirror("first").vip(50))?;
        let refused = |spec: &Spec, id: &str, words: &[&str]| -> Result<()> {
            let module = cluster.written(spec)?;
            let said = module.refused("node1", &["config", "--id", id], 2)?;
            for word in words {
                ensure!(said.contains(word), "{word:?} is not in: {said}");
            }
            Ok(())
        };
        let second = || Spec::mirror("second");
        refused(&second(), "1", &["module first already has the id 1"])?;
        refused(&second().vip(50), "2", &[&format!("{}.50", cluster.network()), "first"])?;
        refused(
            &second().replicating("/srv/first/data/inner"),
            "2",
            &["/srv/first/data/inner", "/srv/first/data", "first"],
        )?;
        refused(&second().replicating("/srv"), "2", &["/srv/first/data", "first"])?;
        cluster.lab.sh("node1", "ln -s /srv/first/data /srv/elsewhere")?;
        refused(&second().replicating("/srv/elsewhere"), "2", &["/srv/first/data", "first"])?;
        // Nothing in common: accepted, and configured again.
        let module = cluster.configure(&second().id(2).vip(51))?;
        wait::until("configured again", SOON, || {
            module.order("node1", &["config"]).map(drop).map_err(|error| format!("{error:#}"))
        })
    })
}
