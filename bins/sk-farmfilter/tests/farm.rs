//! Is the traffic of an address shared on a real (virtual) network as the architecture says?

#![allow(clippy::unwrap_used)] // a test may panic

mod switch;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Write;
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};
use switch::{SERVERS, Switch, Talk, VIP, VIP6, eventually};

fn directed(spec: &mut Value) {
    for address in spec["addresses"].as_array_mut().unwrap() {
        address["mode"] = "vmac_directed".into();
    }
}

fn serving() -> Switch {
    let net = Switch::new();
    for host in SERVERS {
        net.serve(host, "[::]:8000");
    }
    net
}

/// Who the status says owns a client: the same as who answered it?
fn who(net: &Switch, client: SocketAddr) -> String {
    let output = net.farmfilter("b", &format!("who {client} -m AM --group web_0 --json"));
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    line["node"].as_str().unwrap().to_owned()
}

fn shared_by_all(net: &Switch) {
    for vip in [VIP, VIP6] {
        let seen = net.connect(vip, 300);
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for (_, host, _) in &seen {
            *counts.entry(host).or_default() += 1;
        }
        assert!(SERVERS.iter().all(|s| counts.get(s).is_some_and(|n| *n > 60)), "{vip}: {counts:?}");
        let slow: Vec<_> = seen.iter().filter(|(_, _, took)| *took > Duration::from_millis(900)).collect();
        assert!(slow.is_empty(), "{vip}: {slow:?}");
        for (client, host, _) in seen.iter().take(20) {
            assert_eq!(*host, who(net, *client), "{client}");
        }
    }
}

#[test]
fn each_connection_is_answered_by_the_owner_of_its_bucket() {
    let net = serving();
    let _nodes = net.farm(|_| ());
    shared_by_all(&net);
    // Every node tells the others how many connections it takes.
    eventually("rates of all nodes", || {
        net.connect(VIP, 30);
        let status = net.status("b").unwrap();
        let nodes = status["groups"][0]["nodes"].as_array().unwrap().clone();
        let tells = |node: &&str| {
            nodes
                .iter()
                .any(|n| n["node"] == *node && n["owned"].as_u64() > Some(0) && n["connections_s"].as_u64() > Some(0))
        };
        SERVERS.iter().all(tells).then_some(())
    });
    let shown = net.farmfilter("b", "show -m AM");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("CONNECTIONS/s"), "{shown:?}");
    let neighbours = net.on("d", "ip neighbour show");
    for vip in [VIP, VIP6] {
        let line = neighbours.lines().find(|l| l.starts_with(vip)).unwrap();
        assert!(line.contains("5a:fe:0a:00:00:32"), "{line}");
    }
    // The virtual MAC was never a source: the switch has not learnt it.
    assert!(!net.on("s", "bridge fdb show br sw0").contains("5a:fe:"));
    // Every node answers an echo.
    let ping = net.on("d", "ping -c 2 -W 2 10.0.0.50");
    assert!(ping.matches("DUP!").count() >= 2, "{ping}");
}

/// How many packets the rules themselves have dropped on a server.
fn dropped_by_rules(net: &Switch, host: &str) -> u64 {
    let text = net.on(host, "nft -j list counter netdev sk_AM g0_dropped");
    let value: Value = serde_json::from_str(&text).unwrap();
    value["nftables"].as_array().unwrap().iter().find_map(|o| o["counter"]["packets"].as_u64()).unwrap()
}

fn early(net: &Switch, host: &str) -> Value {
    net.status(host).unwrap()["early_drop"]["interfaces"].clone()
}

#[test]
fn the_rules_alone_share_the_traffic_as_well() {
    let net = serving();
    let _nodes = net.farm(|spec| spec["early_drop"] = false.into());
    shared_by_all(&net);
    for host in SERVERS {
        assert_eq!(early(&net, host), json!([]));
        assert!(dropped_by_rules(&net, host) > 0);
    }
}

