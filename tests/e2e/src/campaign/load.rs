//! The application under attack: writes whose content tells what they are, and notes of what was acknowledged.

use crate::campaign::notes::{Kind, Notebook, now};
use crate::campaign::postgres::CLIENTS;
use crate::campaign::random::Random;
use anyhow::{Context, Result, anyhow};
use std::fs::{File, OpenOptions, Permissions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Bytes of a block, and of a page: a crash does not tear it.
pub const BLOCK: usize = 4096;
/// Files of blocks, and blocks in each.
pub const FILES: u64 = 4;
/// See [`FILES`].
pub const BLOCKS: u64 = 512;
/// Bytes of a record.
pub const RECORD: usize = 64;
/// Names a thread plays with.
const NAMES: u64 = 40;
const DSYNC: i32 = 0o10_000;

/// What block `index` of `file` holds in version `version`.
pub fn block(file: &str, index: u64, version: u64) -> Vec<u8> {
    let mut content = format!("{file} {index} {version}\n").into_bytes();
    let mut random = Random::new(version ^ (index << 40));
    while content.len() < BLOCK {
        content.extend_from_slice(&random.draw().to_le_bytes());
    }
    content.truncate(BLOCK);
    content
}

/// The version of a block read from `file`; 0 for zeros (never written), nothing for anything that was never written as one block.
pub fn version_of(file: &str, index: u64, content: &[u8]) -> Option<u64> {
    if content.iter().all(|byte| *byte == 0) {
        return Some(0);
    }
    let head = content.get(..content.iter().position(|byte| *byte == b'\n')?)?;
    let version = std::str::from_utf8(head).ok()?.rsplit(' ').next()?.parse().ok()?;
    (content == block(file, index, version)).then_some(version)
}

/// Record `number` of a stream.
pub fn record(number: u64) -> String {
    format!("{number:>0$}\n", RECORD - 1)
}

/// Content of the file with the given version: of varying length.
pub fn named(version: u64) -> Vec<u8> {
    let mut random = Random::new(version);
    let length = usize::try_from(random.below(9000)).unwrap_or(0);
    let mut content = format!("{version}\n").into_bytes();
    while content.len() < length {
        content.extend_from_slice(&random.draw().to_le_bytes());
    }
    content
}

/// What works on the replicated directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Work {
    /// Writers of blocks, records and names, and changes of all kinds that nobody makes durable
    Files,
    /// The same, and two databases of SQLite
    Sqlite,
    /// The same, and a PostgreSQL server with its clients
    Postgres,
}

impl Work {
    /// Each as often as the others.
    pub fn of(random: &mut Random) -> Self {
        random.pick(&[Self::Files, Self::Sqlite, Self::Postgres]).copied().unwrap_or(Self::Files)
    }
}

/// One life of the application: where it works, what it notes.
#[derive(Debug)]
pub struct Load {
    pub(super) directory: PathBuf,
    /// Name of this life.
    pub(super) name: String,
    pub(super) notes: Notebook,
    seed: u64,
}

impl Load {
    /// `directory`: the replicated one. `notes`: a directory that survives the node.
    pub fn new(directory: &Path, notes: &Path, node: &str, seed: u64) -> Result<Self> {
        let start = now();
        let name = format!("{node}-{start}");
        let notes = Notebook::create(&notes.join(format!("{name}.notes")))?;
        Ok(Self { directory: directory.to_owned(), name, notes, seed: seed ^ start })
    }

