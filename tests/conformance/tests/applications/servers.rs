//! Database servers, and an application that keeps its data in SQLite.

use anyhow::{Result, ensure};
use conformance::client::{Client, Death, fails_over};
use conformance::delivered::delivered;
use conformance::{Cluster, Module, SOON};

const NODES: [&str; 2] = ["node1", "node2"];
const BY_ERRD: &str = "Action restart called by errd";

fn words(command: &[&str]) -> Vec<String> {
    command.iter().map(|word| (*word).to_owned()).collect()
}

/// The directory that a module replicates, on both nodes.
fn directory(cluster: &Cluster, owner: &str) -> Result<()> {
    for node in NODES {
        cluster.lab.exec(node, &["install", "-d", "-m", "700", "-o", owner, "-g", owner, "/srv/data"])?;
    }
    Ok(())
}

/// A server that hangs does not end: only its checker can tell. Stopped, it is killed and started again.
fn survives_a_hang(cluster: &Cluster, module: &Module<'_>, server: &str) -> Result<()> {
    for pid in cluster.lab.pids("node1", server)? {
        cluster.lab.exec("node1", &["kill", "-STOP", &pid.to_string()])?;
    }
    module.logged("node1", "Resource custom.server set to down by check_server", 1)?;
    module.logged("node1", "Action restart from failover rule c_server", 1)?;
    module.pair("node1", "node2")
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn mariadb_loses_no_commit() -> Result<()> {
    Cluster::up("tmaria", 2)?.scenario(|cluster| {
        let vip = format!("{}.80", cluster.network());
        directory(cluster, "mysql")?;
        let changes = [
            ("VIRTUAL_TO_BE_DEFINED", vip.as_str()),
            ("/var/lib/mariadb-mirror", "/srv/data"),
            (r#"name="CHECK_PERIOD" value="5""#, r#"name="CHECK_PERIOD" value="1""#),
            (r#"nicestoptimeout="60s""#, r#"nicestoptimeout="5s""#),
        ];
        let module = delivered(cluster, "mariadb", 1, &NODES, &changes)?;
        // Started too early, it says what is missing and stops, instead of trying again until `maxloop`.
        module.order("node1", &["prim"])?;
        module.logged(
            "node1",
            "/srv/data holds no database; stop the module and make one with bin/create_database",
            1,
        )?;
        module.logged("node1", "Action stop called by start_prim", 1)?;
        module.reaches("node1", "STOP NotReady", SOON)?;
        cluster.lab.exec("node1", &["/etc/sk/modules/mariadb/bin/create_database", "/srv/data"])?;
        module.start_pair()?;
        let sql = "CREATE DATABASE app; CREATE USER app@'%' IDENTIFIED BY 'secret'; GRANT ALL ON app.* TO app@'%'; \
                   CREATE TABLE app.acked (id BIGINT PRIMARY KEY)";
        cluster.lab.exec("node1", &["mariadb", "--socket=/run/sk-mariadb/server.sock", "-e", sql])?;
        let client = Client {
            command: words(&["mariadb", "-h", &vip, "-u", "app", "-psecret", "-N", "-B", "-n", "app"]),
            request: "INSERT INTO acked VALUES ({id}); SELECT 'acked {id}';".to_owned(),
            answer: "acked {id}".to_owned(),
            list: "SELECT id FROM acked; SELECT 'end';".to_owned(),
            end: "end".to_owned(),
            ..Client::default()
        };
        let server = "mariadbd .*--datadir=/srv/data";
        fails_over(cluster, &module, &client, Death { victim: server, restart: BY_ERRD }, |_| Ok(()))?;
        survives_a_hang(cluster, &module, server)
    })
}

/// What a node lacks is said when the configuration is applied there, not when it must take over.
fn told_what_is_missing(cluster: &Cluster) -> Result<()> {
    cluster.lab.exec("node2", &["mv", "/srv/data", "/srv/elsewhere"])?;
    let output = cluster.lab.try_exec("node2", &["sk-module", "config", "-m", "redis"])?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    ensure!(output.status.code() == Some(2), "{}: {said}", output.status);
    for words in ["no /srv/data on this node", "install -d -m 700 -o redis /srv/data", "the script config says no"] {
        ensure!(said.contains(words), "{words:?} is not in: {said}");
    }
    cluster.lab.exec("node2", &["mv", "/srv/elsewhere", "/srv/data"]).map(drop)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn redis_loses_no_change() -> Result<()> {
    Cluster::up("tredis", 2)?.scenario(|cluster| {
        let vip = format!("{}.80", cluster.network());
        directory(cluster, "redis")?;
        let changes = [
            ("VIRTUAL_TO_BE_DEFINED", vip.as_str()),
            ("PASSWORD_TO_BE_DEFINED", "a secret"),
            ("/var/lib/redis-mirror", "/srv/data"),
            (r#"name="CHECK_PERIOD" value="5""#, r#"name="CHECK_PERIOD" value="1""#),
            (r#"nicestoptimeout="60s""#, r#"nicestoptimeout="5s""#),
        ];
        let module = delivered(cluster, "redis", 1, &NODES, &changes)?;
        told_what_is_missing(cluster)?;
        module.start_pair()?;
        let client = Client {
            command: words(&["redis-cli", "-h", &vip, "-a", "a secret", "--no-auth-warning"]),
            request: r#"EVAL "redis.call('RPUSH', 'acked', ARGV[1]) return 'acked ' .. ARGV[1]" 0 {id}"#.to_owned(),
            answer: "acked {id}".to_owned(),
            list: "LRANGE acked 0 -1\nECHO end".to_owned(),
            end: "end".to_owned(),
            ..Client::default()
        };
        let server = "redis-server .*/run/sk-redis/redis.conf";
        fails_over(cluster, &module, &client, Death { victim: server, restart: BY_ERRD }, |_| Ok(()))?;
        survives_a_hang(cluster, &module, server)?;
        // Nobody reads the password in a list of processes, or from the generated file.
        let shown =
            cluster.lab.sh("node1", "ps -eo args; setpriv --reuid nobody cat /run/sk-redis/redis.conf 2>&1 || true")?;
        ensure!(!shown.contains("a secret"), "{shown}");
        Ok(())
    })
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn firebird_loses_no_commit() -> Result<()> {
    Cluster::up("tfirebird", 2)?.scenario(|cluster| {
        let vip = format!("{}.80", cluster.network());
        directory(cluster, "firebird")?;
        let changes = [("VIRTUAL_TO_BE_DEFINED", vip.as_str()), ("/var/lib/firebird-mirror", "/srv/data")];
        let module = delivered(cluster, "firebird", 1, &NODES, &changes)?;
        cluster.lab.exec("node1", &["/etc/sk/modules/firebird/bin/create_database", "/srv/data", "main"])?;
        module.start_pair()?;
        let line = ". /etc/firebird/*/SYSDBA.password; echo 'CREATE TABLE acked (id BIGINT NOT NULL PRIMARY KEY); COMMIT;' | \
                    isql-fb -bail -quiet -user sysdba -password \"$ISC_PASSWORD\" localhost:main; echo \"$ISC_PASSWORD\"";
        let password = cluster.lab.sh("node1", line)?;
        let database = format!("{vip}:main");
        let client = Client {
            command: words(&["isql-fb", "-bail", "-quiet", "-user", "sysdba", "-password", password.trim(), &database]),
            first: "SET HEADING OFF;".to_owned(),
            request: "INSERT INTO acked VALUES ({id}); COMMIT; SELECT 'acked {id}' FROM rdb$database;".to_owned(),
            answer: "acked {id}".to_owned(),
            list: "SELECT id FROM acked; SELECT 'end' FROM rdb$database;".to_owned(),
            end: "end".to_owned(),
        };
        let server = "firebird -e /run/sk-firebird/root";
        fails_over(cluster, &module, &client, Death { victim: server, restart: BY_ERRD }, |_| Ok(()))
    })
}

/// The recorder of the fixtures, on a host.
pub(crate) fn install_recorder(cluster: &Cluster, node: &str) -> Result<()> {
    let text = include_str!("../../fixtures/recorder.py");
    let line = "printf '%s' \"$1\" >/srv/recorder && chmod 755 /srv/recorder";
    cluster.lab.exec(node, &["sh", "-c", line, "sh", text]).map(drop)
}

#[test]
#[ignore = "needs root and a lab: scripts/test conformance"]
fn an_sqlite_application_loses_no_commit() -> Result<()> {
    Cluster::up("tsqlite", 2)?.scenario(|cluster| {
        let vip = format!("{}.80", cluster.network());
        directory(cluster, "www-data")?;
        for node in NODES {
            install_recorder(cluster, node)?;
        }
        let changes = [
            ("VIRTUAL_TO_BE_DEFINED", vip.as_str()),
            ("COMMAND_TO_BE_DEFINED", "/srv/recorder 8080 records.db"),
            ("PROCESS_NAME", "recorder"),
            ("/var/lib/sqlite-app", "/srv/data"),
        ];
        let module = delivered(cluster, "sqlite-app", 1, &NODES, &changes)?;
        module.start_pair()?;
        let client = Client::recorder(&vip, 8080);
        let death = Death { victim: "/srv/recorder 8080", restart: BY_ERRD };
        fails_over(cluster, &module, &client, death, |_| Ok(()))?;
        let found = cluster.lab.sh("node1", "sqlite3 /srv/data/records.db 'PRAGMA integrity_check'")?;
        ensure!(found.trim() == "ok", "{found}");
        Ok(())
    })
}
