//! One trial: work, faults, recovery, judgement.

use crate::campaign::compare::{differences, walk};
use crate::campaign::judge::{Evidence, Split, Verdict, judge};
use crate::campaign::load::Work;
use crate::campaign::notes::{self, now};
use crate::campaign::plan::{Act, NODES, Node, Step, other};
use crate::campaign::postgres;
use crate::campaign::random::Random;
use crate::lab;
use crate::mirror::{Mirror, SOON, State};
use crate::wait;
use anyhow::{Context, Result, bail};
use clap::ValueEnum as _;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long everything may take to be as it was, once nothing is broken any more.
const RECOVERY: Duration = Duration::from_mins(2);
/// How long a node may stand in STOP before its operator starts it.
const OPERATOR: Duration = Duration::from_secs(4);
/// How long the last changes that nobody made durable may take to reach the secondary.
const QUIET: Duration = Duration::from_secs(30);

/// How a trial ended.
#[derive(Debug, Default)]
pub struct Outcome {
    /// What the notes say about the tree.
    pub verdict: Verdict,
    /// Differences between the replicas.
    pub diverged: Vec<String>,
    /// Why the module did not recover.
    pub stuck: Option<String>,
    /// What an operator had to do.
    pub operator: Vec<String>,
    /// Errors the application saw: text and number.
    pub errors: BTreeMap<String, u64>,
    /// What was really done, with times in milliseconds.
    pub done: Vec<String>,
    /// Milliseconds from the last repair to PRIM and SECOND.
    pub recovery_ms: u64,
    /// Milliseconds that the comparison and the judgement took.
    pub judging_ms: u64,
}

impl Outcome {
    /// Nothing to complain about.
    pub fn good(&self) -> bool {
        self.verdict.lost.is_empty() && self.diverged.is_empty() && self.stuck.is_none()
    }
}

/// Test hosts with a module that runs the load.
#[derive(Debug)]
pub struct Arena {
    /// Lab and module.
    pub mirror: Mirror,
    /// Directory of notes, as the machine sees it.
    notes: PathBuf,
    /// Scratch directory on the machine.
    work: PathBuf,
}

const APPLICATION: &str = r#"#!/bin/sh
# Starts and stops the load of a campaign; the module's scripts call it.
notes=/opt/sk/bin/notes
pid=$(cat /run/campaign-load.pid 2>/dev/null)
# What is left of a database server: its children are no members of the load's group. All processes of that name on this host.
databases() {
    local process name
    for process in /proc/[0-9]*; do
        read -r name <$process/comm && [ "$name" = postgres ] && kill -s KILL "${process#/proc/}" && found=yes
    done 2>/dev/null
    [ -n "$found" ]
}
case $1 in
start)
    [ -e $notes/stop ] && exit 0
    setsid /opt/sk/bin/campaign-load --directory /srv/data --notes $notes --node "$(hostname)" \
        --seed "$(cat $notes/seed)" --work "$(cat $notes/work)" </dev/null >>/tmp/load.out 2>&1 &
    echo $! >/run/campaign-load.pid
    ;;
stop)
    while [ -n "$pid" ] && kill -s KILL -- "-$pid" 2>/dev/null; do sleep 0.02; done
    while found='' && databases; do sleep 0.02; done
    rm -f /run/campaign-load.pid
    ;;
esac
"#;

