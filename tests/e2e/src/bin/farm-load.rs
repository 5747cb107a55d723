//! Servers that say who they are, and clients that remember who answered: what the farm scenarios count with.

use anyhow::{Context, Result, bail};
use clap::{Parser, Subcommand};
use serde_json::json;
use socket2::{Domain, Protocol, Socket, Type};
use std::collections::BTreeMap;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

const AFTER: &str = "\
Exit codes: 0 done; 1 not possible; 100 wrong usage
Example: farm-load serve --name node1 & farm-load count 10.0.0.50:8000 --from 198.18.0.0 --addresses 4096";

/// Longest request line, and longest answer to `who`.
const LINE: usize = 64;
const BLOCK: usize = 8192;

#[derive(Parser)]
#[command(name = "farm-load", version, about = "Load of the farm scenarios", after_help = AFTER)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve: `who` is answered by the name, `count` by the number of `who`, `get N` by N known bytes in N / 200 kB/s
    Serve {
        #[arg(long)]
        name: String,
        #[arg(long, default_value_t = 8000)]
        port: u16,
    },
    /// Ask `who` once from each of many addresses; print how often each server answered, and who answered each address
    Count {
        to: SocketAddr,
        /// The first own address
        #[arg(long)]
        from: Ipv4Addr,
        #[arg(long)]
        addresses: u32,
        #[arg(long, default_value_t = 16)]
        threads: u32,
        /// A file with who answered each address in an earlier run: the same must answer now
        #[arg(long)]
        same_as: Option<std::path::PathBuf>,
        /// Where to write who answered each address
        #[arg(long)]
        remember: Option<std::path::PathBuf>,
    },
    /// Downloads side by side, checked byte by byte; a JSON line each at its end: server, bytes, error
    Download {
        to: SocketAddr,
        #[arg(long, default_value_t = 24)]
        count: u32,
        #[arg(long, default_value_t = 2_000_000)]
        bytes: u64,
    },
    /// New connections all the time until standard input ends; prints attempts, refusals and the times of failures
    Probe {
        to: SocketAddr,
        #[arg(long, default_value_t = 4)]
        threads: u32,
        /// Give up a connection after this time
        #[arg(long, default_value_t = 100)]
        deadline_ms: u64,
    },
}

fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| {
        let _ = error.print();
        std::process::exit(if error.use_stderr() { 100 } else { 0 })
    });
    let done = match cli.verb {
        Verb::Serve { name, port } => serve(&name, port),
        Verb::Count { to, from, addresses, threads, same_as, remember } => {
            count(to, from, addresses, threads.max(1), same_as.as_deref(), remember.as_deref())
        }
        Verb::Download { to, count, bytes } => download(to, count, bytes),
        Verb::Probe { to, threads, deadline_ms } => probe(to, threads, Duration::from_millis(deadline_ms)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("farm-load: {error:#}");
            ExitCode::from(1)
        }
    }
}

/// The byte at a place of every download.
fn byte_at(place: u64) -> u8 {
    (place.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
}

fn fill(block: &mut [u8], place: u64) {
    for (offset, byte) in (0..).zip(block) {
        *byte = byte_at(place + offset);
    }
}

fn serve(name: &str, port: u16) -> Result<()> {
    let socket = Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP))?;
    socket.set_only_v6(false)?;
    socket.set_reuse_address(true)?;
    socket.bind(&SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port).into())?;
    socket.listen(1024)?;
    let listener = TcpListener::from(socket);
    let asked = Arc::new(AtomicU64::new(0));
    for stream in listener.incoming() {
        let Ok(stream) = stream else { continue };
        let (name, asked) = (name.to_owned(), asked.clone());
        std::thread::spawn(move || {
            // Clients go away as they like.
            let _ = answer(stream, &name, &asked);
        });
    }
    Ok(())
}

fn answer(mut stream: TcpStream, name: &str, asked: &AtomicU64) -> Result<()> {
    let line = read_line(&mut stream)?;
    match line.split_once(' ').unwrap_or((&line, "")) {
        ("who", _) => {
            asked.fetch_add(1, Ordering::Relaxed);
            stream.write_all(format!("{name}\n").as_bytes())?;
        }
        ("count", _) => stream.write_all(format!("{}\n", asked.load(Ordering::Relaxed)).as_bytes())?,
        ("get", length) => {
            let length: u64 = length.parse()?;
            stream.write_all(format!("{name}\n").as_bytes())?;
            let mut place = 0;
            let mut block = [0; BLOCK];
            while place < length {
                let part = (length - place).min(BLOCK as u64) as usize;
                let bytes = block.get_mut(..part).context("a part of a block")?;
                fill(bytes, place);
                stream.write_all(bytes)?;
                place += part as u64;
                // Slowly, so that it is under way while things happen: 200 kB/s.
                std::thread::sleep(Duration::from_micros(1_000_000 * BLOCK as u64 / 200_000));
            }
        }
        _ => bail!("an unknown request"),
    }
    Ok(())
}

fn read_line(stream: &mut TcpStream) -> Result<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    while line.len() < LINE {
        stream.read_exact(&mut byte)?;
        if byte == *b"\n" {
            return Ok(String::from_utf8(line)?);
        }
        line.extend_from_slice(&byte);
    }
    bail!("a line that is too long")
}

fn connect(from: Option<IpAddr>, to: SocketAddr, deadline: Duration) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&to.into(), deadline)?;
    socket.set_read_timeout(Some(deadline.max(Duration::from_secs(1))))?;
    Ok(socket.into())
}

