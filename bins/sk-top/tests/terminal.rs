//! Does `sk-top` live on a real (pseudo) terminal, and give it back?

#![allow(clippy::unwrap_used)] // a test may panic

use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(10);

fn running() -> Value {
    json!({"ok": true, "module": "AM", "node": "n1", "peer": "n2", "state": "PRIM", "readiness": "Ready",
        "remote": {"state": "SECOND", "readiness": "Ready"}, "data": "uptodate"})
}

/// A node with a module AM whose runner says `running`, and a stopped module.
fn node() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for path in ["var/modules/AM", "var/modules/idle", "run/AM", "safe/bin"] {
        std::fs::create_dir_all(dir.path().join(path)).unwrap();
    }
    let line = "2026-11-20 10:00:00 | heart | E | logged words\n";
    std::fs::write(dir.path().join("var/modules/AM/log"), line).unwrap();
    let listener = UnixListener::bind(dir.path().join("run/AM/control")).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            std::thread::spawn(move || {
                let mut line = String::new();
                BufReader::new(stream.try_clone().unwrap()).read_line(&mut line).unwrap();
                let again = line.contains("watch");
                while stream.write_all(format!("{}\n", running()).as_bytes()).is_ok() && again {
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
        }
    });
    dir
}

fn command(dir: &tempfile::TempDir, program: &str) -> Command {
    let mut command = Command::new(program);
    for (name, directory) in [("SK_ETC", "etc"), ("SK_VAR", "var"), ("SK_RUN", "run"), ("SK_SAFE", "safe")] {
        command.env(name, dir.path().join(directory));
    }
    command.env("TERM", "xterm");
    command
}

/// A process on a terminal of 80 × 24.
struct Terminal {
    child: Child,
    keyboard: File,
    output: Receiver<Vec<u8>>,
    seen: Vec<u8>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).unwrap();
        let slave = File::from(pty.slave);
        let child =
            command.stdin(slave.try_clone().unwrap()).stdout(slave.try_clone().unwrap()).stderr(slave).spawn().unwrap();
        let keyboard = File::from(pty.master);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, output) = channel();
        std::thread::spawn(move || {
            let mut buffer = [0; 4096];
            // A terminal whose last user is gone gives an error: the end.
            while let Ok(count) = screen.read(&mut buffer) {
                if count == 0 || sender.send(buffer[..count].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, output, seen: Vec::new() }
    }

    /// Waits until this was written, at any time since the start.
    fn shows(&mut self, text: &str) {
        let end = Instant::now() + PATIENCE;
        loop {
            if self.seen.windows(text.len()).any(|w| w == text.as_bytes()) {
                return;
            }
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(bytes) => self.seen.extend(bytes),
                Err(e) => panic!("{text:?} does not appear ({e}) after {:?}", String::from_utf8_lossy(&self.seen)),
            }
        }
    }

    fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    fn ends(&mut self) -> Option<i32> {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < end, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LEAVE_ALTERNATE_SCREEN: &str = "\x1b[?1049l";

#[test]
fn it_shows_the_state_and_gives_the_terminal_back() {
    let dir = node();
    for signal in [None, Some(Signal::SIGTERM)] {
        let mut terminal = Terminal::start(command(&dir, env!("CARGO_BIN_EXE_sk-top")));
        terminal.shows("PRIM");
        terminal.shows("logged");
        match signal {
            None => terminal.press("q"),
            Some(signal) => kill(Pid::from_raw(terminal.child.id() as i32), signal).unwrap(),
        }
        terminal.shows(LEAVE_ALTERNATE_SCREEN);
        assert_eq!(terminal.ends(), Some(0));
    }
}

#[test]
fn a_key_and_yes_runs_sk_module() {
    let dir = node();
    let copy: PathBuf = dir.path().join("sk-top");
    // Written by another process: a file this process still has open for writing in a forked child cannot be run.
    let shell = format!(
        "cp {} {}; printf '#!/bin/sh\\necho \"$@\" > {dir}/asked; echo no >&2; exit 1\\n' > {bin}; chmod 755 {bin}",
        env!("CARGO_BIN_EXE_sk-top"),
        copy.display(),
        dir = dir.path().display(),
        bin = dir.path().join("safe/bin/sk-module").display()
    );
    assert!(Command::new("sh").args(["-c", &shell]).status().unwrap().success());
    let mut terminal = Terminal::start(command(&dir, copy.to_str().unwrap()));
    terminal.shows("PRIM");
    terminal.press("w");
    terminal.shows("y/n");
    assert!(!dir.path().join("asked").exists());
    terminal.press("y");
    let end = Instant::now() + PATIENCE;
    let asked = loop {
        match std::fs::read_to_string(dir.path().join("asked")) {
            Ok(text) if text.ends_with('\n') => break text,
            _ => assert!(Instant::now() < end, "sk-module was not run"),
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    assert_eq!(asked, "swap -m AM\n");
    terminal.press("q");
    assert_eq!(terminal.ends(), Some(0));
}

#[test]
fn pipes_get_one_plain_frame_or_json() {
    let dir = node();
    let run = |arguments: &[&str]| {
        let output = command(&dir, env!("CARGO_BIN_EXE_sk-top")).args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = run(&[]);
    assert_eq!(text, run(&["--once"]));
    let rows: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
    assert_eq!(rows[1], ["AM", "PRIM", "Ready", "SECOND", "Ready", "uptodate", "-", "-"]);
    assert_eq!(rows[2], ["idle", "STOP", "NotReady", "-", "-", "-", "-"]);
    let states: Vec<Value> = run(&["--json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    assert_eq!(states, [running(), json!({"module": "idle", "state": "STOP", "readiness": "NotReady"})]);
    let wrong = command(&dir, env!("CARGO_BIN_EXE_sk-top")).arg("--dance").output().unwrap();
    assert_eq!(wrong.status.code(), Some(100));
}
