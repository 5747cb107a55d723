//! Does `sk-vip` own addresses on a real (virtual) network as the architecture says?

#![allow(clippy::unwrap_used)] // a test may panic

mod switch;

use nix::sys::signal::Signal;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use switch::{Switch, VIP, VIP6, eventually};

const PLAIN: &str = r#"{"address":"10.0.0.50"}"#;
const BOTH: &str = r#"{"address":"10.0.0.50"},{"address":"fd00::50"}"#;

#[test]
fn a_takeover_moves_the_neighbours_to_the_new_owner() {
    let net = Switch::new();
    let mut first = net.start("b", "hold", BOTH, "");
    assert_eq!(first.event("vip")["address"], VIP);
    assert_eq!(first.event("vip")["address"], VIP6);
    first.event("held");
    net.on("c", "ping -c1 -W2 10.0.0.50");
    net.on("c", "ping -c1 -W2 fd00::50");
    let neighbour = |ip: &str| net.on("c", &format!("ip neighbour show {ip}"));
    assert!(neighbour(VIP).contains("02:00:00:00:00:02"), "{}", neighbour(VIP));
    assert!(neighbour(VIP6).contains("02:00:00:00:00:02"), "{}", neighbour(VIP6));
    first.order(r#"{"kind":"release"}"#);
    first.event("released");
    assert!(first.ended().success());
    assert!(!net.has_address("b", VIP) && !net.has_address("b", VIP6));

    let second = net.start("a", "hold", BOTH, "");
    second.event("held");
    // The client sends nothing: only the announcements can change its cache.
    eventually("the client to learn the new owner", || {
        let moved = |ip| neighbour(ip).contains("02:00:00:00:00:01");
        (moved(VIP) && moved(VIP6)).then_some(())
    });
}

#[test]
fn an_orphan_disappears_by_itself_and_a_new_life_takes_it_over() {
    let net = Switch::new();
    let mut first = net.start("a", "hold", BOTH, r#","lifetime_ms":2000"#);
    first.event("held");
    // Held for longer than a lifetime: it is refreshed.
    let since = Instant::now();
    eventually("a lifetime to pass", || {
        assert!(net.has_address("a", VIP));
        (since.elapsed() > Duration::from_secs(3)).then_some(())
    });
    first.signal(Signal::SIGKILL);
    first.ended();
    assert!(net.has_address("a", VIP), "nobody removed it");

    // A new life adopts what is there (no `Foreign` error), even without asking the network.
    let mut second = net.start("a", "hold", BOTH, r#","lifetime_ms":2000,"probe":false"#);
    second.event("held");
    second.signal(Signal::SIGKILL);
    second.ended();
    let killed = Instant::now();
    eventually("the orphan to expire", || (!net.has_address("a", VIP) && !net.has_address("a", VIP6)).then_some(()));
    assert!(killed.elapsed() < Duration::from_millis(4500), "{:?}", killed.elapsed());
}

#[test]
fn an_address_in_use_is_refused_with_its_owner() {
    let net = Switch::new();
    let owner = net.start("a", "hold", BOTH, "");
    owner.event("held");
    for (spec, vip) in [(PLAIN, VIP), (r#"{"address":"fd00::50"}"#, VIP6)] {
        let mut second = net.start("b", "hold", spec, "");
        let conflict = second.event("conflict");
        assert_eq!(conflict["address"], vip);
        assert_eq!(conflict["mac"], "02:00:00:00:00:01");
        assert_eq!(second.ended().code(), Some(3));
        let words = second.words();
        assert!(words.contains(&format!("address {vip} is already used by MAC 02:00:00:00:00:01 on eth0")), "{words}");
        assert!(!net.has_address("b", vip));
    }
    assert_eq!(net.vip("b", "probe 10.0.0.50").status.code(), Some(3));
    assert_eq!(net.vip_unread("b", "probe 10.0.0.50").code(), Some(3));
    assert_eq!(net.vip("b", "add 10.0.0.50").status.code(), Some(3));
    assert_eq!(net.vip("b", "probe 10.0.0.51").status.code(), Some(0));
}

#[test]
fn end_of_file_and_sigterm_release() {
    let net = Switch::new();
    let mut life = net.start("a", "hold", PLAIN, "");
    life.event("held");
    drop(life.stdin.take());
    life.event("released");
    assert!(life.ended().success());
    assert!(!net.has_address("a", VIP));

    let mut life = net.start("a", "hold", PLAIN, "");
    life.event("held");
    life.signal(Signal::SIGTERM);
    life.event("released");
    assert!(life.ended().success());
    assert!(!net.has_address("a", VIP));
}

#[test]
fn a_removal_by_somebody_else_is_reported_or_mended() {
    let net = Switch::new();
    let life = net.start("a", "hold", PLAIN, "");
    life.event("held");
    net.on("a", "ip address del 10.0.0.50/24 dev eth0");
    let event = life.event("ip");
    assert_eq!((&event["address"], &event["value"]), (&VIP.into(), &"down".into()));
    net.on("a", "ip address add 10.0.0.50/24 dev eth0");
    assert_eq!(life.event("ip")["value"], "up");
    drop(life);

    let life = net.start("b", "hold", r#"{"address":"10.0.0.51","check":false}"#, "");
    life.event("held");
    net.on("b", "ip address del 10.0.0.51/24 dev eth0");
    eventually("the address to be put back", || net.has_address("b", "10.0.0.51").then_some(()));
}

#[test]
fn addresses_come_back_with_their_interface_and_its_mac() {
    let net = Switch::new();
    let wanted = r#"{"address":"10.0.0.50","check":false,"interface_check":false},
        {"address":"fd00::50","check":false,"interface_check":false}"#;
    let life = net.start("a", "hold", wanted, r#","lifetime_ms":1000"#);
    life.event("held");
    let learns = |mac: &str| {
        eventually("the client to learn the MAC", || {
            let knows = |ip| net.on("c", &format!("ip neighbour show {ip}")).contains(mac);
            (knows(VIP) && knows(VIP6)).then_some(())
        });
    };
    net.on("c", "ping -c1 -W2 10.0.0.50");
    net.on("c", "ping -c1 -W2 fd00::50");
    learns("02:00:00:00:00:01");
    net.on("a", "ip link set eth0 address 02:00:00:00:01:01");
    learns("02:00:00:00:01:01");

    net.on("s", "ip link del pa");
    assert_eq!(life.event("ip")["value"], "down");
    assert_eq!(life.event("ip")["value"], "down");
    let since = Instant::now();
    eventually("more than a lifetime to pass", || (since.elapsed() > Duration::from_millis(1500)).then_some(()));
    net.cable("a");
    net.on("a", "sysctl -qw net.ipv6.conf.eth0.accept_dad=0");
    net.on("a", "ip link set eth0 address 02:00:00:00:02:01 up");
    assert_eq!(life.event("ip")["value"], "up");
    assert_eq!(life.event("ip")["value"], "up");
    assert!(net.has_address("a", VIP) && net.has_address("a", VIP6));
    learns("02:00:00:00:02:01");
}

#[test]
fn an_owner_that_slept_longer_than_the_lifetime_does_not_come_back() {
    let net = Switch::new();
    let life = net.start("a", "hold", PLAIN, r#","lifetime_ms":1000"#);
    life.event("held");
    life.signal(Signal::SIGSTOP);
    eventually("the address to expire", || (!net.has_address("a", VIP)).then_some(()));
    life.signal(Signal::SIGCONT);
    let event = life.event("ip");
    assert_eq!(event["value"], "down");
    let since = Instant::now();
    eventually("several refreshes to pass", || {
        assert!(!net.has_address("a", VIP));
        (since.elapsed() > Duration::from_millis(1200)).then_some(())
    });
}

#[test]
fn carrier_changes_are_reported_by_hold_and_watch() {
    let net = Switch::new();
    let hold = net.start("a", "hold", PLAIN, "");
    let mut watch = net.start("a", "watch", PLAIN, "");
    for life in [&hold, &watch] {
        let event = life.event("intf");
        assert_eq!(event["ident"], "10.0.0.0");
        assert_eq!((&event["interface"], &event["value"]), (&"eth0".into(), &"up".into()));
    }
    for (state, value) in [("down", "down"), ("up", "up")] {
        net.on("s", &format!("ip link set pa {state}"));
        assert_eq!(hold.event("intf")["value"], value);
        assert_eq!(watch.event("intf")["value"], value);
    }
    drop(watch.stdin.take());
    assert!(watch.ended().success());
}

#[test]
fn the_connections_of_an_address_are_counted_where_that_is_wanted() {
    let net = Switch::new();
    let hold = net.start("a", "hold", PLAIN, "");
    hold.event("held");
    let server = net.inside("a", || {
        let listener = TcpListener::bind("10.0.0.50:7000").unwrap();
        (listener.accept().unwrap().0, listener)
    });
    let client = net.inside("c", || eventually("the server to listen", || TcpStream::connect("10.0.0.50:7000").ok()));
    let _both = (client.join().unwrap(), server.join().unwrap());
    let watched = r#"{"address":"10.0.0.50","connections":true},{"address":"10.0.0.51"}"#;
    let watch = net.start("a", "watch", watched, "");
    let event = watch.event("connections");
    assert_eq!((&event["address"], &event["value"]), (&VIP.into(), &1.into()));
}

#[test]
fn the_address_is_announced_again_when_the_cable_is_back() {
    let net = Switch::new();
    let life = net.start("a", "hold", r#"{"address":"10.0.0.50","interface_check":false}"#, "");
    life.event("held");
    // The burst of the claim must be over, else it would be what is seen.
    let since = Instant::now();
    eventually("the end of the burst", || (since.elapsed() > Duration::from_millis(2300)).then_some(()));
    net.on("s", "ip link set pa down");
    net.on("c", "ip neighbour replace 10.0.0.50 lladdr 02:00:00:00:00:99 nud stale dev eth0");
    net.on("s", "ip link set pa up");
    eventually("the client to learn the owner again", || {
        net.on("c", "ip neighbour show 10.0.0.50").contains("02:00:00:00:00:01").then_some(())
    });
}

#[test]
fn connections_are_reset_before_the_address_goes() {
    let net = Switch::new();
    let mut life = net.start("a", "hold", PLAIN, "");
    life.event("held");
    // A dual-stack listener: its connections are IPv6 sockets with mapped addresses.
    let server = net.inside("a", || {
        let listener = TcpListener::bind("[::]:7000").unwrap();
        let accepted = [listener.accept().unwrap().0, listener.accept().unwrap().0];
        (listener, accepted)
    });
    let client = net.inside("c", || {
        // The server may need a moment to listen.
        let begun = std::time::Instant::now();
        let held = loop {
            match TcpStream::connect("10.0.0.50:7000") {
                Ok(stream) => break stream,
                Err(e) => assert!(begun.elapsed() < Duration::from_secs(10), "{e}"),
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        // A connection to the host's own address must survive.
        let other = TcpStream::connect("10.0.0.1:7000").unwrap();
        (held, other)
    });
    let (mut held, mut other) = client.join().unwrap();
    let kept = server.join().unwrap();
    life.order(r#"{"kind":"release"}"#);
    life.event("released");
    held.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let error = held.read(&mut [0; 1]).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    other.set_nonblocking(true).unwrap();
    assert_eq!(other.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    drop(kept);
}

#[test]
fn one_side_makes_it_the_source_of_outgoing_connections() {
    let net = Switch::new();
    net.on("a", "ip route add default via 10.0.0.3");
    let source = |to: &str| {
        let text = net.on("a", &format!("ip route get {to}"));
        text.split_once(" src ").unwrap().1.split_whitespace().next().unwrap().to_owned()
    };
    let before = net.on("a", "ip route show");
    let mut life = net.start("a", "hold", r#"{"address":"10.0.0.50","where":"one_side"}"#, "");
    life.event("held");
    assert_eq!((source("10.0.0.3"), source("192.0.2.1")), (VIP.into(), VIP.into()));
    life.order(r#"{"kind":"release"}"#);
    assert!(life.ended().success());
    assert_eq!((source("10.0.0.3"), source("192.0.2.1")), ("10.0.0.1".into(), "10.0.0.1".into()));
    assert_eq!(net.on("a", "ip route show"), before);

    let alias = net.start("a", "hold", PLAIN, "");
    alias.event("held");
    assert_eq!(source("10.0.0.3"), "10.0.0.1");
}

#[test]
fn bad_requests_have_one_clear_message_and_their_exit_code() {
    let net = Switch::new();
    let check = |arguments: &str, code: i32, words: &str| {
        let output = net.vip("a", arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        assert!(text.contains(words), "{arguments}: {text}");
    };
    check("add 192.0.2.9", 2, "no interface has a network that contains 192.0.2.9");
    check("add 10.0.0.50 --interface eth7", 2, "no interface `eth7`");
    check("add 10.0.0.1", 4, "10.0.0.1 is an address of interface eth0 already");
    check("remove 10.0.0.50", 1, "10.0.0.50 is not an address of this host");
    check("show 10.0.0.50", 1, "10.0.0.50 is not an address of this host");
    check("add 10.0.0.50/99", 100, "prefix");
    check("dance", 100, "dance");
    check("hold --spec /nonexistent", 111, "cannot read /nonexistent");
}

#[test]
fn a_shell_user_can_add_show_and_remove() {
    let net = Switch::new();
    let added = net.vip("a", "add 10.0.0.50 --lifetime 1m --json");
    assert!(added.status.success());
    let text = String::from_utf8(added.stdout).unwrap();
    let line: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!((&line["prefix"], &line["interface"]), (&24.into(), &"eth0".into()));
    let shown = String::from_utf8(net.vip("a", "show").stdout).unwrap();
    let row: Vec<&str> = shown.lines().find(|l| l.starts_with(VIP)).unwrap().split_whitespace().collect();
    assert_eq!(row[..4], ["10.0.0.50/24", "eth0", "02:00:00:00:00:01", "up"]);
    assert!(row[4].ends_with('s') && row[4] != "forever", "{row:?}");
    assert_eq!(row[5], "sk");
    assert!(net.vip("a", "add 10.0.0.50 --lifetime 2m").status.success(), "again: renews");
    assert!(net.vip("a", "remove 10.0.0.50").status.success());
    assert!(!net.has_address("a", VIP));
}

/// How long from the start of `sk-vip` to the first answer a client gets. The client sends every millisecond and has the
/// former owner in its cache.
#[test]
fn a_client_is_answered_soon_after_the_claim() {
    let mut times = Vec::new();
    for probe in [true, false] {
        let net = Switch::new();
        let mut former = net.start("b", "hold", PLAIN, "");
        former.event("held");
        net.on("c", "ping -c1 -W2 10.0.0.50");
        former.order(r#"{"kind":"release"}"#);
        assert!(former.ended().success());
        let bound = net.inside("a", || UdpSocket::bind("0.0.0.0:7001").unwrap()).join().unwrap();
        bound.set_read_timeout(Some(Duration::from_secs(8))).unwrap();
        let echo = std::thread::spawn(move || {
            let mut buffer = [0; 8];
            let (length, from) = bound.recv_from(&mut buffer).unwrap();
            bound.send_to(&buffer[..length], from).unwrap();
        });
        let client = net.inside("c", || UdpSocket::bind("0.0.0.0:0").unwrap()).join().unwrap();
        client.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
        let start = Instant::now();
        let life = net.start("a", "hold", PLAIN, &format!(r#","probe":{probe}"#));
        eventually("an answer", || {
            client.send_to(b"x", "10.0.0.50:7001").unwrap();
            client.recv_from(&mut [0; 8]).ok()
        });
        times.push(start.elapsed());
        echo.join().unwrap();
        life.event("held");
    }
    println!("start to first answer: with probe {:?}, without {:?}", times[0], times[1]);
    assert!(times.iter().all(|t| *t < Duration::from_secs(2)), "{times:?}");
}