impl Arena {
    /// Makes a lab with the module `files`, paired. `bin`: the directory every host sees as /opt/sk/bin. `database`: whether there may be work
    /// for PostgreSQL.
    pub fn make(bin: &Path, rfs: &str, database: bool) -> Result<Self> {
        let mirror = Mirror::configured("campaign", "files", rfs)?;
        let notes = bin.join("notes");
        std::fs::create_dir_all(&notes)?;
        std::fs::write(notes.join("stop"), "")?;
        let work = bin.join("work");
        let module = work.join("module/bin");
        std::fs::create_dir_all(&module)?;
        std::fs::write(bin.join("campaign-app"), APPLICATION)?;
        for (script, verb) in [("prestart", "stop"), ("start_prim", "start"), ("stop_prim", "stop")] {
            std::fs::write(module.join(script), format!("#!/bin/sh\nexec sh /opt/sk/bin/campaign-app {verb}\n"))?;
        }
        let source = work.join("module").to_string_lossy().into_owned();
        for node in NODES {
            mirror.lab.run(&["push", node, &source, "/etc/sk/modules/files"])?;
            // The counter of automatic restarts would stop a module that is killed this often.
            let edit = "cd /etc/sk/modules/files && chmod +x bin/* && sed -i -e 's/boot=\"auto\"/& loop_interval=\"0\"/' \
                 -e 's|<user/>|<user nicestoptimeout=\"20s\" forcestoptimeout=\"20s\"/>|' conf/userconfig.xml && \
                 sk-module config -m files --id 1";
            mirror.lab.sh(node, edit)?;
        }
        let arena = Self { mirror, notes, work };
        if database {
            arena.install_database()?;
        }
        arena.mirror.start_pair().inspect_err(|_| arena.mirror.diagnose())?;
        Ok(arena)
    }

    /// Puts an empty data base on the first primary, while its directory is a plain one.
    fn install_database(&self) -> Result<()> {
        let template = self.work.join("template");
        if !template.exists() {
            postgres::make(&template)?;
        }
        let target = self.mirror.disk("node1", "/srv/data")?;
        let mut copy = std::process::Command::new("cp");
        copy.arg("-a").arg(&template).arg(target.join(postgres::DIRECTORY));
        lab::checked(copy, &["cp"])?;
        let mut sync = std::process::Command::new("sync");
        sync.arg("--file-system").arg(&target);
        lab::checked(sync, &["sync"]).map(drop)
    }

    fn application(&self, node: &str, verb: &str) -> Result<()> {
        self.mirror.lab.exec(node, &["timeout", "20", "sh", "/opt/sk/bin/campaign-app", verb]).map(drop)
    }

    /// Ends the load wherever it runs.
    fn stop_load(&self) -> Result<()> {
        std::fs::write(self.notes.join("stop"), "")?;
        NODES.iter().try_for_each(|node| self.application(node, "stop"))
    }

