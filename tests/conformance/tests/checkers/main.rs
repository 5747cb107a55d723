//! Cases C1–C15 of the conformance list: checkers, process monitoring, failover rules.

mod faults;

use anyhow::{Context, Result, bail, ensure};
use conformance::{Cluster, LATER, Module, SOON, Spec, wait};
use std::time::{Duration, Instant};

/// Two heartbeats; no directories, so that roles change at once.
fn spec(name: &str, body: &str) -> Spec {
    Spec::mirror(name)
        .without_rfs()
        .heart(r#"<heart pulse="300ms" timeout="2000ms"><heartbeat name="default"/><heartbeat name="repl"/></heart>"#)
        .body(body)
}

/// node1 PRIM, node2 SECOND.
fn paired<'a>(cluster: &'a Cluster, spec: &Spec) -> Result<Module<'a>> {
    let module = cluster.configure(spec)?;
    module.start_pair()?;
    Ok(module)
}

/// The application of a module that listens on a port, and its scripts.
fn listening(spec: Spec, port: u16) -> Spec {
    let start = format!(
        "#!/bin/sh\nexec 0</dev/null >/dev/null 2>&1\nsetsid /opt/sk/bin/sk-health serve --listen 0.0.0.0:{port} &\nexit 0\n"
    );
    spec.script("start_prim", &start).script("stop_prim", &close(port))
}

/// Closes the port: the application is there no more.
fn close(port: u16) -> String {
    format!("#!/bin/sh\npkill -f 'sk-health serve --listen 0.0.0.0:{port}'\nexit 0\n")
}

fn end(cluster: &Cluster, node: &str, port: u16) -> Result<()> {
    cluster.lab.sh(node, &format!("pkill -f '[s]k-health serve --listen 0.0.0.0:{port}'")).map(drop)
}

fn open(cluster: &Cluster, node: &str, port: u16) -> Result<()> {
    let line = format!("setsid /opt/sk/bin/sk-health serve --listen 0.0.0.0:{port} </dev/null >/dev/null 2>&1 &");
    cluster.lab.sh(node, &line).map(drop)
}

/// Kills the application and waits until the module has seen it.
fn kill_application(cluster: &Cluster, module: &Module<'_>, node: &str) -> Result<()> {
    wait::until("the application runs", SOON, || match module.application(node) {
        Ok(pids) if pids.len() == 1 => Ok(()),
        other => Err(format!("{other:?}")),
    })?;
    cluster.lab.exec(node, &["pkill", "-KILL", "-x", &module.process()]).map(drop)
}

/// An own checker: reports what the file `/srv/MODULE/flag` holds (`up` without it), at each change.
fn flag_checker(identity: &str) -> String {
    format!(
        "#!/bin/sh\nlast=\nwhile :; do\n  now=$(cat /srv/$1/flag 2>/dev/null || echo up)\n  if [ \"$now\" != \"$last\" ]; then\n    \
         $SAFE/safekit set -r $2 -v $now -i {identity} && last=$now\n  fi\n  sleep 0.2\ndone\n"
    )
}

fn flag(cluster: &Cluster, module: &Module<'_>, node: &str, value: &str) -> Result<()> {
    cluster.lab.sh(node, &format!("echo {value} >/srv/{}/flag", module.name())).map(drop)
}

/// Nothing that begins an action is logged, and the state stays, for this long.
fn quiet(module: &Module<'_>, node: &str, state: &str, lasting: Duration) -> Result<()> {
    let before = module.log(node).len();
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        module.reaches(node, state, Duration::ZERO)?;
        std::thread::sleep(Duration::from_millis(200));
    }
    let log = module.log(node);
    let new = log.get(before..).unwrap_or_default();
    ensure!(!new.contains("Action "), "something was done: {new}");
    Ok(())
}