    /// Works until the process is killed.
    pub fn run(&self, work: Work) -> Result<()> {
        for sub in ["blocks", "records", "names", "noise", "db"] {
            self.until_done("d/start", || durable_directory(&self.directory.join(sub)))?;
        }
        let names = self.directory.join("names").join(&self.name);
        self.until_done("d/start", || durable_directory(&names))?;
        std::thread::scope(|scope| {
            let mut workers = vec![
                scope.spawn(|| self.blocks(1)),
                scope.spawn(|| self.blocks(2)),
                scope.spawn(|| self.records("a", true)),
                scope.spawn(|| self.records("b", false)),
                scope.spawn(|| self.names(&names)),
                scope.spawn(|| self.noise()),
            ];
            match work {
                Work::Files => {}
                Work::Sqlite => {
                    workers.push(scope.spawn(|| self.rows("journal", "DELETE")));
                    workers.push(scope.spawn(|| self.rows("wal", "WAL")));
                }
                Work::Postgres => {
                    workers.push(scope.spawn(|| self.server()));
                    workers.extend((0..CLIENTS).map(|client| scope.spawn(move || self.commits(client))));
                }
            }
            for worker in workers {
                worker.join().map_err(|_| anyhow!("a worker panicked"))??;
            }
            Ok(())
        })
    }

    pub(super) fn random(&self, stream: u64) -> Random {
        Random::new(Random::new(self.seed ^ stream).draw())
    }

    /// Repeats what fails, since a full disk may have room again, and notes each failure.
    fn until_done<T>(&self, key: &str, mut step: impl FnMut() -> Result<T>) -> Result<T> {
        loop {
            match step() {
                Ok(value) => return Ok(value),
                Err(error) => self.failed(&[(key, 0)], &error)?,
            }
        }
    }

    pub(super) fn failed(&self, facts: &[(&str, u64)], error: &anyhow::Error) -> Result<()> {
        self.notes.write(Kind::Failed, facts.iter().copied(), &format!("{error:#}").replace('\n', " "))?;
        std::thread::sleep(Duration::from_millis(30));
        Ok(())
    }

    /// Does a thing that is durable when `step` returns.
    fn durably(&self, facts: &[(&str, u64)], step: impl FnOnce() -> Result<()>) -> Result<()> {
        self.notes.write(Kind::Intent, facts.iter().copied(), "")?;
        match step() {
            Ok(()) => self.notes.write(Kind::Done, facts.iter().copied(), ""),
            Err(error) => self.failed(facts, &error),
        }
    }

    /// Blocks of files that all lives share, each file written by one thread.
    fn blocks(&self, worker: u64) -> Result<()> {
        let mut random = self.random(worker);
        loop {
            let file = format!("F{}", random.below(FILES / 2) * 2 + worker % 2);
            let path = self.directory.join("blocks").join(&file);
            let dsync = random.chance(50);
            let count = if dsync { 1 } else { random.range(1, 9) };
            let first = random.below(BLOCKS);
            let version = now();
            let written: Vec<u64> = (0..count).map(|n| (first + n * 7) % BLOCKS).collect();
            let keys: Vec<String> = written.iter().map(|index| format!("b/{file}/{index}")).collect();
            let facts: Vec<(&str, u64)> = keys.iter().map(|key| (key.as_str(), version)).collect();
            self.durably(&facts, || {
                let mut options = OpenOptions::new();
                options.create(true).truncate(false).write(true).custom_flags(if dsync { DSYNC } else { 0 });
                let open = options.open(&path).context("open blocks")?;
                for index in &written {
                    open.write_all_at(&block(&file, *index, version), index * BLOCK as u64).context("write block")?;
                }
                if !dsync {
                    open.sync_data().context("fdatasync of blocks")?;
                }
                Ok(())
            })?;
        }
    }

    /// An append-only file of this life.
    fn records(&self, stream: &str, dsync: bool) -> Result<()> {
        let name = format!("{}-{stream}", self.name);
        let key = format!("r/{name}");
        let path = self.directory.join("records").join(&name);
        let file = self.until_done(&key, || {
            let mut options = OpenOptions::new();
            options.create(true).truncate(false).write(true).custom_flags(if dsync { DSYNC } else { 0 });
            options.open(&path).context("open records")
        })?;
        self.until_done(&key, || sync_directory(&self.directory.join("records")))?;
        let mut number = 1;
        loop {
            let facts = [(key.as_str(), number)];
            self.notes.write(Kind::Intent, facts, "")?;
            let outcome = file
                .write_all_at(record(number).as_bytes(), (number - 1) * RECORD as u64)
                .and_then(|()| if dsync { Ok(()) } else { file.sync_data() })
                .context("write record");
            match outcome {
                Ok(()) => {
                    self.notes.write(Kind::Done, facts, "")?;
                    number += 1;
                }
                Err(error) => self.failed(&facts, &error)?,
            }
        }
    }