#[test]
fn packets_of_others_end_before_the_rules_and_are_counted() {
    let net = serving();
    // Nobody is thought lost while an interface is made anew: who was alone has connections in all buckets for a while, which
    // the program must not drop.
    let mut nodes = net.farm(|spec| (spec["mlost_count"], spec["slost_count"]) = (200.into(), 200.into()));
    for host in SERVERS {
        assert_eq!(early(&net, host), json!(["eth0"]), "{}", net.status(host).unwrap());
    }
    let before: Vec<u64> = SERVERS.iter().map(|host| dropped_by_rules(&net, host)).collect();
    shared_by_all(&net);
    for (host, before) in SERVERS.iter().zip(before) {
        assert_eq!(dropped_by_rules(&net, host), before, "{host}: the rules saw packets of others");
        eventually("the counters of what was dropped", || {
            (net.status(host)?["groups"][0]["dropped_packets"].as_u64()? > 600).then_some(())
        });
    }
    let shown = net.farmfilter("a", "show -m AM");
    assert!(String::from_utf8_lossy(&shown.stdout).contains("early drop: eth0"), "{shown:?}");
    // An interface that is made anew has no program, and gets one.
    made_anew(&net, "c", 3, || assert_eq!(early(&net, "c"), json!([])));
    eventually("a program at the new interface", || (early(&net, "c") == json!(["eth0"])).then_some(()));
    shared_by_all(&net);
    // Who has everything needs none.
    for node in nodes.iter_mut().skip(1) {
        node.order(r#"{"kind":"close"}"#);
        node.event("closed");
    }
    eventually("no program where nothing is another's", || (early(&net, "a") == json!([])).then_some(()));
    assert!(net.connect(VIP, 60).iter().all(|(_, host, _)| host == "a"));
}

/// Whether rules stand at the interface of a host.
fn ruled(net: &Switch, host: &str) -> bool {
    net.on(host, "nft list table netdev sk_AM").contains("hook ingress")
}

/// Takes away the interface of a host and makes it anew with another MAC, its addresses last.
fn made_anew(net: &Switch, host: &str, number: u8, absent: impl FnOnce()) {
    net.on("s", &format!("ip link del p{host}"));
    absent();
    net.cable(host);
    eventually("rules at an interface without an address", || ruled(net, host).then_some(()));
    net.address(host, &format!("02:00:00:00:01:0{number}"), number);
    net.settled(&SERVERS);
}

#[test]
fn a_directed_node_passes_on_what_others_own() {
    let net = serving();
    let _nodes = net.farm(directed);
    shared_by_all(&net);
    made_anew(&net, "c", 3, || {
        eventually("the others notice", || (net.status("a")?["open_members"] == json!(["a", "b"])).then_some(()));
    });
    shared_by_all(&net);
    let neighbours = net.on("d", "ip neighbour show");
    assert!(neighbours.lines().any(|l| l.starts_with(VIP) && l.contains("02:00:00:00:0")), "{neighbours}");
    let ping = net.on("d", "ping -c 2 -W 2 10.0.0.50");
    assert!(!ping.contains("DUP!"), "{ping}");
}

#[test]
fn a_rule_for_arp_chooses_one_directed_node_per_requester() {
    let net = serving();
    let _nodes = net.farm(|spec| {
        directed(spec);
        spec["groups"][0]["rules"] = json!([{"port": 8000, "proto": "tcp", "filter": "on_port"},
            {"proto": "arp", "filter": "on_addr"}]);
    });
    for n in 60..80 {
        net.on("d", &format!("ip address add 10.0.0.{n}/24 dev eth0"));
    }
    let mut macs = std::collections::BTreeSet::new();
    for n in 60..80 {
        net.on("d", "ip neighbour flush dev eth0");
        net.on("d", &format!("ping -c 1 -W 2 -I 10.0.0.{n} 10.0.0.50"));
        let line = net.on("d", "ip neighbour show 10.0.0.50");
        let mac = line.split("lladdr ").nth(1).unwrap().split_whitespace().next().unwrap().to_owned();
        macs.insert(mac);
    }
    assert!(macs.len() >= 2, "all requesters were answered by {macs:?}");
}

#[test]
fn a_directed_node_that_opens_at_its_start_takes_no_other_node_for_a_stranger() {
    let net = serving();
    // Nodes tell each other their MACs every ten pulses: `b` asks for the address long before it has heard that of `a`.
    let slow = |spec: &mut Value| {
        directed(spec);
        spec["pulse_ms"] = 1000.into();
        spec["mlost_count"] = 3.into();
        spec["slost_count"] = 3.into();
    };
    let mut nodes = Vec::new();
    for host in SERVERS {
        let mut node = net.start(host, slow);
        node.order(r#"{"kind":"open"}"#);
        node.event("opened");
        nodes.push(node);
    }
    net.settled(&SERVERS);
    shared_by_all(&net);
}

/// Established connections stay where they are; new ones are answered all the time.
fn continuity(change: fn(&mut Value)) {
    let net = serving();
    let mut nodes = net.farm(change);
    let mut talks: Vec<Talk> = [VIP, VIP6].iter().flat_map(|vip| net.talks(vip, 60)).collect();
    let all_go_on = |talks: &mut Vec<Talk>, when: &str| {
        for talk in talks.iter_mut() {
            let host = talk.host.clone();
            talk.go_on().unwrap_or_else(|e| panic!("{when}: a connection to {host} broke: {e}"));
        }
    };
    all_go_on(&mut talks, "at first");
    nodes[2].order(r#"{"kind":"close"}"#);
    nodes[2].event("closed");
    net.settled(&["a", "b"]);
    all_go_on(&mut talks, "after c closed");
    assert!(net.connect(VIP, 60).iter().all(|(_, host, _)| host != "c"), "a closed node takes nothing new");
    talks.extend(net.talks(VIP, 60));
    nodes[2].order(r#"{"kind":"open"}"#);
    nodes[2].event("opened");
    net.settled(&SERVERS);
    all_go_on(&mut talks, "after c opened again");
    talks.extend(net.talks(VIP6, 60));
    // A node that dies takes its own connections with it, and no others.
    nodes[1].signal(Signal::SIGKILL);
    nodes[1].ended();
    net.on("s", "ip link set pb down");
    net.settled(&["a", "c"]);
    talks.retain(|t| t.host != "b");
    all_go_on(&mut talks, "after b died");
    assert!(net.connect(VIP, 60).iter().all(|(_, host, _)| host != "b"));
}

#[test]
fn established_connections_survive_changes() {
    continuity(|_| ());
}

#[test]
fn established_connections_survive_changes_when_directed() {
    continuity(directed);
}

/// A client uses a port again whose former connection the former owner still remembers (TIME_WAIT): the new owner serves it.
fn ports_are_used_again(change: fn(&mut Value)) {
    let net = Switch::new();
    for host in SERVERS {
        // Ends each connection itself, so that it is this side that remembers.
        let listener = net.inside(host, || std::net::TcpListener::bind("[::]:8000").unwrap()).join().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let _ = (&stream).write_all(host.as_bytes());
            }
        });
    }
    let mut nodes = net.farm(change);
    // Whatever is directed comes to the former owner first.
    if net.status("c").unwrap()["groups"][0]["bitmap"].as_str().unwrap().len() > 100 {
        net.on("d", "ip neighbour replace 10.0.0.50 lladdr 02:00:00:00:00:03 nud permanent dev eth0");
    }
    let connect = |ports: Vec<u16>| {
        net.inside("d", move || {
            let one = |port: u16| {
                let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
                socket.set_reuse_address(true).unwrap();
                socket.bind(&SocketAddr::from(([10, 0, 0, 4], port)).into()).unwrap();
                let begun = Instant::now();
                socket.connect(&format!("{VIP}:8000").parse::<SocketAddr>().unwrap().into()).unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let mut text = String::new();
                std::io::Read::read_to_string(&mut &socket, &mut text).unwrap();
                (port, text, begun.elapsed())
            };
            ports.into_iter().map(one).collect::<Vec<_>>()
        })
        .join()
        .unwrap()
    };
    let first = connect((20_000..20_150).collect());
    let of_c: Vec<u16> = first.iter().filter(|(_, host, _)| host == "c").map(|(port, ..)| *port).collect();
    assert!(of_c.len() > 20, "{} of c", of_c.len());
    nodes[2].order(r#"{"kind":"close"}"#);
    nodes[2].event("closed");
    net.settled(&["a", "b"]);
    let again = connect(of_c);
    let bad: Vec<_> =
        again.iter().filter(|(_, host, took)| host == "c" || *took > Duration::from_millis(900)).collect();
    assert!(bad.is_empty(), "{bad:?}");
}

#[test]
fn ports_used_again_find_the_new_owner() {
    ports_are_used_again(|_| ());
}

#[test]
fn ports_used_again_find_the_new_owner_when_directed() {
    ports_are_used_again(directed);
}

#[test]
fn clients_of_a_dead_node_are_reset_when_they_speak() {
    let net = serving();
    let nodes = net.farm(|_| ());
    let mut talks = net.talks(VIP, 60);
    net.on("s", "ip link set pb down");
    nodes[1].signal(Signal::SIGKILL);
    net.settled(&["a", "c"]);
    let mut resets = 0;
    for talk in talks.iter_mut().filter(|t| t.host == "b") {
        let begun = Instant::now();
        let error = talk.go_on().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "after {:?}", begun.elapsed());
        resets += 1;
    }
    assert!(resets > 5, "b had hardly any connection");
}

#[test]
fn a_frozen_daemon_stops_accepting_by_itself() {
    let net = serving();
    let nodes = net.farm(|_| ());
    let before = net.connect(VIP, 100);
    assert!(before.iter().any(|(_, host, _)| host == "b"));
    nodes[1].signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    // Its kernel accepts nothing any more, although nobody tells it so.
    eventually("the lease to end", || {
        let leased = net.on("b", "nft list map netdev sk_AM lease4").contains(VIP);
        (!leased).then_some(())
    });
    assert!(frozen.elapsed() < Duration::from_secs(3), "{:?}", frozen.elapsed());
    net.settled(&["a", "c"]);
    assert!(net.connect(VIP, 100).iter().all(|(_, host, _)| host != "b"));
    nodes[1].signal(Signal::SIGCONT);
    net.settled(&SERVERS);
    assert!(net.connect(VIP, 100).iter().any(|(_, host, _)| host == "b"));
}

#[test]
fn a_partition_is_served_on_both_sides_and_heals() {
    let net = serving();
    let _nodes = net.farm(|_| ());
    for (from, to) in [("pa", "pc"), ("pc", "pa"), ("pb", "pc"), ("pc", "pb"), ("pd", "pc"), ("pc", "pd")] {
        let rule = format!("add rule bridge t f iifname {from} oifname {to} drop");
        switch::nft(
            &net,
            "s",
            &format!("table bridge t {{ chain f {{ type filter hook forward priority 0; }}; }}\n{rule}"),
        );
    }
    net.settled(&["a", "b"]);
    net.settled(&["c"]);
    assert!(net.connect(VIP, 100).iter().all(|(_, host, _)| host != "c"));
    net.on("s", "nft delete table bridge t");
    net.settled(&SERVERS);
    assert!(net.connect(VIP, 100).iter().any(|(_, host, _)| host == "c"));
}

#[test]
fn what_matches_no_rule_is_refused_and_a_closed_address_is_silent() {
    let net = serving();
    net.serve("a", "[::]:9000");
    let mut node = net.start("a", |_| ());
    node.order(r#"{"kind":"hold"}"#);
    node.event("held");
    let reach = |port: u16| {
        let to: SocketAddr = format!("{VIP}:{port}").parse().unwrap();
        net.inside("d", move || TcpStream::connect_timeout(&to, Duration::from_millis(700)).is_ok()).join().unwrap()
    };
    assert!(!reach(8000), "held is not open");
    node.order(r#"{"kind":"open"}"#);
    node.event("opened");
    assert!(reach(8000));
    assert!(!reach(9000), "no rule is for 9000");
    eventually("the refused packets to be counted", || {
        (net.status("a")?["unmatched_packets"].as_u64() > Some(0)).then_some(())
    });
    // An address is reached through its interface only.
    assert!(net.on("d", "ip neighbour show 10.0.0.50").contains("5a:fe"));
}

#[test]
fn datagrams_are_shared_by_address_port_and_identification() {
    datagrams(|_| ());
}

#[test]
fn datagrams_are_shared_by_address_port_and_identification_when_directed() {
    datagrams(directed);
}

fn datagrams(change: fn(&mut Value)) {
    let net = Switch::new();
    for host in SERVERS {
        for port in [53, 54, 55] {
            let socket = net.inside(host, move || UdpSocket::bind((VIP, port))).join().unwrap();
            // The address is not there yet: bound to all, the answer would come from another one.
            assert!(socket.is_err());
        }
    }
    let rules = json!([{"port": 53, "proto": "udp", "filter": "on_addr"}, {"port": 54, "proto": "udp", "filter": "on_port"},
        {"address": VIP, "port": 55, "proto": "udp", "filter": "on_ipid"}]);
    let mut nodes = net.farm(|spec| {
        change(spec);
        spec["groups"][0]["rules"] = rules.clone();
    });
    let is_directed = net.status("c").unwrap()["groups"][0]["bitmap"].as_str().unwrap().len() > 100;
    if is_directed {
        net.on("d", "ip neighbour replace 10.0.0.50 lladdr 02:00:00:00:00:03 nud permanent dev eth0");
    }
    for host in SERVERS {
        for port in [53, 54, 55] {
            let socket = net.inside(host, move || UdpSocket::bind((VIP, port)).unwrap()).join().unwrap();
            std::thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok((_, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(host.as_bytes(), from);
                }
            });
        }
    }
    // Who answers how often; nobody twice.
    let ask = |port: u16, one_socket: bool, length: usize| {
        net.inside("d", move || {
            let fresh = || {
                let socket = UdpSocket::bind("10.0.0.4:0").unwrap();
                socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
                socket
            };
            let mut socket = fresh();
            let mut counts: BTreeMap<String, usize> = BTreeMap::new();
            for _ in 0..60 {
                if !one_socket {
                    socket = fresh();
                }
                socket.send_to(&vec![7; length], (VIP, port)).unwrap();
                let mut name = [0; 1];
                socket.recv_from(&mut name).unwrap();
                *counts.entry(String::from_utf8_lossy(&name).into_owned()).or_default() += 1;
                socket.set_nonblocking(true).unwrap();
                assert!(socket.recv_from(&mut name).is_err(), "two answers");
                socket.set_nonblocking(false).unwrap();
            }
            counts
        })
        .join()
        .unwrap()
    };
    assert_eq!(ask(53, false, 10).len(), 1, "one client address, one server");
    assert_eq!(ask(54, true, 10).len(), 1, "one client port, one server");
    assert!(ask(54, false, 10).len() == 3, "many ports, all servers");
    assert!(ask(55, true, 2000).len() >= 2, "datagrams of one socket, in parts, are spread");
    assert!(ask(54, false, 2000).len() == 3, "parts of datagrams find the first one");
    // A node that gave its share away takes none of them, and keeps none of those that come to it.
    nodes[2].order(r#"{"kind":"close"}"#);
    nodes[2].event("closed");
    net.settled(&["a", "b"]);
    for length in [10, 2000] {
        assert_eq!(ask(54, false, length).keys().collect::<Vec<_>>(), ["a", "b"], "{length} bytes");
    }
}

/// A node that has everything computes no buckets; that begins and ends together with the shares.
#[test]
fn the_only_node_has_everything_and_shares_it_without_a_loss() {
    let net = serving();
    let is_whole = || net.on("a", "nft list map netdev sk_AM lease4").contains("vip0_whole");
    let open = |host: &'static str| {
        let mut node = net.start(host, |_| ());
        node.order(r#"{"kind":"open"}"#);
        node.event("opened");
        node
    };
    let _first = open("a");
    assert!(is_whole());
    let mut talks: Vec<Talk> = [VIP, VIP6].iter().flat_map(|vip| net.talks(vip, 30)).collect();
    let second = open("b");
    net.settled(&["a", "b"]);
    assert!(!is_whole());
    for talk in &mut talks {
        talk.go_on().unwrap();
    }
    let seen = net.connect(VIP, 100);
    for host in ["a", "b"] {
        assert!(seen.iter().filter(|(_, by, _)| *by == host).count() > 20, "{host}");
    }
    net.on("s", "ip link set pb down");
    second.signal(Signal::SIGKILL);
    net.settled(&["a"]);
    eventually("everything to be a's", || is_whole().then_some(()));
    assert!(net.connect(VIP, 100).iter().all(|(_, host, _)| *host == "a"));
    for talk in &mut talks {
        talk.go_on().unwrap();
    }
}

/// An ICMP error about a packet of the farm, as a router sends that has only 600 bytes of room: which node has the
/// connection is not for the first one to know.
fn errors_reach_every_node(change: fn(&mut Value)) {
    let net = serving();
    let _nodes = net.farm(change);
    assert_eq!(net.connect(VIP, 10).len(), 10);
    let errors = |host: &str| -> u64 {
        let text = net.on(host, "cat /proc/net/snmp");
        let mut lines = text.lines().filter(|l| l.starts_with("Icmp: "));
        let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
        let at = names.split_whitespace().position(|n| n == "InDestUnreachs").unwrap();
        values.split_whitespace().nth(at).unwrap().parse().unwrap()
    };
    let before = SERVERS.map(errors);
    // Fragmentation needed, next hop 600; the first bytes of the packet from 10.0.0.50:8000 to 10.0.0.4:40000.
    let mut packet =
        vec![3, 4, 0, 0, 0, 0, 2, 88, 0x45, 0, 5, 220, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 50, 10, 0, 0, 4];
    packet.extend_from_slice(&[0x1f, 0x40, 0x9c, 0x40, 0, 0, 0, 1]);
    let sum = packet.chunks(2).fold(0_u32, |sum, w| sum + u32::from(w[0]) * 256 + u32::from(w[1]));
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    packet[2..4].copy_from_slice(&sum.to_be_bytes());
    net.inside("d", move || {
        let socket =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::RAW, Some(socket2::Protocol::ICMPV4)).unwrap();
        for _ in 0..5 {
            socket.send_to(&packet, &format!("{VIP}:0").parse::<SocketAddr>().unwrap().into()).unwrap();
        }
    })
    .join()
    .unwrap();
    eventually("the errors at every node", || {
        (SERVERS.map(errors).iter().zip(before).all(|(n, b)| n - b >= 5)).then_some(())
    });
    // They go round in no circle: whoever is passed something passes on nothing.
    assert_eq!(net.connect(VIP, 10).len(), 10);
    assert_eq!(SERVERS.map(errors).to_vec(), before.map(|b| b + 5).to_vec());
}

#[test]
fn errors_about_packets_reach_every_node() {
    errors_reach_every_node(|_| ());
}

#[test]
fn errors_about_packets_reach_every_node_when_directed() {
    errors_reach_every_node(directed);
}

#[test]
fn traffic_is_opened_and_closed_by_scripts() {
    let net = serving();
    let mut node = net.start("a", |spec| spec["script_control"] = true.into());
    node.order(r#"{"kind":"open"}"#);
    node.event("opened");
    assert_eq!(net.status("a").unwrap()["groups"][0]["owned"], 0);
    node.order(r#"{"kind":"setgroups","value":"all"}"#);
    assert_eq!(node.event("setgroups")["value"], "all");
    assert_eq!(net.status("a").unwrap()["groups"][0]["owned"], 256);
    assert_eq!(net.connect(VIP, 5).len(), 5);
    node.order(r#"{"kind":"setgroups","value":"none"}"#);
    assert_eq!(node.event("setgroups")["value"], "none");
    assert_eq!(net.status("a").unwrap()["groups"][0]["owned"], 0);
    let mut plain = net.start("b", |_| ());
    plain.order(r#"{"kind":"setgroups","value":"all"}"#);
    assert!(plain.event("failed")["reason"].as_str().unwrap().contains("scriptcontrol"));
}

#[test]
fn nothing_is_left_behind() {
    let net = serving();
    let clean = net.traces("a");
    for end in ["release", "eof", "term"] {
        let mut node = net.start("a", |_| ());
        node.order(r#"{"kind":"open"}"#);
        node.event("opened");
        let talks = net.talks(VIP, 3);
        assert_ne!(net.traces("a"), clean);
        match end {
            "release" => node.order(r#"{"kind":"release"}"#),
            "eof" => drop(node.stdin.take()),
            _ => node.signal(Signal::SIGTERM),
        }
        node.event("released");
        assert_eq!(net.traces("a"), clean, "after {end}");
        for mut talk in talks {
            assert!(talk.go_on().is_err(), "connections end with the address");
        }
        if end == "release" {
            node.order(r#"{"kind":"open"}"#);
            node.event("opened");
            assert_eq!(net.connect(VIP, 3).len(), 3);
            drop(node.stdin.take());
        }
        assert!(node.ended().success());
        assert_eq!(net.traces("a"), clean);
    }
}

#[test]
fn a_killed_node_is_cleaned_up_by_hand_or_by_its_next_life() {
    let net = serving();
    let clean = net.traces("a");
    let kill = || {
        let mut node = net.start("a", |_| ());
        node.order(r#"{"kind":"open"}"#);
        node.event("opened");
        assert_eq!(net.farmfilter("a", "clean -m AM").status.code(), Some(1), "it runs");
        let second = net.farmfilter("a", &format!("run --spec {}", net.spec("a", |_| ()).display()));
        assert_eq!(second.status.code(), Some(1), "{}", String::from_utf8_lossy(&second.stderr));
        node.signal(Signal::SIGKILL);
        node.ended();
        assert_ne!(net.traces("a"), clean, "nobody could clean up");
    };
    kill();
    let output = net.farmfilter("a", "clean -m AM --json");
    assert!(output.status.success());
    let line: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(line["removed"].as_array().unwrap().contains(&json!(VIP)), "{line}");
    assert_eq!(net.traces("a"), clean);
    kill();
    let mut node = net.start("a", |_| ());
    eventually("the next life to clean up", || (net.traces("a") == clean).then_some(()));
    node.order(r#"{"kind":"open"}"#);
    node.event("opened");
    assert_eq!(net.connect(VIP, 5).len(), 5);
}

#[test]
fn rules_that_somebody_removed_are_loaded_again() {
    let net = serving();
    let mut node = net.start("a", |_| ());
    node.order(r#"{"kind":"open"}"#);
    node.event("opened");
    net.on("a", "nft flush ruleset");
    eventually("the rules to be there again", || {
        let rules = net.on("a", "nft list ruleset");
        (rules.contains("sk_AM") && net.on("a", "nft list map netdev sk_AM lease4").contains(VIP)).then_some(())
    });
    assert_eq!(net.connect(VIP, 5).len(), 5);
    // An address that somebody takes away is reported.
    net.on("a", "ip address del 10.0.0.50/32 dev lo");
    let event = node.event("ip");
    assert_eq!((&event["address"], &event["value"]), (&VIP.into(), &"down".into()));
}

#[test]
fn an_address_of_somebody_else_is_refused() {
    let net = Switch::new();
    let mut node = net.start("a", |_| ());
    net.on("a", "ip address add 10.0.0.50/32 dev lo");
    node.order(r#"{"kind":"open"}"#);
    let failed = node.event("failed");
    assert!(failed["reason"].as_str().unwrap().contains("is an address of interface lo already"), "{failed}");
    net.on("a", "ip address del 10.0.0.50/32 dev lo");
    net.on("d", "ip address add 10.0.0.50/24 dev eth0");
    node.order(r#"{"kind":"hold"}"#);
    assert_eq!(node.event("conflict")["mac"], "02:00:00:00:00:04");
    assert!(node.event("failed")["hint"].as_str().unwrap().contains("MAC"));
    assert!(!net.traces("a").contains("sk_AM"), "nothing is half done");
    net.on("d", "ip address del 10.0.0.50/24 dev eth0");
    node.order(r#"{"kind":"hold"}"#);
    node.event("held");
}

#[test]
fn bad_requests_have_one_clear_message_and_their_exit_code() {
    let net = Switch::new();
    let check = |arguments: &str, code: i32, words: &str| {
        let output = net.farmfilter("a", arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments}: {text}");
        assert!(text.contains(words), "{arguments}: {text}");
    };
    let bad = net.spec("a", |spec| spec["groups"][0]["rules"][0]["filter"] = "on_ipid".into());
    check("show -m AM", 1, "no farm filter of module AM runs");
    check("who 10.0.0.4:1", 1, "no farm filter runs");
    check("who nobody", 100, "10.0.0.4:40000".get(..0).unwrap());
    check("run --spec /nonexistent", 100, "cannot read /nonexistent");
    check(&format!("run --spec {}", bad.display()), 100, "on_ipid would tear TCP connections apart");
    check("clean -m ../x", 100, "not the name of a module");
    check("clean -m AM", 0, "");
    let good = net.spec("a", |_| ());
    let plan = net.farmfilter("a", &format!("plan --spec {}", good.display()));
    let text = String::from_utf8_lossy(&plan.stdout);
    assert!(text.contains("hook ingress device \"eth0\"") && text.contains("jhash"), "{text}");
    let nowhere = net.spec("a", |spec| spec["addresses"][0]["address"] = "192.0.2.9".into());
    check(&format!("plan --spec {}", nowhere.display()), 111, "no interface has a network that contains 192.0.2.9");
}
