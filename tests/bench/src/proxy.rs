//! How do acknowledgements take as long as on a real network? A TCP relay that delays one direction.

use anyhow::{Context, Result};
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Connections of the relay itself carry this mark, by which the host's rules spare them.
pub const MARK: u32 = 0x5b;

fn connect(to: SocketAddr) -> Result<TcpStream> {
    let socket = socket2::Socket::new(socket2::Domain::for_address(to), socket2::Type::STREAM, None)?;
    socket.set_mark(MARK).context("mark a connection")?;
    socket.connect(&to.into())?;
    Ok(socket.into())
}

/// Accepts on `listen` for ever and relays to `to`; bytes towards `to` arrive `delay` later than they were sent.
pub fn serve(listen: SocketAddr, to: SocketAddr, delay: Duration) -> Result<()> {
    // A sleep ends when it should, not up to 50 µs later.
    // SAFETY: PR_SET_TIMERSLACK takes a number and touches no memory of ours.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1_000_u64) };
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    for near in listener.incoming() {
        let near = near?;
        match connect(to) {
            Ok(far) => relay(&near, &far, delay)?,
            Err(error) => eprintln!("relay to {to}: {error:#}"),
        }
    }
    Ok(())
}

fn relay(near: &TcpStream, far: &TcpStream, delay: Duration) -> Result<()> {
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut from, mut to) = (far.try_clone()?, near.try_clone()?);
    std::thread::spawn(move || {
        let mut bytes = vec![0; 256 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if bytes.get(..count).is_none_or(|part| to.write_all(part).is_err()) {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
        let _ = from.shutdown(Shutdown::Both);
    });
    let (sender, late) = mpsc::channel::<(Instant, Vec<u8>)>();
    let mut from = near.try_clone()?;
    std::thread::spawn(move || {
        let mut bytes = vec![0; 256 * 1024];
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            let part = bytes.get(..count).unwrap_or_default().to_vec();
            if sender.send((Instant::now() + delay, part)).is_err() {
                break;
            }
        }
    });
    let mut to = far.try_clone()?;
    std::thread::spawn(move || {
        for (due, part) in late {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            if to.write_all(&part).is_err() {
                break;
            }
        }
        let _ = to.shutdown(Shutdown::Both);
    });
    Ok(())
}

/// Answers every byte with a byte, for [`round_trip`].
pub fn echo(listen: SocketAddr) -> Result<()> {
    let listener = TcpListener::bind(listen).with_context(|| format!("listen on {listen}"))?;
    for stream in listener.incoming() {
        let mut stream = stream?;
        stream.set_nodelay(true)?;
        let mut byte = [0; 1];
        while stream.read_exact(&mut byte).is_ok() && stream.write_all(&byte).is_ok() {}
    }
    Ok(())
}

/// Median of `count` TCP round trips of one byte, microseconds.
pub fn round_trip(to: SocketAddr, count: usize) -> Result<f64> {
    let mut stream = TcpStream::connect(to).with_context(|| format!("connect to {to}"))?;
    stream.set_nodelay(true)?;
    let mut seen = Vec::with_capacity(count);
    for _ in 0..count.max(1) {
        let began = Instant::now();
        stream.write_all(b".")?;
        stream.read_exact(&mut [0; 1])?;
        seen.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(super::table::median(&mut seen))
}
