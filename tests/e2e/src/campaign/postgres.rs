//! PostgreSQL under attack: a server on the replicated directory, commits that clients have, and what a recovered copy holds.

use crate::campaign::load::Load;
use crate::campaign::notes::Kind;
use crate::campaign::random::Random;
use crate::lab::checked;
use crate::pg::Client;
use anyhow::{Context, Result, anyhow, ensure};
use std::collections::BTreeSet;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The data directory, relative to the replicated one. It stays from trial to trial: what damage there is adds up.
pub const DIRECTORY: &str = "pg";
const PORT: u16 = 5432;
/// Clients that commit at the same time.
pub const CLIENTS: u64 = 3;
const ACCOUNTS: u64 = 200;
/// Longer than any freeze: a client that waits sees no error.
const DEADLINE: Duration = Duration::from_mins(1);

/// Small, so that a trial sees checkpoints, segments that are renamed for their next use, and vacuum.
const SETTINGS: &str = "
listen_addresses = '127.0.0.1'
unix_socket_directories = ''
shared_buffers = 16MB
max_connections = 20
min_wal_size = 4MB
max_wal_size = 16MB
checkpoint_timeout = 30s
autovacuum_naptime = 3s
";

/// One statement a line, for the single-user server.
const SCHEMA: &str = "\
CREATE EXTENSION amcheck;
CREATE TABLE accounts (id int PRIMARY KEY, balance bigint NOT NULL);
CREATE TABLE commits (life text, n bigint, content text NOT NULL, PRIMARY KEY (life, n));
";

/// The newest server that is installed: the directory of its programs.
pub fn programs() -> Result<PathBuf> {
    let version = |path: &Path| path.parent()?.file_name()?.to_str()?.parse::<u32>().ok();
    let list = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let all = list.map(|entry| entry.path().join("bin")).filter(|bin| bin.join("postgres").exists());
    all.max_by_key(|bin| version(bin)).context("PostgreSQL is missing; run scripts/install-deps")
}

/// A command of the server's user; it refuses to be root's.
fn as_owner(program: &Path) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command.current_dir("/").stdin(Stdio::null());
    command
}

/// Makes an empty data base with page checksums in a new directory. Nothing of it is durable yet.
pub fn make(directory: &Path) -> Result<()> {
    let bin = programs()?;
    let mut install = Command::new("install");
    install.args(["-d", "-m", "700", "-o", "postgres", "-g", "postgres"]).arg(directory);
    checked(install, &["install"])?;
    let mut initdb = as_owner(&bin.join("initdb"));
    initdb.args(["--no-sync", "--data-checksums", "--wal-segsize=1", "--auth=trust", "--no-instructions"]);
    initdb.args(["--encoding=UTF8", "--no-locale", "--pgdata"]).arg(directory);
    checked(initdb, &["initdb"])?;
    let settings = directory.join("postgresql.conf");
    let mut file = std::fs::OpenOptions::new().append(true).open(settings).context("open postgresql.conf")?;
    file.write_all(SETTINGS.as_bytes()).context("write postgresql.conf")?;
    let mut single = as_owner(&bin.join("postgres"));
    single.args(["--single", "-j", "-F", "-D"]).arg(directory).arg("postgres");
    let mut child = single.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    let accounts = format!("INSERT INTO accounts SELECT n, 0 FROM generate_series(0, {}) n;\n", ACCOUNTS - 1);
    // With -j a statement ends at an empty line.
    let statements = (SCHEMA.to_owned() + &accounts).replace(";\n", ";\n\n");
    child.stdin.take().context("no pipe to postgres")?.write_all(statements.as_bytes())?;
    let status = child.wait()?;
    ensure!(status.success(), "postgres --single: {status}");
    Ok(())
}

impl Load {
    /// Keeps a server running. It is of this process's group: who kills the group kills the server, and its children notice.
    pub(super) fn server(&self) -> Result<()> {
        let directory = self.directory.join(DIRECTORY);
        loop {
            // It names a process of a former life, maybe of the other node, whose number may exist here too.
            let _ = std::fs::remove_file(directory.join("postmaster.pid"));
            let outcome = programs().and_then(|bin| {
                as_owner(&bin.join("postgres")).arg("-D").arg(&directory).status().context("start postgres")
            });
            let error = match outcome {
                Ok(status) => anyhow!("postgres ended: {status}"),
                Err(error) => error,
            };
            self.failed(&[("p/server", 0)], &error)?;
        }
    }