    /// Runs a trial. An error says that the trial itself could not be carried out.
    pub fn trial(&self, seed: u64, work: Work, plan: &[Step]) -> Result<Outcome> {
        let (primary, _) = self.mirror.any_pair()?;
        self.stop_load()?;
        let old = format!("find /srv/data -mindepth 1 -maxdepth 1 ! -name {} -exec rm -rf {{}} +", postgres::DIRECTORY);
        self.mirror.lab.sh(primary, &old)?;
        for node in NODES {
            let salvage = self.mirror.disk(node, "/var/lib/sk/modules/files/salvage")?;
            if salvage.exists() {
                std::fs::remove_dir_all(&salvage)?;
            }
        }
        for entry in std::fs::read_dir(&self.notes)? {
            std::fs::remove_file(entry?.path())?;
        }
        std::fs::write(self.notes.join("seed"), Random::new(seed).draw().to_string())?;
        let name = work.to_possible_value().context("a work without a name")?;
        std::fs::write(self.notes.join("work"), name.get_name())?;
        let log_lengths: Vec<usize> = NODES.iter().map(|node| self.mirror.log(node).len()).collect();
        self.application(primary, "start")?;
        self.works(work, 300)?;

        let mut attack = Attack::new(self);
        for step in plan {
            attack.carry_out(step)?;
        }
        attack.repair()?;
        let mut outcome = Outcome { done: attack.done.clone(), ..Outcome::default() };
        let began = Instant::now();
        let pair = self.recover(&mut outcome);
        outcome.recovery_ms = milliseconds(began);
        let mut split = Split { isolated: attack.isolated.clone(), losers: BTreeSet::new() };
        let primary = match pair {
            Ok(primary) => primary,
            Err(error) => {
                outcome.stuck = Some(format!("{error:#}"));
                self.errors(&mut outcome)?;
                return Ok(outcome);
            }
        };
        // The pair serves: whoever works on it gets further.
        if let Err(error) = self.works(work, 50) {
            outcome.stuck = Some(format!("the application does not get on: {error:#}"));
            return Ok(outcome);
        }
        if let Err(error) = self.stop_load() {
            outcome.stuck = Some(format!("the application cannot be ended: {error:#}"));
            return Ok(outcome);
        }
        self.errors(&mut outcome)?;
        for (node, length) in NODES.iter().zip(log_lengths) {
            let log = self.mirror.log(node);
            // Who served alone gives way when both see each other again; or an order or its end took the role from it before.
            let gave_way = |new: &str| {
                let alone = new.contains("Action alone called by heart: no heartbeat");
                new.contains("Split brain recovery: exiting alone") || (alone && new.contains("was kept aside"))
            };
            if log.get(length..).is_none_or(gave_way) {
                split.losers.insert((*node).to_owned());
            }
        }
        let began = Instant::now();
        let (one, two) = (self.mirror.disk("node1", "/srv/data")?, self.mirror.disk("node2", "/srv/data")?);
        let compared = wait::until("equal replicas", QUIET, || {
            let found = walk(&one).and_then(|one| Ok(differences(&one, &walk(&two)?, 20)));
            match found {
                Ok(found) if found.is_empty() => Ok(()),
                Ok(found) => Err(found.join("\n")),
                Err(error) => Err(format!("{error:#}")),
            }
        });
        if let Err(error) = compared {
            outcome.diverged = format!("{error:#}").lines().map(str::to_owned).collect();
        }
        let salvages = NODES.iter().map(|node| self.mirror.disk(node, "/var/lib/sk/modules/files/salvage"));
        let evidence = Evidence {
            tree: self.mirror.disk(primary, "/srv/data")?,
            salvages: salvages.collect::<Result<_>>()?,
            work: self.work.clone(),
        };
        outcome.verdict = judge(&notes::lives(&self.notes)?, &split, &evidence)?;
        outcome.judging_ms = milliseconds(began);
        Ok(outcome)
    }

    fn errors(&self, outcome: &mut Outcome) -> Result<()> {
        for life in notes::lives(&self.notes)? {
            for note in life.notes.iter().filter(|note| note.kind == notes::Kind::Failed) {
                *outcome.errors.entry(note.words.clone()).or_default() += 1;
            }
        }
        Ok(())
    }

    /// Waits until everything gets on.
    fn works(&self, work: Work, more: u64) -> Result<()> {
        self.acknowledged("", more)?;
        if work == Work::Postgres { self.acknowledged("p/", more / 5) } else { Ok(()) }
    }

    /// Waits for acknowledgements beyond the present ones, of things whose keys begin so.
    fn acknowledged(&self, prefix: &str, more: u64) -> Result<()> {
        let counts = |note: &notes::Note| note.kind == notes::Kind::Done && note.key.starts_with(prefix);
        let count = || -> u64 {
            let lives = notes::lives(&self.notes).unwrap_or_default();
            let done = |life: &notes::Life| life.notes.iter().filter(|note| counts(note)).count();
            lives.iter().map(done).sum::<usize>() as u64
        };
        let wanted = count() + more;
        wait::until(&format!("{more} acknowledgements {prefix}"), SOON, || {
            let now = count();
            if now >= wanted { Ok(()) } else { Err(format!("{} missing", wanted - now)) }
        })
    }