    /// Makes, replaces, renames and removes files of a directory of this life.
    fn names(&self, directory: &Path) -> Result<()> {
        let mut random = self.random(10);
        let key = |name: u64| format!("n/{}/x{name}", self.name);
        let mut present = std::collections::BTreeMap::<u64, u64>::new();
        loop {
            let (name, other) = (random.below(NAMES), random.below(NAMES));
            let path = directory.join(format!("x{name}"));
            match (random.below(10), present.get(&name).copied()) {
                (0..=5, _) => {
                    let version = now();
                    let temporary = directory.join(".temporary");
                    self.durably(&[(&key(name), version)], || {
                        let mut file = File::create(&temporary).context("create")?;
                        file.write_all(&named(version)).context("write a named file")?;
                        file.sync_all().context("fsync of a named file")?;
                        std::fs::rename(&temporary, &path).context("rename into place")?;
                        present.insert(name, version);
                        sync_directory(directory)
                    })?;
                }
                (6..=7, Some(_)) => self.durably(&[(&key(name), 0)], || {
                    std::fs::remove_file(&path).context("unlink")?;
                    present.remove(&name);
                    sync_directory(directory)
                })?,
                (_, Some(version)) if name != other => {
                    self.durably(&[(&key(name), 0), (&key(other), version)], || {
                        std::fs::rename(&path, directory.join(format!("x{other}"))).context("rename")?;
                        present.remove(&name);
                        present.insert(other, version);
                        sync_directory(directory)
                    })?;
                }
                _ => {}
            }
        }
    }

    /// Everything else a tree can hold, never made durable: only that both replicas have the same is asked.
    fn noise(&self) -> Result<()> {
        let mut random = self.random(20);
        let base = self.directory.join("noise");
        loop {
            if let Err(error) = disturb(&base, &mut random)
                && !ordinary(&error)
            {
                self.failed(&[("z/noise", 0)], &anyhow::Error::from(error).context("noise"))?;
            }
            std::thread::sleep(Duration::from_millis(random.below(4)));
        }
    }

    /// Rows of a database that all lives share.
    fn rows(&self, name: &str, mode: &str) -> Result<()> {
        let path = self.directory.join("db").join(name);
        let key = format!("s/{name}/{}", self.name);
        let mut number = 1;
        loop {
            let mut child = Command::new("sqlite3")
                .args(["-batch", "-noheader"])
                .arg(&path)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .context("start sqlite3")?;
            let outcome = self.feed(&mut child, mode, &key, &mut number);
            drop(child.stdin.take());
            let _ = child.kill();
            child.wait()?;
            self.failed(&[(&key, number)], &outcome.err().unwrap_or_else(|| anyhow!("sqlite3 ended")))?;
        }
    }

    fn feed(&self, child: &mut std::process::Child, mode: &str, key: &str, number: &mut u64) -> Result<()> {
        let input = child.stdin.as_mut().context("no pipe to sqlite3")?;
        let mut output = BufReader::new(child.stdout.as_mut().context("no pipe from sqlite3")?);
        let mut line = String::new();
        // EXTRA: with a rollback journal, FULL does not promise that the last transaction outlives a loss of power (its journal is unlinked, and the
        // directory not synced).
        writeln!(
            input,
            ".bail on\n.timeout 10000\nPRAGMA journal_mode={mode};\nPRAGMA synchronous=EXTRA;\n\
             CREATE TABLE IF NOT EXISTS t(life TEXT, n INTEGER, PRIMARY KEY(life, n));\nSELECT 'ready';"
        )?;
        while line != "ready\n" {
            line.clear();
            anyhow::ensure!(output.read_line(&mut line)? > 0, "sqlite3 does not open the database");
        }
        loop {
            self.notes.write(Kind::Intent, [(key, *number)], "")?;
            writeln!(input, "INSERT OR IGNORE INTO t VALUES('{}', {number});\nSELECT 'in {number}';", self.name)?;
            line.clear();
            anyhow::ensure!(output.read_line(&mut line)? > 0, "sqlite3 refused a row");
            anyhow::ensure!(line == format!("in {number}\n"), "sqlite3 says {line:?}");
            self.notes.write(Kind::Done, [(key, *number)], "")?;
            *number += 1;
        }
    }
}