    /// Commits rows as one of several clients.
    pub(super) fn commits(&self, client: u64) -> Result<()> {
        let mut random = self.random(100 + client);
        let life = format!("{}-{client}", self.name);
        let key = format!("p/{life}");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT));
        let mut number = 0;
        loop {
            let Ok(mut connection) = Client::connect(address, "postgres", "postgres", DEADLINE) else {
                // It starts, or it recovers, or somebody notes why it ended.
                std::thread::sleep(Duration::from_millis(20));
                continue;
            };
            let outcome = loop {
                // Never a number twice: whether a commit without an answer has happened is not known.
                number += 1;
                let sql = transaction(&life, number, &mut random);
                let facts = [(key.as_str(), number)];
                self.notes.write(Kind::Intent, facts, "")?;
                match connection.query(&sql) {
                    Ok(_) => self.notes.write(Kind::Done, facts, "")?,
                    Err(error) => break error,
                }
            };
            self.failed(&[(&key, number)], &outcome)?;
        }
    }
}

/// Statements that are one transaction: a row, and one more on an account, so that half a transaction shows.
fn transaction(life: &str, number: u64, random: &mut Random) -> String {
    let (account, times) = (random.below(ACCOUNTS), random.below(200));
    let mut sql = format!(
        "UPDATE accounts SET balance = balance + 1 WHERE id = {account};\
         INSERT INTO commits VALUES ('{life}', {number}, repeat('{number} ', {times}));"
    );
    if random.chance(20) {
        let earlier = random.below(number);
        sql.push_str(&format!(
            "UPDATE commits SET content = content || '{earlier} ' WHERE life = '{life}' AND n = {earlier};"
        ));
    }
    sql
}

/// A server on a copy of a data directory, recovered from the loss of its former life; ended when dropped.
struct Recovered {
    bin: PathBuf,
    directory: PathBuf,
}

impl Recovered {
    /// Copies and starts; an error when it does not recover.
    fn start(from: &Path, work: &Path) -> Result<Self> {
        let recovered = Self { bin: programs()?, directory: work.join(DIRECTORY) };
        let directory = &recovered.directory;
        if directory.exists() {
            std::fs::remove_dir_all(directory)?;
        }
        let mut copy = Command::new("cp");
        copy.args(["-a", "--sparse=always"]).arg(from).arg(directory);
        checked(copy, &["cp"])?;
        let _ = std::fs::remove_file(directory.join("postmaster.pid"));
        let options = format!(
            "-c listen_addresses='' -c unix_socket_directories='{}' -c fsync=off -c autovacuum=off",
            directory.display()
        );
        if let Err(error) = recovered.control(&["--timeout=60", "-o", &options, "start"]) {
            let log = std::fs::read_to_string(recovered.log()).unwrap_or_default();
            let words: Vec<&str> = log.lines().rev().take(4).collect();
            return Err(error.context(format!("it does not recover: {}", words.join(" | "))));
        }
        Ok(recovered)
    }

    fn log(&self) -> PathBuf {
        self.directory.join("recovery.log")
    }

    fn control(&self, verb: &[&str]) -> Result<()> {
        let mut command = as_owner(&self.bin.join("pg_ctl"));
        command.args(["--wait", "--silent", "--log"]).arg(self.log()).arg("--pgdata").arg(&self.directory).args(verb);
        // Its server must not inherit our pipes, or whoever reads them waits for it.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().context("run pg_ctl")?;
        ensure!(status.success(), "pg_ctl: {status}");
        Ok(())
    }

    /// Runs a client program on the server; what it prints.
    fn client(&self, program: &str, arguments: &[&str]) -> Result<String> {
        let mut command = as_owner(&self.bin.join(program));
        command.arg("--host").arg(&self.directory).args(["--username=postgres", "--no-password"]).args(arguments);
        checked(command, &[program])
    }

    /// Rows of the answer.
    fn query(&self, sql: &str) -> Result<Vec<String>> {
        let text = self.client("psql", &["-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", sql, "postgres"])?;
        Ok(text.lines().map(str::to_owned).collect())
    }
}

impl Drop for Recovered {
    fn drop(&mut self) {
        // Fails when it has been stopped, or has never run.
        let _ = self.control(&["--mode=immediate", "stop"]);
    }
}

/// What a data directory holds.
#[derive(Debug, Default)]
pub struct Content {
    /// The commits: who made it, and its number.
    pub commits: BTreeSet<(String, u64)>,
    /// What is wrong, in words.
    pub damage: Vec<String>,
}

