//! Modules without an address of their own, behind a balancer that asks every server whether it may send clients: haproxy.

use crate::servers::install_recorder;
use anyhow::{Result, ensure};
use conformance::client::{Client, Death, fails_over};
use conformance::delivered::delivered;
use conformance::web::{health, ready};
use conformance::{Cluster, LATER, SOON, wait};

const NODES: [&str; 2] = ["node1", "node2"];
const BY_ERRD: &str = "Action restart called by errd";

/// A balancer on the witness host, as the page about templates has it. Returns its address.
fn balancer(cluster: &Cluster, module: &str, port: u16) -> Result<String> {
    let servers: Vec<String> = NODES
        .iter()
        .map(|node| {
            let address = cluster.lab.address(node, "prod")?;
            Ok(format!("    server {node} {address}:{port} check port 9010 inter 300ms fall 2 rise 1 on-marked-down shutdown-sessions\n"))
        })
        .collect::<Result<_>>()?;
    let text = format!(
        "defaults\n    mode tcp\n    timeout connect 2s\n    timeout client 1m\n    timeout server 1m\n    timeout check 1s\n\
         listen application\n    bind :{port}\n    option httpchk GET /var/modules/{module}/ready.txt\n{}",
        servers.concat()
    );
    let line = "printf '%s' \"$1\" >/srv/haproxy.cfg && haproxy -D -f /srv/haproxy.cfg";
    cluster.lab.exec("witness", &["sh", "-c", line, "sh", &text])?;
    cluster.lab.address("witness", "prod")
}

/// What the templates' scripts want of systemctl, for one unit: test hosts have no systemd. Forgotten at power-off.
fn unit(cluster: &Cluster, node: &str, process: &str, command: &str) -> Result<()> {
    let text = format!(
        "#!/bin/sh\ncase $1 in\nstart) setsid {command} </dev/null >/dev/null 2>&1 & ;;\nis-active) pgrep -x {process} >/dev/null ;;\n\
         kill) pkill -KILL -x {process} ;;\nstop) pkill -TERM -x {process}; while pgrep -x {process} >/dev/null; do sleep 0.05; done ;;\nesac\n"
    );
    let line = "printf '%s' \"$1\" >/usr/local/bin/systemctl && chmod 755 /usr/local/bin/systemctl";
    cluster.lab.exec(node, &["sh", "-c", line, "sh", &text]).map(drop)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_mirror_behind_a_balancer_loses_nothing() -> Result<()> {
    Cluster::up("tcloudm", 2)?.scenario(|cluster| {
        let recorder = |node: &str| unit(cluster, node, "recorder", "/srv/recorder 7000 /srv/data/records.db");
        for node in NODES {
            recorder(node)?;
            install_recorder(cluster, node)?;
            cluster.lab.exec(node, &["mkdir", "-p", "/srv/data"])?;
        }
        let changes = [
            ("DIRECTORY_TO_BE_DEFINED", "/srv/data"),
            ("PROCESS_NAME", "recorder"),
            (r#"name="PORT" value="80""#, r#"name="PORT" value="7000""#),
            (r#"name="SERVICES" value="""#, r#"name="SERVICES" value="recorder""#),
            (r#"timeout="5000ms""#, r#"timeout="2000ms""#),
        ];
        let module = delivered(cluster, "cloud-mirror", 1, &NODES, &changes)?;
        health(cluster)?;
        let address = balancer(cluster, "cloud-mirror", 7000)?;
        module.start_pair()?;
        ready(cluster, &module, "node1", 200)?;
        ready(cluster, &module, "node2", 404)?;
        let client = Client::recorder(&address, 7000);
        let death = Death { victim: "/srv/recorder 7000", restart: BY_ERRD };
        fails_over(cluster, &module, &client, death, |node| {
            recorder(node)?;
            cluster.lab.sh(node, "setsid sk-health serve </dev/null >/dev/null 2>&1 &").map(drop)
        })
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn a_farm_behind_a_balancer_serves_where_it_is_up() -> Result<()> {
    Cluster::up("tcloudf", 2)?.scenario(|cluster| {
        let changes = [
            ("PROCESS_NAME", "nginx"),
            (r#"name="PORT" value="80""#, r#"name="PORT" value="7000""#),
            (r#"name="SERVICES" value="""#, r#"name="SERVICES" value="nginx""#),
        ];
        let module = delivered(cluster, "cloud-farm", 1, &NODES, &changes)?;
        let conf =
            "events {} http { access_log off; server { listen 7000; location / { return 200 \"$hostname\\n\"; } } }";
        for node in NODES {
            cluster.lab.exec(node, &["sh", "-c", "printf '%s' \"$1\" >/srv/nginx.conf", "sh", conf])?;
            unit(cluster, node, "nginx", "nginx -c /srv/nginx.conf -g 'pid /run/n.pid; error_log /dev/null;'")?;
        }
        health(cluster)?;
        let address = balancer(cluster, "cloud-farm", 7000)?;
        module.everywhere(&["start"])?;
        for node in NODES {
            module.reaches(node, "UP Ready", SOON)?;
            ready(cluster, &module, node, 200)?;
        }
        let answers = || -> Result<Vec<String>> {
            let line = format!("for i in $(seq 20); do curl -s -m 5 http://{address}:7000/ || echo failed; done");
            let mut seen: Vec<String> = cluster.lab.sh("client", &line)?.lines().map(str::to_owned).collect();
            seen.sort_unstable();
            seen.dedup();
            Ok(seen)
        };
        let served_by = |wanted: &[&str]| {
            wait::until(&format!("answers of {wanted:?}"), LATER, || match answers() {
                Ok(seen) if seen == wanted => Ok(()),
                other => Err(format!("{other:?}")),
            })
        };
        served_by(&NODES)?;
        cluster.lab.kill("node1", "^nginx: ")?;
        module.logged("node1", "Action restart called by errd", 1)?;
        served_by(&NODES)?;
        // A node that leaves in good order is left alone before its application ends.
        module.order("node1", &["stop", "--wait"])?;
        ready(cluster, &module, "node1", 404)?;
        served_by(&["node2"])?;
        module.order("node1", &["start", "--wait"])?;
        served_by(&NODES)?;
        cluster.lab.run(&["poweroff", "node2"])?;
        served_by(&["node1"])?;
        ensure!(answers()? == ["node1"]);
        Ok(())
    })
}