    /// Waits for PRIM and SECOND, doing what the operator's guide asks for; the primary's name.
    fn recover(&self, outcome: &mut Outcome) -> Result<Node> {
        let mut standing: BTreeMap<Node, (String, Instant)> = BTreeMap::new();
        let mut good_since: Option<Instant> = None;
        let began = Instant::now();
        loop {
            let states = NODES.map(|node| (node, self.mirror.state(node)));
            let primary =
                states.iter().find(|(_, s)| s.as_ref().is_ok_and(|s| ready(s, "PRIM"))).map(|(node, _)| *node);
            let secondary = states.iter().any(|(_, s)| s.as_ref().is_ok_and(|s| ready(s, "SECOND")));
            match (primary, secondary, good_since) {
                (Some(primary), true, Some(since)) if since.elapsed() > Duration::from_millis(300) => {
                    return Ok(primary);
                }
                (Some(_), true, None) => good_since = Some(Instant::now()),
                (Some(_), true, _) => {}
                _ => good_since = None,
            }
            if began.elapsed() > RECOVERY {
                bail!("not PRIM and SECOND within {} s: {states:?}", RECOVERY.as_secs());
            }
            for (node, state) in &states {
                let Ok(state) = state else { continue };
                let words = format!("{} {} {}", state.state, state.readiness, state.data);
                let entry = standing.entry(node).or_insert_with(|| (words.clone(), Instant::now()));
                if entry.0 != words {
                    *entry = (words.clone(), Instant::now());
                }
                if entry.1.elapsed() < OPERATOR {
                    continue;
                }
                if state.state == "STOP" {
                    outcome.operator.push(format!("{node}: {words}: start"));
                    self.ordered(node, &["start"]);
                    *entry = (String::new(), Instant::now());
                } else if state.data == "degraded" {
                    outcome.operator.push(format!("{node}: {words}: stop, start"));
                    self.ordered(node, &["stop", "--wait"]);
                    self.ordered(node, &["start"]);
                    *entry = (String::new(), Instant::now());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// An order that may be refused.
    fn ordered(&self, node: &str, verb: &[&str]) {
        let mut command = vec!["timeout", "20", "sk-module"];
        command.extend(verb);
        command.extend(["-m", "files"]);
        let _ = self.mirror.lab.try_exec(node, &command);
    }

    /// Copies what a person needs to understand a failure.
    pub fn keep(&self, into: &Path) -> Result<()> {
        for node in NODES {
            let target = into.join(node);
            std::fs::create_dir_all(&target)?;
            let sources = [
                self.mirror.disk(node, "/var/lib/sk/modules/files").ok(),
                self.mirror.lab.path(node, "/run/sk/files"),
                self.mirror.disk(node, "/var/lib/sk/boot.log").ok(),
                self.mirror.lab.path(node, "/tmp/load.out"),
            ];
            for source in sources.into_iter().flatten() {
                let mut command = std::process::Command::new("cp");
                command.args(["-r", "--sparse=always"]).arg(&source).arg(&target);
                // Sockets cannot be copied; everything else was.
                let _ = lab::checked(command, &["cp"]);
            }
            if let Ok(tree) = self.mirror.disk(node, "/srv/data") {
                let mut command = std::process::Command::new("cp");
                command.args(["-a", "--sparse=always"]).arg(tree).arg(target.join("tree"));
                let _ = lab::checked(command, &["cp"]);
            }
        }
        let mut command = std::process::Command::new("cp");
        command.arg("-r").arg(&self.notes).arg(into);
        lab::checked(command, &["cp"]).map(drop)
    }
}

fn milliseconds(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

fn ready(state: &State, name: &str) -> bool {
    state.state == name
        && state.readiness == "Ready"
        && state.data == "uptodate"
        && state.replica.as_ref().is_some_and(|replica| !replica.frozen)
}

/// Faults being carried out, and what is broken at present.
struct Attack<'a> {
    arena: &'a Arena,
    began: Instant,
    off: BTreeSet<Node>,
    paused: BTreeSet<Node>,
    /// Also when the room was given back: the loss of power may take that back.
    full: BTreeSet<Node>,
    cut: BTreeSet<&'static str>,
    isolated_since: Option<u64>,
    isolated: Vec<(u64, u64)>,
    done: Vec<String>,
}

impl<'a> Attack<'a> {
    fn new(arena: &'a Arena) -> Self {
        Self {
            arena,
            began: Instant::now(),
            off: BTreeSet::new(),
            paused: BTreeSet::new(),
            full: BTreeSet::new(),
            cut: BTreeSet::new(),
            isolated_since: None,
            isolated: Vec::new(),
            done: Vec::new(),
        }
    }

    fn lab(&self, arguments: &[&str]) -> Result<String> {
        self.arena.mirror.lab.run(arguments)
    }

    fn carry_out(&mut self, step: &Step) -> Result<()> {
        let at = Duration::from_millis(step.at_ms);
        // The plan's times are part of the attack, not a wait for something.
        std::thread::sleep(at.saturating_sub(self.began.elapsed()));
        let begun = self.began.elapsed().as_millis();
        let carried_out = self.act(&step.act)?;
        let note = if carried_out { "" } else { " (not possible then)" };
        self.done.push(format!("{begun}-{} ms {:?}{note}", self.began.elapsed().as_millis(), step.act));
        Ok(())
    }

    fn act(&mut self, act: &Act) -> Result<bool> {
        match act {
            Act::Poweroff(node) if !self.off.contains(node) => {
                self.lab(&["poweroff", node])?;
                self.off.insert(node);
                self.paused.remove(node);
            }
            Act::Boot(node) if self.off.contains(node) => {
                self.lab(&["boot", node])?;
                self.off.remove(node);
            }
            Act::Kill(node, pattern) if !self.off.contains(node) => {
                return Ok(self.arena.mirror.lab.kill(node, pattern).is_ok());
            }
            Act::Cut { from, net, one_way } => {
                let mut arguments = vec!["cut", from, other(from), "--net", net];
                if *one_way {
                    arguments.push("--one-way");
                }
                self.lab(&arguments)?;
                self.cut.extend(if *net == "all" { vec!["prod", "repl"] } else { vec![*net] });
                if self.cut.len() == 2 && self.isolated_since.is_none() {
                    // Not the time before the cut: what was acknowledged then is on both nodes and needs no excuse. Between the cut
                    // and now nothing is acknowledged, since both still need each other.
                    self.isolated_since = Some(now());
                }
            }
            Act::Heal => self.heal()?,
            Act::Pause(node) if !self.off.contains(node) && !self.paused.contains(node) => {
                self.lab(&["pause", node])?;
                self.paused.insert(node);
            }
            Act::Resume(node) if self.paused.contains(node) => {
                self.lab(&["resume", node])?;
                self.paused.remove(node);
            }
            Act::Fill(node) if !self.off.contains(node) => {
                self.full.insert(node);
                let fill = "for size in 512M 256M 128M 64M 32M 16M 8M 4M 2M 1M 512K 256K 128K 64K 32K 16K 8K 4K 4K 4K; do \
                    fallocate -l $size /srv/filler.$size 2>/dev/null; done; true";
                self.arena.mirror.lab.sh(node, fill)?;
            }
            Act::Free(node) if !self.off.contains(node) => self.free(node)?,
            Act::Order(node, verb) if !self.off.contains(node) && !self.paused.contains(node) => {
                self.arena.ordered(node, verb);
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn heal(&mut self) -> Result<()> {
        self.lab(&["heal"])?;
        self.cut.clear();
        if let Some(since) = self.isolated_since.take() {
            // Until both know each other again, with time for a busy machine.
            self.isolated.push((since, now() + 20_000_000_000));
        }
        Ok(())
    }

    fn free(&mut self, node: Node) -> Result<()> {
        self.arena.mirror.lab.sh(node, "rm -f /srv/filler.*").map(drop)
    }

    /// Everything that is broken is mended.
    fn repair(&mut self) -> Result<()> {
        self.heal()?;
        for node in std::mem::take(&mut self.paused) {
            self.lab(&["resume", node])?;
        }
        for node in std::mem::take(&mut self.off) {
            self.lab(&["boot", node])?;
        }
        for node in std::mem::take(&mut self.full) {
            self.free(node)?;
            // A loss of power in the next trial must not fill the disk again.
            self.arena.mirror.lab.sh(node, "sync --file-system /srv")?;
        }
        self.done.push(format!("{} ms everything mended", self.began.elapsed().as_millis()));
        Ok(())
    }
}
