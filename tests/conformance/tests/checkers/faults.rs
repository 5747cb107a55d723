//! Beyond the list: checkers that die or hang, rules about the other node, services, a configuration that changes.

use super::{end, flag, flag_checker, listening, open, paired, quiet, spec};
use anyhow::{Context, Result, ensure};
use conformance::{Cluster, LATER, SOON, Spec, wait};
use std::time::Duration;

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn killed_checkers_are_replaced_and_what_they_saw_counts_on() -> Result<()> {
    Cluster::up("c-kill", 2)?.scenario(|cluster| {
        let body = r#"<check><tcp ident="web" when="prim" action="restart"><to addr="127.0.0.1" port="7020" interval="1" timeout="2"/></tcp>
            <custom ident="flag" when="pre" exec="checkflag" action="wait"/></check>
            <errd polltimer="10"><proc name="app-app" class="prim" action="noaction"/></errd>"#;
        let spec = listening(spec("app", body), 7020).script("checkflag", &flag_checker("flagcheck"));
        let module = paired(cluster, &spec)?;
        module.resource_is("node1", "tcp.web", "up")?;
        let custom = |node: &str| -> Result<Vec<String>> {
            // The leaders of their groups: a shell that forks has the same command line for a moment.
            let line = "ps -eo pid=,pgid=,args= | awk '$1 == $2 && /[c]heckflag app custom.flag/ { print $1 }'";
            Ok(cluster.lab.sh(node, line)?.split_whitespace().map(str::to_owned).collect())
        };
        let old = custom("node1")?;
        ensure!(old.len() == 1, "{old:?}");
        // The process of all checkers: the runner starts it again, and the custom checker is not there twice.
        module.kill("node1", "sk-check run")?;
        module.logged("node1", "sk-check ended unexpectedly", 1)?;
        let wait_for_new = |before: &[String]| {
            wait::until("one custom checker, a new one", SOON, || {
                let now = custom("node1").map_err(|e| format!("{e:#}"))?;
                if now.len() == 1 && now != before { Ok(now) } else { Err(format!("{now:?}")) }
            })
        };
        let second = wait_for_new(&old)?;
        // A custom checker alone: started again after a second, and said.
        cluster.lab.exec("node1", &["kill", "-KILL", second.first().context("no checker")?])?;
        module.logged("node1", "Custom checker custom.flag ended by itself (signal 9)", 1)?;
        wait_for_new(&second)?;
        quiet(&module, "node1", "PRIM Ready", Duration::from_secs(3))?;
        // Both see as before.
        end(cluster, "node1", 7020)?;
        module.logged("node1", "Action restart from failover rule t_web", 1)?;
        module.reaches("node1", "PRIM Ready", SOON)?;
        flag(cluster, &module, "node1", "down")?;
        module.blocked("node1", "c_flag")?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        flag(cluster, &module, "node1", "up")?;
        module.pair("node2", "node1")?;
        // One that was stopped checks nothing: it is replaced, and the fault is seen.
        for program in ["check", "errd"] {
            cluster.lab.sh("node2", &format!("pkill -STOP -f '[s]k-{program} run --spec /run/sk/app/'"))?;
        }
        let stopped = custom("node1")?;
        cluster.lab.exec("node1", &["kill", "-STOP", stopped.first().context("no checker")?])?;
        end(cluster, "node2", 7020)?;
        wait::until("the stopped process is replaced and sees the fault", LATER, || {
            let log = module.log("node2");
            let replaced = log.contains("sk-check has not answered for 20 s");
            if replaced && log.contains("Action restart from failover rule t_web") { Ok(()) } else { Err("not yet".into()) }
        })?;
        module.logged("node2", "sk-errd has not answered for 20 s", 1)?;
        module.logged("node1", "Custom checker custom.flag was stopped by a signal and checks nothing", 1)?;
        wait_for_new(&stopped)?;
        // A runner that is killed leaves no checker behind.
        module.kill("node1", "sk-module run")?;
        wait::until("the checkers end with their runner", SOON, || {
            let left = custom("node1").map_err(|e| format!("{e:#}"))?;
            if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
        })?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_rule_sees_the_resources_of_the_other_node() -> Result<()> {
    Cluster::up("c-remote", 2)?.scenario(|cluster| {
        let body = r#"<check><custom ident="flag" when="pre" exec="checkflag" action="noaction"/></check>
            <failover><![CDATA[
              better_there: if (custom.flag == down && remote.custom.flag == up) then swap();
              both_bad: if (custom.flag == down && remote.custom.flag == down) then restart();
            ]]></failover>"#;
        let module = paired(cluster, &spec("app", body).script("checkflag", &flag_checker("flagcheck")))?;
        for node in ["node1", "node2"] {
            module.resource_is(node, "custom.flag", "up")?;
        }
        flag(cluster, &module, "node1", "down")?;
        module.logged("node1", "Action swap from failover rule better_there", 1)?;
        module.pair("node2", "node1")?;
        // Now both: the primary's application is restarted.
        flag(cluster, &module, "node2", "down")?;
        module.logged("node2", "Action restart from failover rule both_bad", 1)?;
        let rules = module.order("node2", &["rules", "--json"])?;
        ensure!(rules.lines().any(|l| l.contains("both_bad") && l.contains("\"truth\":true")), "{rules}");
        flag(cluster, &module, "node2", "up")?;
        module.order("node1", &["stop", "--wait"])?;
        let rules = module.order("node2", &["rules", "--json"])?;
        ensure!(rules.lines().any(|l| l.contains("better_there") && l.contains("\"truth\":false")), "{rules}");
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_service_that_stops_is_restarted_alone_by_the_scripts() -> Result<()> {
    Cluster::up("c-service", 2)?.scenario(|cluster| {
        let body = r#"<errd polltimer="1"><proc name="db" service="yes" class="both" action="restart" restart_services="db, pool"/></errd>"#;
        let file = format!(r#"<safe><service mode="light"><user/>{body}</service></safe>"#);
        let module = cluster.configure(
            &Spec::whole("app", &["node1"], &file, &["prestart", "start_both", "stop_both"]).id(1),
        )?;
        let answer = |state: &str| -> Result<()> {
            let line = format!("printf 'Id=db.service\\nActiveState={state}\\nMainPID=0\\n' >/srv/app/new; mv /srv/app/new /srv/app/answer");
            cluster.lab.sh("node1", &line).map(drop)
        };
        cluster.lab.sh("node1", "printf '#!/bin/sh\\nexec cat /srv/app/answer\\n' >/srv/app/systemctl; chmod +x /srv/app/systemctl")?;
        answer("active")?;
        cluster.lab.exec("node1", &["env", "SK_SYSTEMCTL=/srv/app/systemctl", "sk-module", "start", "-m", "app", "--wait"])?;
        module.resource_is("node1", "proc.db", "up")?;
        answer("failed")?;
        module.logged("node1", "Service db not running", 1)?;
        module.logged("node1", "Action restart called by errd", 1)?;
        answer("active")?;
        module.reaches("node1", "UP Ready", SOON)?;
        wait::until("the scripts know which services", SOON, || {
            let calls = module.calls("node1").map_err(|e| format!("{e:#}"))?;
            let told = |script: &str| {
                calls.iter().any(|c| c.words.starts_with(script) && c.words.ends_with("-Services db, pool"))
            };
            if told("stop_both") && told("start_both") { Ok(()) } else { Err(format!("{calls:?}")) }
        })?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn checkers_come_and_go_while_the_module_runs() -> Result<()> {
    Cluster::up("c-dynamic", 2)?.scenario(|cluster| {
        let check = |ident: &str, port: u16| {
            format!(
                r#"<tcp ident="{ident}" when="both" action="restart"><to addr="127.0.0.1" port="{port}" interval="1" timeout="2"/></tcp>"#
            )
        };
        let file =
            |checks: &str| format!(r#"<safe><service mode="light"><user/><check>{checks}</check></service></safe>"#);
        let whole = |checks: &str| {
            Spec::whole("app", &["node1"], &file(checks), &["prestart", "start_both", "stop_both"]).id(1)
        };
        for port in [7031, 7032] {
            open(cluster, "node1", port)?;
        }
        let module = cluster.configure(&whole(&check("one", 7031)))?;
        module.order("node1", &["start", "--wait"])?;
        module.resource_is("node1", "tcp.one", "up")?;
        cluster.written(&whole(&format!("{}{}", check("one", 7031), check("two", 7032))))?;
        module.order("node1", &["config"])?;
        module.resource_is("node1", "tcp.two", "up")?;
        module.resource_is("node1", "tcp.one", "up")?;
        end(cluster, "node1", 7032)?;
        module.logged("node1", "Action restart from failover rule t_two", 1)?;
        open(cluster, "node1", 7032)?;
        module.reaches("node1", "UP Ready", SOON)?;
        module.resource_is("node1", "tcp.two", "up")?;
        // Without it again: what it would see changes nothing.
        cluster.written(&whole(&check("one", 7031)))?;
        module.order("node1", &["config"])?;
        module.resource_is("node1", "tcp.two", "init")?;
        let rules = module.order("node1", &["rules"])?;
        ensure!(rules.contains("t_one") && !rules.contains("t_two"), "{rules}");
        end(cluster, "node1", 7032)?;
        quiet(&module, "node1", "UP Ready", Duration::from_secs(3))?;
        module.replays()
    })
}