/// Recovers a copy of a data directory as its next server would, and looks at everything.
pub fn examine(from: &Path, work: &Path) -> Result<Content> {
    let server = Recovered::start(from, work)?;
    let mut damage = Vec::new();
    // Every page of every table, and every entry of every index against its table.
    if let Err(error) = server.client("pg_amcheck", &["--heapallindexed", "--parent-check", "postgres"]) {
        damage.push(format!("{error:#}"));
    }
    let sum = server.query("SELECT (SELECT sum(balance) FROM accounts) - (SELECT count(*) FROM commits)")?;
    if sum != ["0"] {
        damage.push(format!("a transaction was done by half: balances less commits are {sum:?}, not 0"));
    }
    let torn = "SELECT life, n FROM commits WHERE content <> repeat(n || ' ', length(content) / (length(n::text) + 1))";
    damage.extend(server.query(torn)?.into_iter().take(10).map(|row| format!("content of commit {row}")));
    // Past the indexes: the rows themselves must be there.
    let rows =
        server.query("SET enable_indexscan = off; SET enable_indexonlyscan = off; SELECT life, n FROM commits")?;
    let mut commits = BTreeSet::new();
    for row in rows.iter().filter(|row| *row != "SET") {
        let (life, number) = row.split_once('|').with_context(|| format!("psql prints {row:?}"))?;
        commits.insert((life.to_owned(), number.parse().with_context(|| format!("psql prints {row:?}"))?));
    }
    server.control(&["--mode=fast", "stop"])?;
    let mut checksums = as_owner(&server.bin.join("pg_checksums"));
    checksums.args(["--check", "--pgdata"]).arg(&server.directory);
    if let Err(error) = checked(checksums, &["pg_checksums"]) {
        damage.push(format!("{error:#}"));
    }
    Ok(Content { commits, damage })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_changes_no_other_row_of_its_life_than_an_earlier_one() {
        for seed in 0..200 {
            let sql = transaction("node1-7-0", 5, &mut Random::new(seed));
            assert_eq!(sql.matches("INSERT").count(), 1);
            assert!(!sql.contains("AND n = 5;"), "{sql}");
        }
    }

    /// A directory that the server's user may look into.
    fn place(name: &str) -> Result<PathBuf> {
        let place = std::env::temp_dir().join(format!("campaign-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&place);
        std::fs::create_dir_all(&place)?;
        Ok(place)
    }

    #[test]
    fn a_copy_is_recovered_and_damage_is_seen() -> Result<()> {
        if !rustix::process::geteuid().is_root() || programs().is_err() {
            eprintln!("skipped: needs root and PostgreSQL");
            return Ok(());
        }
        let place = place("postgres")?;
        let (source, work) = (place.join("source"), place.join("work"));
        std::fs::create_dir(&work)?;
        make(&source)?;
        let seen = examine(&source, &work)?;
        assert!(seen.commits.is_empty() && seen.damage.is_empty(), "{seen:?}");
        {
            let server = Recovered::start(&source, &place)?;
            server.query(&transaction("a", 1, &mut Random::new(1)))?;
            server.query("INSERT INTO commits VALUES ('a', 2, '2 2 ')")?;
            server.query("INSERT INTO commits VALUES ('b', 3, 'x')")?;
            server.control(&["--mode=fast", "stop"])?;
        }
        let Content { commits, damage } = examine(&place.join(DIRECTORY), &work)?;
        assert_eq!(commits.into_iter().collect::<Vec<_>>(), [("a".into(), 1), ("a".into(), 2), ("b".into(), 3)]);
        assert_eq!(damage.len(), 2, "{damage:?}");
        assert!(damage[0].contains("by half") && damage[1].contains("b|3"), "{damage:?}");
        // A bit of a page.
        let server = Recovered::start(&source, &work)?;
        let file = server.query("SELECT pg_relation_filepath('accounts')")?.join("");
        server.control(&["--mode=fast", "stop"])?;
        drop(server);
        let path = source.join(file);
        let mut content = std::fs::read(&path)?;
        let last = content.len() - 1;
        content[last] ^= 1;
        std::fs::write(&path, content)?;
        let seen = examine(&source, &work).map_or_else(|error| format!("{error:#}"), |seen| seen.damage.join(" "));
        assert!(seen.contains("checksum") || seen.contains("invalid page"), "{seen}");
        std::fs::remove_dir_all(&place)?;
        Ok(())
    }
}
