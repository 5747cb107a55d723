//! The delivered modules of farms and single nodes, with the real servers they are for.

use anyhow::{Context, Result, ensure};
use conformance::delivered::{delivered, template};
use conformance::web::{health, page, ready, status};
use conformance::{Cluster, LATER, Module, SOON, wait};

/// The file without its element `<vip>`: for a balancer of another kind.
fn without_vip(xml: &str) -> Result<(String, String)> {
    let (begin, end) = (xml.find("<vip>").context("no <vip>")?, xml.find("</vip>").context("no </vip>")?);
    Ok((xml[begin..end + "</vip>".len()].to_owned(), String::new()))
}

/// Kills the main process; the module notices, restarts the application and serves again.
fn survives_a_crash(
    cluster: &Cluster,
    module: &Module<'_>,
    node: &str,
    pattern: &str,
    what: &str,
    url: &str,
) -> Result<()> {
    cluster.lab.kill(node, pattern)?;
    module.logged(node, &format!("Process {what} not running"), 1)?;
    module.logged(node, "Action restart called by errd", 1)?;
    module.logged(node, "Local state UP Ready", 2)?;
    wait::until("served again", SOON, || match status(cluster, "client", url) {
        Ok(200) => Ok(()),
        other => Err(format!("{other:?}")),
    })
}

