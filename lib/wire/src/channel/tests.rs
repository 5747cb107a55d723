//! Do two ends understand each other, and nobody else?

use super::*;
use proptest::prelude::*;
use std::net::TcpListener;
use std::thread;

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(10)
}

fn sockets() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (near, listener.accept().unwrap().0)
}

type Ends = (Result<Channel, ChannelError>, Result<Channel, ChannelError>);

fn ends(near: Option<[u8; 32]>, far: Option<[u8; 32]>) -> Ends {
    let (a, b) = sockets();
    let far = thread::spawn(move || Channel::accept(b, far.as_slice(), soon()).map(|(channel, _)| channel));
    (Channel::connect(a, near.as_ref(), soon()), far.join().unwrap())
}

#[test]
fn big_payloads_cross_in_both_directions() {
    for key in [Some([3; 32]), None] {
        let (near, far) = ends(key, key);
        let payload: Vec<u8> = (0..300_000_u32).map(|n| n as u8).collect();
        let (mut near, mut seal_near, mut open_near) = near.unwrap().split();
        let (mut far, mut seal_far, mut open_far) = far.unwrap().split();
        let sent = payload.clone();
        let echo = thread::spawn(move || {
            let (mut plain, mut wire, mut chunk) = (Vec::new(), Vec::new(), vec![0; 10_000]);
            while plain.len() < sent.len() {
                let count = far.read(&mut chunk).unwrap();
                assert_ne!(count, 0);
                open_far.feed(&chunk[..count], &mut plain).unwrap();
            }
            assert_eq!(plain, sent);
            seal_far.seal_into(b"got it", &mut wire).unwrap();
            far.write_all(&wire).unwrap();
        });
        let mut wire = Vec::new();
        seal_near.seal_into(&payload, &mut wire).unwrap();
        near.write_all(&wire).unwrap();
        let mut all = Vec::new();
        near.read_to_end(&mut all).unwrap();
        let mut plain = Vec::new();
        open_near.feed(&all, &mut plain).unwrap();
        assert_eq!(plain, b"got it");
        echo.join().unwrap();
    }
}

#[test]
fn another_key_is_named_on_both_ends() {
    let (near, far) = ends(Some([1; 32]), Some([2; 32]));
    assert!(matches!(near, Err(ChannelError::WrongKey)));
    assert!(matches!(far, Err(ChannelError::WrongKey)));
}

#[test]
fn encryption_on_one_end_only_is_named_on_both() {
    for (a, b) in [(Some([1; 32]), None), (None, Some([1; 32]))] {
        let (near, far) = ends(a, b);
        assert!(matches!(near, Err(ChannelError::EncryptionMismatch)));
        assert!(matches!(far, Err(ChannelError::EncryptionMismatch)));
    }
}

#[test]
fn a_silent_or_foreign_end_does_not_hang_us() {
    let (near, _far) = sockets();
    let result = Channel::connect(near, Some(&[1; 32]), Instant::now() + Duration::from_millis(50));
    assert!(matches!(result, Err(ChannelError::Deadline)));
    let (near, mut far) = sockets();
    far.write_all(b"SSH-2.0-x\r\n").unwrap();
    assert!(matches!(Channel::connect(near, Some(&[1; 32]), soon()), Err(ChannelError::NotOurs)));
    let (near, far) = sockets();
    drop(near);
    assert!(matches!(Channel::accept(far, &[[1; 32]], soon()), Err(ChannelError::Closed)));
}

#[test]
fn swapped_repeated_and_changed_records_are_refused() {
    let (near, far) = ends(Some([1; 32]), Some([1; 32]));
    let (_a, mut sealer, _) = near.unwrap().split();
    let far = far.unwrap();
    let opener = || Opener { transport: far.transport.clone(), counter: 0, pending: Vec::new() };
    let (mut first, mut second) = (Vec::new(), Vec::new());
    sealer.seal_into(b"one", &mut first).unwrap();
    sealer.seal_into(b"two", &mut second).unwrap();
    let mut out = Vec::new();
    assert!(matches!(opener().feed(&second, &mut out), Err(ChannelError::Corrupt)));
    let mut twice = opener();
    twice.feed(&first, &mut out).unwrap();
    assert!(matches!(twice.feed(&first, &mut out), Err(ChannelError::Corrupt)));
    first[5] ^= 1;
    assert!(matches!(opener().feed(&first, &mut out), Err(ChannelError::Corrupt)));
}

fn memory_pair(encrypted: bool) -> (Sealer, Opener) {
    if !encrypted {
        return (Sealer::plain(), Opener::plain());
    }
    let (near, far) = ends(Some([1; 32]), Some([1; 32]));
    (near.unwrap().split().1, far.unwrap().split().2)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn cuts_do_not_matter(
        messages in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..500), 0..10),
        steps in proptest::collection::vec(1_usize..700, 1..10),
        encrypted: bool,
    ) {
        let (mut sealer, mut opener) = memory_pair(encrypted);
        let mut wire = Vec::new();
        for message in &messages {
            sealer.seal_into(message, &mut wire).unwrap();
        }
        let mut out = Vec::new();
        let (mut rest, mut steps) = (wire.as_slice(), steps.into_iter().cycle());
        while !rest.is_empty() {
            let (now, later) = rest.split_at(steps.next().unwrap().min(rest.len()));
            opener.feed(now, &mut out).unwrap();
            rest = later;
        }
        prop_assert_eq!(out, messages.concat());
    }

    #[test]
    fn garbage_opens_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        let (_, mut opener) = memory_pair(true);
        let mut out = Vec::new();
        if opener.feed(&bytes, &mut out).is_ok() {
            prop_assert!(out.is_empty());
        }
    }

    #[test]
    fn garbage_in_the_handshake_is_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let (mut near, far) = sockets();
        near.write_all(&bytes).unwrap();
        near.shutdown(std::net::Shutdown::Write).unwrap();
        prop_assert!(Channel::accept(far, &[[1; 32]], soon()).is_err());
    }
}
