//! A lab of `scripts/lab` that lives as long as a scenario.

use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

/// Test hosts `node1`…, `client`, `witness`; removed when dropped (kept when `SK_LAB_KEEP` is set, to look around).
#[derive(Debug)]
pub struct Lab {
    name: String,
}

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// The repository's `scripts` directory.
pub fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts")
}

impl Lab {
    /// Makes and boots `nodes` nodes in a lab of a name nobody else has.
    pub fn up(purpose: &str, nodes: u32) -> Result<Self> {
        Self::up_on(purpose, nodes, None)
    }

    /// The same, with disks of this size (MiB).
    pub fn up_on(purpose: &str, nodes: u32, disk_mib: Option<u64>) -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let lab = Self { name: format!("{purpose}-{}-{number}", std::process::id()) };
        let (nodes, disk) = (nodes.to_string(), disk_mib.map(|mib| mib.to_string()));
        let size = disk.iter().flat_map(|disk| ["--disk-mb", disk.as_str()]);
        lab.run(&["up", nodes.as_str()].into_iter().chain(size).collect::<Vec<_>>())?;
        Ok(lab)
    }

    /// The lab's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// `scripts/lab` with arguments, ready to be spawned.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(scripts().join("lab"));
        command.args(["--name", &self.name]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Runs a command of the lab; what it wrote to stdout. An exit code other than 0 is an error.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        checked(self.command(arguments), arguments)
    }

    /// All these hosts lose their power at the same instant for all that they can tell: they stand still first, since pulling one plug may take
    /// longer than the others need to notice a loss.
    pub fn blackout(&self, hosts: &[&str]) -> Result<()> {
        let mut frozen =
            hosts.iter().map(|host| self.command(&["pause", host]).spawn()).collect::<std::io::Result<Vec<_>>>()?;
        for pause in &mut frozen {
            ensure!(pause.wait()?.success(), "a host could not be frozen");
        }
        hosts.iter().try_for_each(|host| self.run(&["poweroff", host]).map(drop))
    }

    /// Runs a command on a host; its stdout. An exit code other than 0 is an error.
    pub fn exec(&self, host: &str, command: &[&str]) -> Result<String> {
        self.run(&[&["exec", host], command].concat())
    }

    /// Runs a shell command line on a host; its stdout. An exit code other than 0 is an error.
    pub fn sh(&self, host: &str, line: &str) -> Result<String> {
        self.exec(host, &["sh", "-c", line])
    }

    /// Runs a command on a host and tells how it ended.
    pub fn try_exec(&self, host: &str, command: &[&str]) -> Result<Output> {
        self.command(&[&["exec", host], command].concat()).output().context("run scripts/lab")
    }

    /// Starts a command on a host with pipes for its stdin and stdout.
    pub fn spawn(&self, host: &str, command: &[&str]) -> Result<Child> {
        self.command(&[&["exec", host], command].concat())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run scripts/lab")
    }

    /// A host's address on `prod` or `repl`.
    pub fn address(&self, host: &str, network: &str) -> Result<String> {
        Ok(self.run(&["address", host, network])?.trim().to_owned())
    }

    /// Starts a command in the networks and file systems of a host, but not among its processes: it goes on while the host is paused.
    pub fn spawn_beside(&self, host: &str, command: &[&str]) -> Result<Child> {
        let pid = self.init(host).with_context(|| format!("{host} is off"))?;
        Command::new("nsenter")
            .args(["-t", &pid, "-m", "-n", "-r", "-w", "--"])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("run nsenter")
    }

    fn init(&self, host: &str) -> Option<String> {
        let state = std::env::var_os("SK_LAB_STATE").map_or_else(|| PathBuf::from("/run/sk-lab"), PathBuf::from);
        let init = std::fs::read_to_string(state.join(&self.name).join("hosts").join(host).join("init")).ok()?;
        init.split_whitespace().next().map(str::to_owned)
    }

    /// A path as the host sees it, readable from outside without starting a process. `None`: the host is off.
    pub fn path(&self, host: &str, path: &str) -> Option<PathBuf> {
        let pid = self.init(host)?;
        Some(PathBuf::from(format!("/proc/{pid}/root{path}")))
    }

    /// The content of a file of a host. `None`: the host is off, or there is no such file.
    pub fn read(&self, host: &str, path: &str) -> Option<String> {
        std::fs::read_to_string(self.path(host, path)?).ok()
    }

    /// Puts the PostgreSQL template, unfilled, on node1 as the module `template`.
    pub fn push_template(&self) -> Result<()> {
        let template = scripts().join("modules/postgresql");
        self.run(&["push", "node1", &template.to_string_lossy(), "/etc/sk/modules/template"])?;
        Ok(())
    }

    /// Pids, as the host counts them, of the processes whose command line matches the extended regular expression.
    pub fn pids(&self, host: &str, pattern: &str) -> Result<Vec<u32>> {
        let output = self.try_exec(host, &["pgrep", "-f", pattern])?;
        Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(|line| line.trim().parse().ok()).collect())
    }

    /// Kills with SIGKILL, on a host, the processes of [`Lab::pids`]; an error when there are none.
    pub fn kill(&self, host: &str, pattern: &str) -> Result<Vec<u32>> {
        let pids = self.pids(host, pattern)?;
        if pids.is_empty() {
            bail!("{host}: no process matches {pattern:?}");
        }
        for pid in &pids {
            self.exec(host, &["kill", "-KILL", &pid.to_string()])?;
        }
        Ok(pids)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if std::env::var_os("SK_LAB_KEEP").is_some() {
            eprintln!("kept: scripts/lab --name {} status", self.name);
        } else if let Err(error) = self.run(&["down"]) {
            eprintln!("{error:#}");
        }
    }
}

/// Runs a command to its end; its stdout. An exit code other than 0 is an error with its stderr.
pub fn checked(mut command: Command, shown: &[&str]) -> Result<String> {
    let output = command.output().with_context(|| format!("run {shown:?}"))?;
    if !output.status.success() {
        let words = String::from_utf8_lossy(&output.stderr);
        bail!("{shown:?}: {}: {}", output.status, words.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
