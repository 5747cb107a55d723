//! Do the scripts of the PostgreSQL template start and stop a server whatever state it is in? Without any module.

use anyhow::{Result, ensure};
use e2e::lab::{Lab, scripts};

const DATA: &str = "/var/lib/postgresql/mirror";
const SERVERS: &str = "^/.*/postgres -D|^postgres: ";

struct Host(Lab);

impl Host {
    fn script(&self, line: &str) -> Result<String> {
        let environment = format!("export PGDATA={DATA} PGPORT=5432 PGUSER=postgres SAFEMODULE=postgresql");
        self.0.sh("node1", &format!("{environment}; cd /etc/sk/modules/postgresql/bin && timeout 60 ./{line}"))
    }

    fn starts(&self) -> Result<()> {
        self.script("start_prim WAIT ALONE start")?;
        let answer = self.0.sh("node1", "psql -h 127.0.0.1 -U postgres -Atc 'select 41 + 1' postgres")?;
        ensure!(answer.trim() == "42", "the server answers {answer:?}");
        Ok(())
    }

    fn stopped(&self, after: &str) -> Result<()> {
        let left = self.0.pids("node1", SERVERS)?;
        ensure!(left.is_empty(), "after {after} these are left: {left:?}");
        Ok(())
    }
}

#[test]
#[ignore = "needs root and a lab: scripts/test, or cargo nextest run -p e2e --run-ignored all"]
fn scripts_cope_with_every_state_of_the_server() -> Result<()> {
    let host = Host(Lab::up("template", 1)?);
    let template = scripts().join("modules/postgresql");
    host.0.run(&["push", "node1", &template.to_string_lossy(), "/etc/sk/modules/postgresql"])?;

    ensure!(host.script("start_prim WAIT ALONE start").is_err(), "a server started without a database");
    host.script(&format!("create_database {DATA}"))?;
    host.0.sh("node1", &format!("echo 'host all all 127.0.0.1/32 trust' > {DATA}/pg_hba.conf"))?;
    host.script("prestart STOP WAIT start")?;
    host.starts()?;
    host.script("stop_prim ALONE WAIT stop")?;
    host.stopped("a fast stop")?;
    ensure!(!host.0.path("node1", DATA).is_some_and(|data| data.join("postmaster.pid").exists()), "not a clean stop");

    // The other node died and left its lock file, with a number that lives on this node.
    host.0.sh("node1", "sleep 100 >/dev/null 2>&1 & echo $! > /tmp/other")?;
    host.0.sh("node1", &format!("(cat /tmp/other; echo {DATA}; echo 1; echo 5432) > {DATA}/postmaster.pid"))?;
    host.starts()?;

    // The server was killed; its children still hold the shared memory.
    host.0.sh("node1", "kill -STOP $(pgrep -f '^postgres: ')")?;
    host.0.kill("node1", &format!("^/.*/postgres -D {DATA}"))?;
    host.script("stop_prim force ALONE ALONE restart")?;
    host.stopped("a forced stop of orphans")?;
    host.starts()?;

    // A second start, as after a crash of the runner, ends the first server.
    host.starts()?;

    // The file system of the data directory is gone under the running server.
    host.script("stop_prim ALONE WAIT stop")?;
    host.0.sh("node1", &format!("mount --bind {DATA} {DATA}"))?;
    host.starts()?;
    host.0.sh("node1", &format!("umount -l {DATA} && mv {DATA} {DATA}.away"))?;
    host.script("stop_prim force ALONE WAIT stop")?;
    host.stopped("a forced stop without the data directory")?;
    host.script("stop_prim ALONE WAIT stop")?;
    Ok(())
}
