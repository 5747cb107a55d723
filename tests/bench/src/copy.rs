//! What does copying a tree to another host cost at the least? tar to tar over one TCP connection, durable at the end.

use anyhow::{Context, Result, ensure};
use std::io::Write;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

/// Blocks of 512 bytes that tar reads and writes at once.
const BLOCKING: &str = "--blocking-factor=512";

/// Sends the tree in `dir` to everybody who connects to `listen`, for ever; says on stdout when it can be connected to.
pub fn send(listen: SocketAddr, dir: &Path) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    println!("listening");
    std::io::stdout().flush()?;
    for stream in listener.incoming() {
        let mut tar = Command::new("tar");
        tar.args(["-c", BLOCKING, "-f", "-", "-C"]).arg(dir).arg(".").stdout(Stdio::from(OwnedFd::from(stream?)));
        // The receiver notices a tar that fails: the archive has no end then.
        let status = tar.status().context("run tar")?;
        if !status.success() {
            eprintln!("tar: {status}");
        }
    }
    Ok(())
}

/// Receives the tree into `dir` and makes it durable; how many seconds that took.
pub fn receive(from: SocketAddr, dir: &Path) -> Result<f64> {
    std::fs::create_dir_all(dir)?;
    let directory = std::fs::File::open(dir)?;
    let began = Instant::now();
    let stream = TcpStream::connect(from).with_context(|| format!("connect to {from}"))?;
    let mut tar = Command::new("tar");
    // A read from a network may be short.
    tar.args(["-x", "--read-full-records", BLOCKING, "-f", "-", "-C"]).arg(dir);
    let status = tar.stdin(Stdio::from(OwnedFd::from(stream))).status().context("run tar")?;
    ensure!(status.success(), "tar: {status}");
    rustix::fs::syncfs(&directory)?;
    Ok(began.elapsed().as_secs_f64())
}
