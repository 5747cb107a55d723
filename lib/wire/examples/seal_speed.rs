//! How fast does one core seal and open the replication stream? `cargo run --profile lab -p wire --example seal_speed`
#![allow(clippy::unwrap_used)] // A measurement: a panic is the right end when its set-up fails.

use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use wire::channel::Channel;

const TOTAL: usize = 2 << 30;

fn main() {
    for key in [Some([1; 32]), None] {
        for size in [1_000, 65_519, 1 << 20] {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let deadline = Instant::now() + Duration::from_secs(10);
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let far = listener.accept().unwrap().0;
            let far = std::thread::spawn(move || Channel::accept(far, key.as_slice(), deadline).unwrap().0);
            let (_, mut sealer, _) = Channel::connect(near, key.as_ref(), deadline).unwrap().split();
            let (_, _, mut opener) = far.join().unwrap().split();
            let payload = vec![7; size];
            let (mut wire, mut plain) = (Vec::new(), Vec::new());
            let rounds = TOTAL / size;
            let (mut sealing, mut opening) = (Duration::ZERO, Duration::ZERO);
            for _ in 0..rounds {
                wire.clear();
                plain.clear();
                let begun = Instant::now();
                sealer.seal_into(&payload, &mut wire).unwrap();
                let sealed = Instant::now();
                opener.feed(&wire, &mut plain).unwrap();
                opening += sealed.elapsed();
                sealing += sealed - begun;
                assert_eq!(plain.len(), size);
            }
            let rate = |time: Duration| (rounds * size) as f64 / 1e6 / time.as_secs_f64();
            println!(
                "{} {size:>8} bytes: seal {:>6.0} MB/s, open {:>6.0} MB/s, both {:>6.0} MB/s",
                if key.is_some() { "encrypted" } else { "plain    " },
                rate(sealing),
                rate(opening),
                rate(sealing + opening)
            );
        }
    }
}