fn sync_directory(path: &Path) -> Result<()> {
    File::open(path).and_then(|directory| directory.sync_all()).context("fsync of a directory")
}

fn durable_directory(path: &Path) -> Result<()> {
    std::fs::create_dir_all(path).context("make a directory")?;
    for up in path.ancestors().take(3) {
        sync_directory(up)?;
    }
    Ok(())
}

/// EPERM (attributes of a symlink), ELOOP, ENODATA.
const ELSEWHERE: [i32; 3] = [1, 40, 61];

/// Errors that random changes of names meet on a local disk, too.
fn ordinary(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{
        AlreadyExists, DirectoryNotEmpty, InvalidInput, IsADirectory, NotADirectory, NotFound, ResourceBusy,
    };
    matches!(
        error.kind(),
        AlreadyExists | DirectoryNotEmpty | InvalidInput | IsADirectory | NotADirectory | NotFound | ResourceBusy
    ) || error.raw_os_error().is_some_and(|number| ELSEWHERE.contains(&number))
}

fn disturb(base: &Path, random: &mut Random) -> std::io::Result<()> {
    let place = |random: &mut Random| {
        let directory = base.join(format!("d{}", random.below(4)));
        if random.chance(20) { directory } else { directory.join(format!("é {}", random.below(12))) }
    };
    let one = place(random);
    let two = place(random);
    match random.below(14) {
        0 | 1 => std::fs::create_dir_all(&one),
        2 => std::fs::remove_file(&one),
        3 => std::fs::remove_dir_all(&one),
        4 => std::fs::rename(&one, &two),
        5 => std::fs::hard_link(&one, &two),
        6 => std::os::unix::fs::symlink(&two, &one),
        7 => std::fs::symlink_metadata(&one).and_then(|meta| {
            if meta.is_symlink() {
                return Ok(());
            }
            std::fs::set_permissions(&one, Permissions::from_mode(0o600 + u32::try_from(random.below(64)).unwrap_or(0)))
        }),
        8 => {
            let name = format!("user.x{}", random.below(3));
            if random.chance(60) {
                let value = named(random.draw()).into_iter().take(200).collect::<Vec<u8>>();
                rustix::fs::lsetxattr(&one, name.as_str(), &value, rustix::fs::XattrFlags::empty())?;
            } else {
                rustix::fs::lremovexattr(&one, name.as_str())?;
            }
            Ok(())
        }
        9 => OpenOptions::new().write(true).open(&one)?.set_len(random.below(300_000)),
        10 => std::os::unix::fs::lchown(&one, Some(u32::try_from(random.below(5)).unwrap_or(0)), Some(7)),
        _ => {
            let file = OpenOptions::new().create(true).truncate(false).write(true).open(&one)?;
            let content = named(random.draw());
            file.write_all_at(&content, random.below(200_000))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_tells_what_it_is_and_nothing_else_passes() {
        let mut content = block("F1", 3, 77);
        assert_eq!(version_of("F1", 3, &content), Some(77));
        assert_eq!(version_of("F1", 4, &content), None);
        assert_eq!(version_of("F2", 3, &content), None);
        content[BLOCK - 1] ^= 1;
        assert_eq!(version_of("F1", 3, &content), None);
        assert_eq!(version_of("F1", 3, &[0; BLOCK]), Some(0));
    }
}