fn who(from: Option<IpAddr>, to: SocketAddr, deadline: Duration) -> Result<String> {
    let mut stream = connect(from, to, deadline)?;
    stream.write_all(b"who\n")?;
    read_line(&mut stream)
}

fn count(
    to: SocketAddr,
    from: Ipv4Addr,
    addresses: u32,
    threads: u32,
    same_as: Option<&std::path::Path>,
    remember: Option<&std::path::Path>,
) -> Result<()> {
    let next = AtomicU64::new(0);
    let answers: Mutex<BTreeMap<Ipv4Addr, String>> = Mutex::new(BTreeMap::new());
    let errors: Mutex<Vec<String>> = Mutex::new(Vec::new());
    let slow = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= u64::from(addresses) {
                        return;
                    }
                    let own = Ipv4Addr::from(u32::from(from).wrapping_add(number as u32));
                    let begun = Instant::now();
                    match who(Some(own.into()), to, Duration::from_secs(20)) {
                        Ok(name) => drop(lock(&answers).insert(own, name)),
                        Err(error) => lock(&errors).push(format!("{own}: {error:#}")),
                    }
                    if begun.elapsed() > Duration::from_millis(900) {
                        slow.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let (answers, errors) = (lock(&answers), lock(&errors));
    let mut servers: BTreeMap<&str, u64> = BTreeMap::new();
    for name in answers.values() {
        *servers.entry(name).or_default() += 1;
    }
    let moved = match same_as {
        None => 0,
        Some(path) => {
            let before: BTreeMap<Ipv4Addr, String> = serde_json::from_slice(&std::fs::read(path)?)?;
            answers.iter().filter(|(own, name)| before.get(own) != Some(name)).count()
        }
    };
    if let Some(path) = remember {
        std::fs::write(path, serde_json::to_vec(&*answers)?)?;
    }
    println!(
        "{}",
        json!({"servers": servers, "moved": moved, "slow": slow.load(Ordering::Relaxed), "errors": errors.len(),
            "first_errors": errors.iter().take(3).collect::<Vec<_>>()})
    );
    Ok(())
}

fn download(to: SocketAddr, count: u32, bytes: u64) -> Result<()> {
    let out = Mutex::new(());
    std::thread::scope(|scope| {
        for _ in 0..count {
            scope.spawn(|| {
                let mut server = String::new();
                let mut done = 0;
                let begun = Instant::now();
                let error = one_download(to, bytes, &mut server, &mut done).err().map(|e| format!("{e:#}"));
                let _guard = lock(&out);
                println!(
                    "{}",
                    json!({"server": server, "bytes": done, "error": error, "ms": begun.elapsed().as_millis()})
                );
            });
        }
    });
    Ok(())
}

fn one_download(to: SocketAddr, bytes: u64, server: &mut String, done: &mut u64) -> Result<()> {
    let mut stream = connect(None, to, Duration::from_secs(10))?;
    // A stall of this length is a broken download.
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    stream.write_all(format!("get {bytes}\n").as_bytes())?;
    *server = read_line(&mut stream)?;
    let (mut block, mut wanted) = ([0; BLOCK], [0; BLOCK]);
    while *done < bytes {
        let length = stream.read(&mut block)?;
        if length == 0 {
            bail!("the download ended after {done} of {bytes} bytes");
        }
        let (got, wanted) = (block.get(..length).context("a part")?, wanted.get_mut(..length).context("a part")?);
        fill(wanted, *done);
        if got != wanted {
            bail!("other bytes than were sent, after {done}");
        }
        *done += length as u64;
    }
    Ok(())
}

/// What became of new connections.
#[derive(Default)]
struct Seen {
    attempts: u64,
    refused: u64,
    reset: u64,
    /// When a connection that failed was begun, in milliseconds since the Unix epoch.
    failed_at: Vec<u64>,
    servers: BTreeMap<String, u64>,
    longest_ms: u64,
}

fn probe(to: SocketAddr, threads: u32, deadline: Duration) -> Result<()> {
    let stop = AtomicBool::new(false);
    let seen = Mutex::new(Seen::default());
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let begun = Instant::now();
                    let at = now_ms();
                    let result = who(None, to, deadline);
                    let mut seen = lock(&seen);
                    seen.attempts += 1;
                    seen.longest_ms = seen.longest_ms.max(begun.elapsed().as_millis() as u64);
                    match result {
                        Ok(name) => *seen.servers.entry(name).or_default() += 1,
                        Err(error) => {
                            let kind = error.downcast_ref::<io::Error>().map(io::Error::kind);
                            seen.refused += u64::from(kind == Some(ErrorKind::ConnectionRefused));
                            seen.reset += u64::from(kind == Some(ErrorKind::ConnectionReset));
                            seen.failed_at.push(at);
                        }
                    }
                    drop(seen);
                    std::thread::sleep(Duration::from_millis(2));
                }
            });
        }
        let mut rest = Vec::new();
        let _ = io::stdin().read_to_end(&mut rest);
        stop.store(true, Ordering::Relaxed);
    });
    let seen = lock(&seen);
    println!(
        "{}",
        json!({"attempts": seen.attempts, "refused": seen.refused, "reset": seen.reset, "failed": seen.failed_at.len(),
            "first_failure_ms": seen.failed_at.iter().min(), "last_failure_ms": seen.failed_at.iter().max(),
            "longest_ms": seen.longest_ms, "servers": seen.servers})
    );
    Ok(())
}

fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