/// A web farm behind a balancer of another kind: each node serves and says by its health page when clients may come.
fn web_farm_without_addresses(purpose: &str, name: &str, pattern: &str, what: &str) -> Result<()> {
    Cluster::up(purpose, 2)?.scenario(|cluster| {
        let text = std::fs::read_to_string(template(name).join("conf/userconfig.xml"))?;
        let (vip, nothing) = without_vip(&text)?;
        let changes =
            [("VIRTUAL_TO_BE_DEFINED", "192.0.2.1"), (vip.as_str(), nothing.as_str()), ("/var/www/html", "/srv/www")];
        let module = delivered(cluster, name, 1, &["node1", "node2"], &changes)?;
        health(cluster)?;
        for node in ["node1", "node2"] {
            cluster.lab.sh(node, "mkdir -p /srv/www && echo \"page of $(uname -n)\" >/srv/www/index.html")?;
            ready(cluster, &module, node, 404)?;
        }
        module.everywhere(&["start"])?;
        for node in ["node1", "node2"] {
            module.reaches(node, "UP Ready", SOON)?;
            ready(cluster, &module, node, 200)?;
            let url = format!("http://{node}/");
            ensure!(page(cluster, "client", &url)? == format!("page of {node}"));
            ensure!(page(cluster, "client", &format!("{url}health"))? == node);
        }
        survives_a_crash(cluster, &module, "node1", pattern, what, "http://node1/")?;
        ready(cluster, &module, "node1", 200)?;

        // A stop lets what is under way end, and the health page sends clients away.
        module.order("node2", &["stop", "--wait"])?;
        ready(cluster, &module, "node2", 404)?;
        ensure!(status(cluster, "client", "http://node2/")? == 0, "nothing listens any more");
        let left = cluster.lab.pids("node2", pattern)?;
        ensure!(left.is_empty(), "{left:?} outlived the stop");
        ready(cluster, &module, "node1", 200)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn nginx_farm_without_addresses_says_where_clients_may_come() -> Result<()> {
    web_farm_without_addresses("tnginx", "nginx_farm", "nginx: master process", "nginx")
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn apache_farm_without_addresses_says_where_clients_may_come() -> Result<()> {
    web_farm_without_addresses("tapache", "apache_farm", "apache2 -f", "apache2")
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_configuration_that_nginx_refuses_stops_the_module_with_its_words() -> Result<()> {
    Cluster::up("tbad", 2)?.scenario(|cluster| {
        let text = std::fs::read_to_string(template("nginx_farm").join("conf/userconfig.xml"))?;
        let (vip, nothing) = without_vip(&text)?;
        let changes = [("VIRTUAL_TO_BE_DEFINED", "192.0.2.1"), (vip.as_str(), nothing.as_str())];
        let module = delivered(cluster, "nginx_farm", 1, &["node1"], &changes)?;
        cluster.lab.sh("node1", "echo 'nonsense;' >>/etc/sk/modules/nginx_farm/conf/nginx.conf")?;
        module.order("node1", &["config", "--id", "1"])?;
        module.order("node1", &["start"])?;
        module.logged("node1", "nginx: its configuration is wrong", 1)?;
        module.logged("node1", "Action stop called by start_both", 1)?;
        module.reaches("node1", "STOP NotReady", SOON)?;
        let words = cluster.lab.sh("node1", "cat /var/lib/sk/modules/nginx_farm/userlog_*_start_both.ulog")?;
        ensure!(words.contains("unknown directive"), "{words}");
        Ok(())
    })
}

/// An application without a unit, as the comment in the template's `start_both` describes.
const DAEMON: &str =
    "#!/bin/sh\ncp -f /bin/sleep /srv/daemon && setsid /srv/daemon 100000 </dev/null >/dev/null 2>&1 &\n";

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn light_keeps_one_application_alive() -> Result<()> {
    Cluster::up("tlight", 2)?.scenario(|cluster| {
        let module = delivered(cluster, "light", 3, &["node1"], &[("PROCESS_NAME", "daemon"), ("10s", "1s")])?;
        health(cluster)?;
        for (script, text) in [("start_both", DAEMON), ("stop_both", "#!/bin/sh\npkill -x daemon\nexit 0\n")] {
            let target = format!("/etc/sk/modules/light/bin/{script}");
            cluster.lab.exec("node1", &["sh", "-c", "printf '%s' \"$1\" >\"$2\"", "sh", text, &target])?;
        }
        module.order("node1", &["config", "--id", "3"])?;
        module.order("node1", &["start"])?;
        module.reaches("node1", "UP Ready", SOON)?;
        ready(cluster, &module, "node1", 200)?;
        ready(cluster, &module, "node2", 404)?;

        // Restarted when it dies, and given up after three times (maxloop).
        for times in 1..=3 {
            cluster.lab.kill("node1", "^/srv/daemon")?;
            module.logged("node1", "Action restart called by errd", times)?;
            module.logged("node1", "Local state UP Ready", times + 1)?;
            wait::until("the daemon runs again", SOON, || match cluster.lab.pids("node1", "^/srv/daemon") {
                Ok(pids) if pids.len() == 1 => Ok(()),
                other => Err(format!("{other:?}")),
            })?;
        }
        cluster.lab.kill("node1", "^/srv/daemon")?;
        module.logged("node1", "Action stop called by maxloop", 1)?;
        module.reaches("node1", "STOP NotReady", SOON)?;

        // The runner dies; its successor leads back to UP. So does the power.
        module.order("node1", &["start", "--wait"])?;
        // What is published follows what is done.
        module.reaches("node1", "UP Ready", SOON)?;
        let application = module.document("node1")?["application"].clone();
        module.kill("node1", "sk-module run")?;
        wait::until("another runner is UP", LATER, || {
            let document = module.document("node1").map_err(|error| format!("{error:#}"))?;
            let up = document["state"] == "UP" && document["readiness"] == "Ready";
            if up && document["application"] != application { Ok(()) } else { Err(document["state"].to_string()) }
        })?;
        let code =
            |line: &str| Ok::<_, anyhow::Error>(cluster.lab.try_exec("node1", &["sh", "-c", line])?.status.code());
        ensure!(code("safekit state -m light -lq")? == Some(2), "UP is 2");
        ensure!(code("safekit swap -m light")? != Some(0) && code("sk-module prim -m light")? == Some(1), "no roles");
        cluster.lab.run(&["poweroff", "node1"])?;
        cluster.lab.run(&["boot", "node1"])?;
        module.reaches("node1", "UP Ready", LATER)?;
        module.replays()
    })
}

/// The web farms behind their virtual address, as delivered: real servers, real downloads, servers that come and go.
fn web_farm(purpose: &str, name: &str, pattern: &str, what: &str) -> Result<()> {
    Cluster::up(purpose, 3)?.scenario(|cluster| {
        let nodes = ["node1", "node2", "node3"];
        let address = format!("{}.80", cluster.network());
        let changes = [("VIRTUAL_TO_BE_DEFINED", address.as_str()), ("/var/www/html", "/srv/www")];
        let module = delivered(cluster, name, 1, &nodes, &changes)?;
        for node in nodes {
            let line =
                "mkdir -p /srv/www && uname -n >/srv/www/index.html && yes 0123456789 | head -c 60000000 >/srv/www/big";
            cluster.lab.sh(node, line)?;
        }
        let url = format!("http://{address}/");
        let ask = |count: u32| -> Result<Vec<String>> {
            let line = format!("for i in $(seq {count}); do curl -sf -m 5 {url} || echo failed; done");
            Ok(cluster.lab.sh("client", &line)?.lines().map(str::to_owned).collect())
        };
        let served_by = |wanted: &[&str]| {
            wait::until(&format!("answers of {wanted:?}"), SOON, || {
                let mut seen = ask(40).map_err(|error| format!("{error:#}"))?;
                seen.sort_unstable();
                seen.dedup();
                if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
            })
        };
        for node in &nodes[..2] {
            module.order(node, &["start"])?;
        }
        for node in &nodes[..2] {
            module.reaches(node, "UP Ready", SOON)?;
        }
        served_by(&nodes[..2])?;

        // Slow downloads on both servers while a third one joins and one of the two leaves: whole and unchanged, but for
        // those that the leaving server did not get to end in its time.
        std::thread::scope(|scope| {
            let downloads: Vec<_> = (0..6)
                .map(|_| {
                    let line = format!("curl -sf -m 60 --limit-rate 6M {url}big | sha256sum");
                    scope.spawn(move || cluster.lab.sh("client", &line))
                })
                .collect();
            let asking = scope.spawn(|| ask(150));
            module.order("node3", &["start"])?;
            module.reaches("node3", "UP Ready", SOON)?;
            module.order("node2", &["stop", "--wait"])?;
            let answers = asking.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
            ensure!(!answers.iter().any(|a| a == "failed"), "a connection failed in a join and a leave: {answers:?}");
            let good = cluster.lab.sh("node1", "sha256sum </srv/www/big")?;
            for download in downloads {
                let sum = download.join().map_err(|_| anyhow::anyhow!("a download panicked"))??;
                ensure!(sum == good, "a download is not what was served: {sum}");
            }
            Ok(())
        })?;
        served_by(&["node1", "node3"])?;

        // The application dies, then the application no longer answers: started again both times.
        survives_a_crash(cluster, &module, "node1", pattern, what, &url)?;
        served_by(&["node1", "node3"])?;
        let rule = "nft -f - <<'END'\ntable inet deaf { chain in { type filter hook input priority 0; iifname lo tcp dport 80 drop; }; }\nEND";
        cluster.lab.sh("node3", rule)?;
        module.logged("node3", "Resource tcp.http set to down by tcpcheck", 1)?;
        cluster.lab.sh("node3", "nft delete table inet deaf")?;
        module.logged("node3", "Action restart from failover rule t_http", 1)?;
        module.reaches("node3", "UP Ready", LATER)?;
        served_by(&["node1", "node3"])?;
        cluster.lab.run(&["poweroff", "node1"])?;
        served_by(&["node3"])?;
        module.order("node3", &["stop", "--wait"]).map(drop)
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn nginx_farm_behind_its_address() -> Result<()> {
    web_farm("tvnginx", "nginx_farm", "nginx: master process", "nginx")
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn apache_farm_behind_its_address() -> Result<()> {
    web_farm("tvapache", "apache_farm", "apache2 -f", "apache2")
}