fn errd(module: &str, action: &str) -> String {
    format!(r#"<errd polltimer="1"><proc name="app-{module}" class="prim" action="{action}" atleast="1"/></errd>"#)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c01_a_killed_process_is_restarted_in_its_state() -> Result<()> {
    Cluster::up("c01", 2)?.scenario(|cluster| {
        let module = paired(cluster, &spec("app", &errd("app", "restart")))?;
        kill_application(cluster, &module, "node1")?;
        module.logged("node1", "Action restart called by errd", 1)?;
        module.reaches("node1", "PRIM Ready", SOON)?;
        module.in_order(
            "node1",
            "Process app-app not running",
            &[
                "Process app-app not running",
                "Action restart called by errd",
                "Resource proc.app-app set to down by errd",
                "Local state PRIM Transient",
                "Script stop_prim",
                "Script stop_prim \"force\"",
                "Script start_prim",
                "Local state PRIM Ready",
            ],
        )?;
        ensure!(module.times("node2", "start_prim")? == 0);
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c02_a_killed_process_moves_the_application() -> Result<()> {
    Cluster::up("c02", 2)?.scenario(|cluster| {
        let module = paired(cluster, &spec("app", &errd("app", "stopstart")))?;
        kill_application(cluster, &module, "node1")?;
        module.pair("node2", "node1")?;
        module.in_order(
            "node1",
            "Process app-app not running",
            &[
                "Action stopstart called by errd",
                "Local state STOP NotReady",
                "Action start called automatically",
                "Local state SECOND Ready",
            ],
        )?;
        ensure!(module.last("node1", "end", "stop_prim")? > 0 && module.times("node2", "start_prim")? == 1);
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c03_the_fourth_restart_stops_the_module() -> Result<()> {
    Cluster::up("c03", 2)?.scenario(|cluster| {
        let module = paired(cluster, &spec("app", &errd("app", "restart")))?;
        for round in 1..=3 {
            kill_application(cluster, &module, "node1")?;
            module.logged("node1", "Action restart called by errd", round)?;
            module.logged("node1", "Local state PRIM Ready", round + 1)?;
            module.resource_is("node1", "proc.app-app", "up")?;
        }
        kill_application(cluster, &module, "node1")?;
        module.reaches("node1", "STOP NotReady", SOON)?;
        module.logged("node1", "Action stop called by maxloop", 1)?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c04_a_closed_port_restarts_or_moves_the_application() -> Result<()> {
    Cluster::up("c04", 2)?.scenario(|cluster| {
        let check = |action: &str| {
            format!(
                r#"<check><tcp ident="web" when="prim" action="{action}"><to addr="127.0.0.1" port="7001" interval="1" timeout="2"/></tcp></check>"#
            )
        };
        let module = paired(cluster, &listening(spec("app", &check("restart")), 7001))?;
        module.resource_is("node1", "tcp.web", "up")?;
        ensure!(module.resource("node2", "tcp.web")? == "init", "the checker runs where the application does");
        end(cluster, "node1", 7001)?;
        module.logged("node1", "Action restart from failover rule t_web", 1)?;
        module.reaches("node1", "PRIM Ready", SOON)?;
        module.in_order("node1", "Resource tcp.web set to down by tcpcheck", &[
            "Resource tcp.web set to down by tcpcheck",
            "Action restart from failover rule t_web",
            "Local state PRIM Transient",
            "Script stop_prim",
            "Script start_prim",
            "Local state PRIM Ready",
        ])?;
        module.resource_is("node1", "tcp.web", "up")?;
        module.replays()?;
        for node in ["node2", "node1"] {
            module.order(node, &["stop", "--wait"])?;
        }

        let module = paired(cluster, &listening(spec("app", &check("stopstart")), 7001))?;
        module.resource_is("node1", "tcp.web", "up")?;
        end(cluster, "node1", 7001)?;
        module.logged("node1", "Action stopstart from failover rule t_web", 1)?;
        module.pair("node2", "node1")?;
        module.resource_is("node2", "tcp.web", "up")
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c05_an_external_service_is_waited_for() -> Result<()> {
    Cluster::up("c05", 2)?.scenario(|cluster| {
        let service = cluster.lab.address("client", "prod")?;
        let body = format!(
            r#"<check><tcp ident="outside" when="pre" action="wait"><to addr="{service}" port="7005" interval="1" timeout="2"/></tcp></check>"#
        );
        let module = cluster.configure(&spec("app", &body))?;
        module.everywhere(&["start"])?;
        for node in ["node1", "node2"] {
            module.blocked(node, "t_outside")?;
            module.logged(node, "Action wait from failover rule t_outside", 1)?;
        }
        ensure!(module.times("node1", "start_prim")? + module.times("node2", "start_prim")? == 0);
        open(cluster, "client", 7005)?;
        module.pair("node1", "node2")?;
        for node in ["node1", "node2"] {
            module.in_order(node, "Action wait from failover rule t_outside", &[
                "Action wakeup from failover rule Implicit_wakeup",
            ])?;
            module.logged(node, "Resource tcp.outside set to up by tcpcheck", 1)?;
        }
        end(cluster, "client", 7005)?;
        for node in ["node1", "node2"] {
            module.blocked(node, "t_outside")?;
            module.logged(node, "Resource tcp.outside set to down by tcpcheck", 2)?;
        }
        open(cluster, "client", 7005)?;
        for node in ["node1", "node2"] {
            module.logged(node, "Action wakeup from failover rule Implicit_wakeup", 2)?;
        }
        wait::until("one serves and the other follows", LATER, || {
            let mut states: Vec<String> = Vec::new();
            for node in ["node1", "node2"] {
                let state = module.state(node)?;
                states.push(format!("{} {}", state.state, state.readiness));
            }
            states.sort();
            if states == ["PRIM Ready", "SECOND Ready"] { Ok(()) } else { Err(states.join(", ")) }
        })?;
        module.replays()
    })
}

/// A mirror whose virtual address is on a network of its own, `clients0`, with a cable that can be pulled.
fn with_clients_network(cluster: &Cluster, name: &str) -> Result<Spec> {
    for (node, last) in [("node1", 1), ("node2", 2)] {
        let line = format!(
            "ip link add clients0 type veth peer name cable0 && ip address add 10.9.9.{last}/24 dev clients0 && \
             ip link set clients0 up && ip link set cable0 up"
        );
        cluster.lab.sh(node, &line)?;
    }
    let file = r#"<safe><service mode="mirror" boot="auto">
      <heart pulse="300ms" timeout="2000ms"><heartbeat name="default"/><heartbeat name="repl"/></heart>
      <vip><interface_list><interface check="on"><real_interface>
        <virtual_addr addr="10.9.9.50" where="one_side_alias"/>
      </real_interface></interface></interface_list></vip>
      <user/>
    </service></safe>"#;
    Ok(Spec::whole(name, &["node1", "node2"], file, &["prestart", "start_prim", "stop_prim"]))
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c06_an_unplugged_interface_makes_wait_until_it_is_plugged_in() -> Result<()> {
    Cluster::up("c06", 2)?.scenario(|cluster| {
        let module = paired(cluster, &with_clients_network(cluster, "app")?)?;
        module.resource_is("node1", "intf.10.9.9.0", "up")?;
        cluster.lab.sh("node1", "ip link set cable0 down")?;
        module.blocked("node1", "interface_failure")?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        module.in_order(
            "node1",
            "Resource intf.10.9.9.0 set to down by intfcheck",
            &[
                "Resource intf.10.9.9.0 set to down by intfcheck",
                "Action wait from failover rule interface_failure",
                "Script stop_prim",
                "Local state WAIT NotReady",
            ],
        )?;
        cluster.lab.sh("node1", "ip link set cable0 up")?;
        module.logged("node1", "Action wakeup from failover rule Implicit_wakeup", 1)?;
        module.pair("node2", "node1")?;
        module.replays()
    })
}

/// SafeKit stops the module here; this product waits, and comes back when the interface does (docs/differences.md).
#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c07_a_disabled_interface_that_also_carries_a_heartbeat_makes_wait() -> Result<()> {
    Cluster::up("c07", 2)?.scenario(|cluster| {
        let module = paired(cluster, &spec("app", "").vip(50))?;
        let name = format!("intf.{}.0", cluster.network());
        cluster.lab.sh("node1", "ip link set eth0 down")?;
        module.blocked("node1", "interface_failure")?;
        ensure!(module.resource("node1", &name)? == "down");
        module.reaches("node2", "ALONE Ready", LATER)?;
        cluster.lab.sh("node1", "ip link set eth0 up")?;
        module.logged("node1", "Action wakeup from failover rule Implicit_wakeup", 1)?;
        module.pair("node2", "node1")
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c08_a_host_that_does_not_answer_is_waited_for() -> Result<()> {
    Cluster::up("c08", 2)?.scenario(|cluster| {
        let witness = cluster.lab.address("witness", "prod")?;
        let body = format!(r#"<check><ping ident="gw"><to addr="{witness}" interval="1" timeout="1"/></ping></check>"#);
        let module = paired(cluster, &spec("app", &body))?;
        cluster.lab.run(&["cut", "node1", "witness"])?;
        module.blocked("node1", "p_gw")?;
        module.in_order(
            "node1",
            "Resource ping.gw set to down by pingcheck",
            &["Resource ping.gw set to down by pingcheck", "Action wait from failover rule p_gw"],
        )?;
        module.reaches("node2", "ALONE Ready", LATER)?;
        cluster.lab.run(&["heal"])?;
        module.logged("node1", "Resource ping.gw set to up by pingcheck", 2)?;
        module.logged("node1", "Action wakeup from failover rule Implicit_wakeup", 1)?;
        module.pair("node2", "node1")?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c09_a_dependent_module_follows_the_other() -> Result<()> {
    Cluster::up("c09", 2)?.scenario(|cluster| {
        cluster.lab.sh("node1", "setsid /opt/sk/bin/sk-health serve </dev/null >/dev/null 2>&1 &")?;
        let light = |body: &str| format!(r#"<safe><service mode="light"><user/>{body}</service></safe>"#);
        let scripts = ["prestart", "start_both", "stop_both"];
        let leader = cluster.configure(&Spec::whole("leader", &["node1"], &light(""), &scripts).id(1))?;
        let depends =
            light(r#"<check><module name="leader" ident="leader"><to interval="2" timeout="5"/></module></check>"#);
        let follower = cluster.configure(&Spec::whole("follower", &["node1"], &depends, &scripts).id(2))?;
        follower.order("node1", &["start"])?;
        follower.blocked("node1", "module_failure")?;
        leader.order("node1", &["start", "--wait"])?;
        follower.reaches("node1", "UP Ready", LATER)?;
        follower.logged("node1", "Action wakeup from failover rule Implicit_wakeup", 1)?;
        leader.order("node1", &["stop", "--wait"])?;
        follower.blocked("node1", "module_failure")?;
        follower.logged("node1", "Resource module.leader set to down by modulecheck", 2)?;
        leader.order("node1", &["start", "--wait"])?;
        follower.reaches("node1", "UP Ready", LATER)?;
        // A restart that is over before it is seen as a failure.
        for _ in 0..5 {
            follower.reaches("node1", "UP Ready", LATER)?;
            follower.resource_is("node1", "module.leader", "up")?;
            leader.order("node1", &["restart", "--wait"])?;
            let seen = wait::until("the restart is noticed", SOON, || {
                let log = follower.log("node1");
                if log.contains("Action stopstart called by modulecheck") {
                    Ok(true)
                } else if log.matches("Resource module.leader set to down by modulecheck").count() > 2 {
                    Ok(false)
                } else {
                    Err("neither noticed nor seen as a failure".to_owned())
                }
            })?;
            if seen {
                follower.logged("node1", "Action start called automatically", 1)?;
                follower.reaches("node1", "UP Ready", LATER)?;
                return follower.replays();
            }
        }
        bail!("no restart of the other module was noticed as such")
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c10_an_own_checker_makes_wait_by_its_action_or_by_a_rule() -> Result<()> {
    Cluster::up("c10", 2)?.scenario(|cluster| {
        let custom = |action: &str| {
            format!(r#"<check><custom ident="flag" when="pre" exec="checkflag" arg="10 2" action="{action}"/></check>"#)
        };
        let own = format!(
            "{}<failover><![CDATA[\n /* by a rule of the module */\n my_flag: if (custom.flag == down) then wait();\n]]></failover>",
            custom("noaction")
        );
        for (body, rule) in [(custom("wait"), "c_flag"), (own, "my_flag")] {
            let module = paired(cluster, &spec("app", &body).script("checkflag", &flag_checker("flagcheck")))?;
            flag(cluster, &module, "node1", "down")?;
            module.blocked("node1", rule)?;
            module.in_order("node1", "Resource custom.flag set to down by flagcheck", &[
                "Resource custom.flag set to down by flagcheck",
                &format!("Action wait from failover rule {rule}"),
            ])?;
            module.reaches("node2", "ALONE Ready", LATER)?;
            let rules = module.order("node1", &["rules"])?;
            let line = rules.lines().find(|l| l.starts_with(rule)).context("the rule is not shown")?;
            ensure!(line.contains("acting") && line.contains("custom.flag == down"), "{rules}");
            flag(cluster, &module, "node1", "up")?;
            module.pair("node2", "node1")?;
            for node in ["node1", "node2"] {
                module.order(node, &["stop", "--wait"])?;
                let left = cluster.lab.try_exec(node, &["pgrep", "-f", "checkflag app custom.flag 10 2"])?;
                ensure!(!left.status.success(), "the checker still runs on {node}");
            }
            module.replays()?;
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c11_an_own_checker_restarts_by_a_rule_or_by_a_command() -> Result<()> {
    Cluster::up("c11", 2)?.scenario(|cluster| {
        let body = |action: &str| {
            format!(r#"<check><custom ident="flag" when="prim" exec="checkflag" action="{action}"/></check>"#)
        };
        // By its rule.
        let module = paired(cluster, &spec("app", &body("restart")).script("checkflag", &flag_checker("flagcheck")))?;
        module.resource_is("node1", "custom.flag", "up")?;
        flag(cluster, &module, "node1", "down")?;
        module.logged("node1", "Action restart from failover rule c_flag", 1)?;
        flag(cluster, &module, "node1", "up")?;
        module.reaches("node1", "PRIM Ready", SOON)?;
        for node in ["node2", "node1"] {
            module.order(node, &["stop", "--wait"])?;
        }
        // By commands: with -i counted, without not.
        let command = |identity: &str| {
            format!(
                "#!/bin/sh\n$SAFE/safekit set -r $2 -v up -i mycheck\nwhile :; do\n  if [ -e /srv/$1/fault ]; then rm /srv/$1/fault; \
                 $SAFE/safekit restart {identity}; fi\n  sleep 0.1\ndone\n"
            )
        };
        for (identity, origin, counted) in [("-i mycheck", "mycheck", true), ("", "root", false)] {
            let module =
                paired(cluster, &spec("app", &body("noaction")).script("checkflag", &command(identity)))?;
            let message = format!("Action restart called by {origin}");
            let before = module.log("node1").matches(&message).count();
            for round in 1..=3 {
                let ready = module.log("node1").matches("Local state PRIM Ready").count();
                module.resource_is("node1", "custom.flag", "up")?;
                cluster.lab.sh("node1", "touch /srv/app/fault")?;
                module.logged("node1", &message, before + round)?;
                module.logged("node1", "Local state PRIM Ready", ready + 1)?;
            }
            let reached = cluster.lab.try_exec("node1", &["sk-module", "checkloop", "-m", "app"])?;
            ensure!(reached.status.code() == Some(i32::from(counted)), "counted: {reached:?}");
            for node in ["node2", "node1"] {
                module.order(node, &["stop", "--wait"])?;
            }
        }
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c12_an_address_removed_by_hand_moves_the_application() -> Result<()> {
    Cluster::up("c12", 2)?.scenario(|cluster| {
        let module = paired(cluster, &spec("app", "").vip(50))?;
        let address = format!("{}.50", cluster.network());
        module.resource_is("node1", &format!("ip.{address}"), "up")?;
        for node in ["node1", "node2"] {
            module.resource_is(node, &format!("connections.{address}"), "0")?;
        }
        cluster.lab.sh("node1", &format!("ip address del {address}/24 dev eth0"))?;
        module.logged("node1", "Action stopstart from failover rule ip_failure", 1)?;
        module.pair("node2", "node1")?;
        module.in_order(
            "node1",
            &format!("Resource ip.{address} set to down by ipcheck"),
            &[
                &format!("Resource ip.{address} set to down by ipcheck"),
                "Action stopstart from failover rule ip_failure",
                "Script stop_prim",
                "Action start called automatically",
            ],
        )?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c13_switched_off_checkers_and_supervision_do_nothing() -> Result<()> {
    Cluster::up("c13", 2)?.scenario(|cluster| {
        let body = format!(
            r#"{}<check><tcp ident="web" when="prim"><to addr="127.0.0.1" port="7013" interval="1" timeout="1"/></tcp>
               <custom ident="flag" when="pre" exec="checkflag" action="wait"/></check>"#,
            errd("app", "restart")
        );
        let start = format!("#!/bin/sh\nexec 0</dev/null >/dev/null 2>&1\nsetsid /srv/app/app-app 100000 &\n{}", {
            "setsid /opt/sk/bin/sk-health serve --listen 0.0.0.0:7013 &\nexit 0\n"
        });
        let stop = format!("{}pkill -x app-app\nexit 0\n", close(7013).replace("exit 0\n", ""));
        let spec = spec("app", &body)
            .vip(50)
            .script("start_prim", &start)
            .script("stop_prim", &stop)
            .script("checkflag", &flag_checker("flagcheck"));
        let module = paired(cluster, &spec)?;
        let address = format!("{}.50", cluster.network());
        let faults = |node: &str| -> Result<()> {
            end(cluster, node, 7013)?;
            cluster.lab.exec(node, &["pkill", "-KILL", "-x", "app-app"])?;
            cluster.lab.sh(node, &format!("ip address del {address}/24 dev eth0"))?;
            flag(cluster, &module, node, "down")
        };
        module.resource_is("node1", "tcp.web", "up")?;
        module.order("node1", &["checker", "off"])?;
        module.order("node1", &["errd", "off"])?;
        module.resource_is("node1", "usersetting.checker", "off")?;
        module.resource_is("node1", "tcp.web", "init")?;
        faults("node1")?;
        quiet(&module, "node1", "PRIM Ready", Duration::from_secs(5))?;
        // Over a stop and a start, and said while it is stopped.
        module.order("node2", &["stop", "--wait"])?;
        module.order("node1", &["stop", "--wait"])?;
        module.order("node1", &["start"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        faults("node1")?;
        quiet(&module, "node1", "ALONE Ready", Duration::from_secs(4))?;
        module.order("node1", &["stop", "--wait"])?;
        module.order("node1", &["checker", "on"])?;
        module.order("node1", &["errd", "on"])?;
        module.order("node1", &["start"])?;
        module.blocked("node1", "c_flag")?;
        flag(cluster, &module, "node1", "up")?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.resource_is("node1", "tcp.web", "up")?;
        end(cluster, "node1", 7013)?;
        module.logged("node1", "Action restart from failover rule t_web", 1)?;
        module.replays()
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c14_a_checker_that_never_reports_keeps_the_module_waiting_and_is_named() -> Result<()> {
    Cluster::up("c14", 2)?.scenario(|cluster| {
        let body = r#"<check><custom ident="mute" when="pre" exec="mute" action="wait"/></check>"#;
        let module = cluster
            .configure(&spec("app", body).on(&["node1", "node2"]).script("mute", "#!/bin/sh\nexec sleep 100000\n"))?;
        module.order("node1", &["prim"])?;
        module.reaches("node1", "WAIT Transient", SOON)?;
        wait::until("the silent checker is named", LATER, || {
            let log = module.log("node1");
            let named = log.contains("Custom checker custom.mute has not reported for 30 s");
            if named { Ok(()) } else { Err("not yet".to_owned()) }
        })?;
        module.reaches("node1", "WAIT Transient", Duration::ZERO)?;
        let rules = module.order("node1", &["rules", "--json"])?;
        let rule = rules.lines().find(|l| l.contains("c_mute")).context("the rule is not shown")?;
        ensure!(rule.contains(r#""truth":null"#) && rule.contains(r#""waits_for":["custom.mute"]"#), "{rule}");
        // Somebody speaks for it.
        cluster
            .lab
            .exec("node1", &["/opt/sk/safekit", "set", "-r", "custom.mute", "-v", "up", "-i", "hand", "-m", "app"])?;
        module.reaches("node1", "ALONE Ready", SOON)?;
        module.order("node1", &["stop", "--wait"]).map(drop)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn c15_a_command_of_the_administrator_resets_the_counter() -> Result<()> {
    Cluster::up("c15", 2)?.scenario(|cluster| {
        let module = paired(cluster, &spec("app", &errd("app", "restart")))?;
        for round in 1..=6 {
            let ready = module.log("node1").matches("Local state PRIM Ready").count();
            kill_application(cluster, &module, "node1")?;
            module.logged("node1", "Action restart called by errd", round)?;
            module.logged("node1", "Local state PRIM Ready", ready + 1)?;
            if round == 3 {
                module.order("node1", &["restart", "--wait"])?;
                let reached = cluster.lab.try_exec("node1", &["sk-module", "checkloop", "-m", "app"])?;
                ensure!(reached.status.code() == Some(0), "{reached:?}");
            }
            module.resource_is("node1", "proc.app-app", "up")?;
        }
        kill_application(cluster, &module, "node1")?;
        module.reaches("node1", "STOP NotReady", SOON)?;
        module.logged("node1", "Action stop called by maxloop", 1)
    })
}
