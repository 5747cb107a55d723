//! The delivered module `farm`, for any application: nginx as a unit that the module starts and stops.

use super::vip;
use anyhow::{Context, Result, ensure};
use conformance::{Cluster, SOON, Spec, wait};
use std::path::PathBuf;

/// Stands in for systemd on hosts that have none: one unit, `web`.
const SYSTEMCTL: &str = r#"#!/bin/sh
pid=/run/web.pid
verb=$1
for unit; do :; done
[ "$unit" = web ] || { echo "Unit $unit.service not found." >&2; exit 5; }
running() { [ -s $pid ] && kill -0 "$(cat $pid)" 2>/dev/null; }
case $verb in
start) running || nginx -c /srv/web.conf ;;
stop)
    ! running || kill -QUIT "$(cat $pid)"
    while pgrep -x nginx >/dev/null; do sleep 0.05; done ;;
is-active) running ;;
kill) pkill -KILL -x nginx ;;
*) echo "unknown verb $verb" >&2; exit 1 ;;
esac
"#;

const NGINX: &str = "daemon on; worker_processes 1; pid /run/web.pid; error_log /dev/null; events { worker_connections 64; }\n\
                     http { access_log off; server { listen 80; location / { return 200 \"$hostname\"; } } }\n";

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn the_template_farm_serves_units() -> Result<()> {
    Cluster::up("ftemplate", 2)?.scenario(|cluster| {
        let nodes = ["node1", "node2"];
        let source = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules/farm");
        let mut xml = std::fs::read_to_string(source.join("conf/userconfig.xml"))?;
        let address = vip(cluster);
        let fill = [
            ("VIRTUAL_TO_BE_DEFINED", address.as_str()),
            ("PROCESS_NAME", "nginx"),
            (r#"name="SERVICES" value="""#, r#"name="SERVICES" value="web""#),
            ("on_addr\"", "on_port\""),
        ];
        for (from, to) in fill {
            ensure!(xml.contains(from), "no {from:?} in the template");
            xml = xml.replace(from, to);
        }
        let mut spec = Spec::whole("web", &nodes, &xml, &[]);
        for entry in std::fs::read_dir(source.join("bin"))? {
            let path = entry?.path();
            let script = path.file_name().context("a file without a name")?.to_string_lossy().into_owned();
            spec = spec.script(&script, &std::fs::read_to_string(&path)?);
        }
        let module = cluster.configure(&spec)?;
        for node in nodes {
            let write = |path: &str, text: &str| {
                let line = "printf '%s' \"$1\" >\"$2\" && chmod 755 \"$2\"";
                cluster.lab.exec(node, &["sh", "-c", line, "sh", text, path])
            };
            write("/usr/bin/systemctl", SYSTEMCTL)?;
            write("/srv/web.conf", NGINX)?;
            module.order(node, &["start"])?;
        }
        for node in nodes {
            module.reaches(node, "UP Ready", SOON)?;
        }
        // The address and the port answer at both nodes, whoever is asked: a page has to be asked for.
        let pages = |wanted: &[&str]| {
            wait::until(&format!("pages of {wanted:?}"), SOON, || {
                let line =
                    format!("for i in $(seq 40); do curl -sf -m 5 http://{address}/ || echo -n failed; echo; done");
                let text = cluster.lab.sh("client", &line).map_err(|error| format!("{error:#}"))?;
                let mut seen: Vec<&str> = text.lines().collect();
                seen.sort_unstable();
                seen.dedup();
                if seen == wanted { Ok(()) } else { Err(format!("{seen:?}")) }
            })
        };
        pages(&nodes)?;
        // The application dies as a whole: started again.
        cluster.lab.kill("node1", "^nginx: ")?;
        module.logged("node1", "Process nginx not running", 1)?;
        module.logged("node1", "Local state UP Ready", 2)?;
        pages(&nodes)?;
        module.order("node1", &["stop", "--wait"])?;
        ensure!(cluster.lab.pids("node1", "^nginx: ")?.is_empty(), "the unit outlived the stop");
        pages(&["node2"])
    })
}
