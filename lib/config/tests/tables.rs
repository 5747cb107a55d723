//! Are good files read as they mean, and bad ones refused with the right words at the right places?

use config::{
    Async, Cluster, CpuLatency, DefaultPrim, Module, Network, NotReplicated, Place, Severity, Sync, check_file,
    check_module_against_cluster, links, parse_cluster, parse_module,
};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

fn tests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests")
}

fn read(name: &str) -> String {
    fs::read_to_string(tests().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

fn environment(name: &str) -> Option<String> {
    (name == "FROM_ENVIRONMENT").then(|| "from outside".to_owned())
}

fn module(text: &str) -> Module {
    let (module, found) = parse_module("userconfig.xml", text, &environment);
    module.unwrap_or_else(|| panic!("{}", found.plain()))
}

fn cluster(text: &str) -> Cluster {
    let (cluster, found) = parse_cluster("cluster.xml", text);
    cluster.unwrap_or_else(|| panic!("{}", found.plain()))
}

/// Each bad file has beside it what is said of it. `UPDATE=1` writes these files anew.
#[test]
fn bad_files_are_refused_with_the_expected_words() {
    let mut wrong = String::new();
    let mut seen = 0;
    let mut files: Vec<PathBuf> = fs::read_dir(tests().join("bad")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    for path in files.iter().filter(|p| p.extension().is_some_and(|e| e == "xml")) {
        seen += 1;
        let found = check_file(path, &|_| None, None);
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(found.has_errors(), "{name} is accepted");
        let said = found.plain().replace(&path.display().to_string(), name);
        let expected = path.with_extension("expected");
        if std::env::var_os("UPDATE").is_some() {
            fs::write(&expected, &said).unwrap();
        }
        if fs::read_to_string(&expected).unwrap_or_default() != said {
            wrong.push_str(&said);
        }
        assert!(!found.report(false).is_empty() && !found.report(true).is_empty());
        assert_eq!(found.json_lines().lines().count(), found.iter().count());
    }
    assert!(seen > 25, "the table of bad files is gone");
    assert!(wrong.is_empty(), "these differ from their .expected files:\n{wrong}");
}

#[test]
fn good_files_have_nothing_to_say() {
    for name in ["smallest.xml", "everything.xml", "farm.xml", "light.xml"] {
        let (read_module, found) = parse_module(name, &read(&format!("good/{name}")), &environment);
        assert!(read_module.is_some() && found.is_empty(), "{}", found.plain());
    }
    let (_, found) = parse_cluster("cluster.xml", &read("good/cluster.xml"));
    assert!(found.is_empty(), "{}", found.plain());
}

#[test]
fn defaults_are_those_of_the_reference() {
    let m = module(&read("good/smallest.xml"));
    assert_eq!(m.heart().unwrap().pulse, Duration::from_millis(700));
    assert_eq!(m.heart().unwrap().timeout, Duration::from_secs(30));
    assert_eq!(m.heart().unwrap().heartbeats[0].ident, "default");
    assert!(m.service.failover && m.service.max_loop == 3);
    assert_eq!(m.service.loop_interval, Duration::from_hours(24));
    assert_eq!(m.service.default_prim, DefaultPrim::Alone);
    assert!(m.vip.is_none() && m.rfs.is_none() && m.user.is_none() && m.errd.is_none());
    assert_eq!(m.heart_port(), 8888);
    assert_eq!((config::rfs_port(1), config::rfs_port(3)), (5600, 5608));
}

#[test]
fn everything_is_read() {
    let m = module(&read("good/everything.xml"));
    assert_eq!(m.service.default_prim, DefaultPrim::Node("node1".into()));
    assert_eq!(m.service.boot_delay, Duration::from_mins(1));
    assert!(!m.service.failover && m.service.automatic_reboot);
    assert_eq!(m.heart_port(), 9000);
    assert_eq!(m.heartbeat_timeout(), Duration::from_secs(3));
    let errd = m.errd.as_ref().unwrap();
    assert_eq!(errd.procs[0].name, "ordersd");
    assert_eq!((errd.procs[1].at_least, errd.procs[1].at_max), (-1, 0));
    assert_eq!(errd.procs[2].action.as_str(), "on_late");
    let user = m.user.as_ref().unwrap();
    assert_eq!(user.vars[0].value, "");
    assert_eq!(user.vars[1].value, "a <b> \"c\" & d\n100% of it, €");
    assert_eq!(user.vars[2].value, "from outside");
    let rfs = m.rfs.as_ref().unwrap();
    assert_eq!((rfs.asynchronous, rfs.sync), (Async::None, Sync::Write));
    assert_eq!(rfs.rei_allowed_bandwidth_kbs, Some(20_000));
    assert_eq!(rfs.cpu_latency, CpuLatency::Off);
    assert_eq!(rfs.sync_delta, Some(Duration::from_hours(2)));
    assert_eq!(rfs.sync_at.as_ref().map(ToString::to_string).as_deref(), Some("1 0 * * *"));
    assert!(rfs.rei_detail && rfs.scripts);
    assert_eq!(rfs.replicated[0].dir, "/srv/orders/data");
    assert_eq!(rfs.replicated[0].not_replicated[0], NotReplicated::Path("tmp".into()));
    assert!(!rfs.replicated[0].read_only && rfs.replicated[1].read_only);
    let vip = m.vip.as_ref().unwrap();
    let addresses = &vip.interfaces[0].addresses;
    assert_eq!((addresses[0].prefix, addresses[0].place), (Some(23), Place::OneSideAlias));
    assert_eq!((addresses[1].addr.as_str(), addresses[1].place), ("2001:db8::50", Place::OneSide));
    assert_eq!(m.replication_network(), Some(&Network::Lan("repl".into())));
}

#[test]
fn the_expanded_file_means_the_same() {
    for name in ["good/smallest.xml", "good/everything.xml", "good/farm.xml", "good/light.xml"] {
        let first = module(&read(name));
        let (second, found) = parse_module("safeconf.xml", &first.expanded_xml(), &|_| None);
        assert!(found.is_empty(), "{}\n{}", found.plain(), first.expanded_xml());
        assert_eq!(second, Some(first));
    }
}

#[test]
fn a_module_fits_its_cluster() {
    let m = module(&read("good/everything.xml"));
    let c = cluster(&read("good/cluster.xml"));
    assert_eq!(c.nodes(), ["node1", "node2"]);
    let found = check_module_against_cluster(&m, &c);
    assert!(found.is_empty(), "{}", found.plain());
    let l = links(&m, &c, "node2").unwrap();
    assert_eq!(l.peer, "node1");
    assert_eq!(
        (l.heartbeats[0].addresses.local.as_str(), l.heartbeats[0].addresses.peer.as_str()),
        ("10.0.0.2", "192.0.2.11")
    );
    assert_eq!(l.heartbeats[1].ident, "flow");
    let replication = l.replication.unwrap();
    assert_eq!((replication.local.as_str(), replication.peer.as_str()), ("node2-repl.example", "2001:db8::1"));
    assert_eq!(links(&m, &c, "node9"), None);
}

#[test]
fn a_module_that_does_not_fit_is_told_so() {
    let m = module(
        "<safe><service mode='mirror' defaultprim='node7'>\n<heart>\n<heartbeat name='default'/>\n<heartbeat name='three'/>\n\
         <heartbeat name='other'/>\n<heartbeat name='gone'/>\n</heart>\n<vip><interface_list><interface><real_interface>\n\
         <virtual_addr addr='192.0.2.11'/></real_interface></interface></interface_list></vip></service></safe>",
    );
    let node = |name: &str, addr: &str| format!("<node name='{name}' addr='{addr}'/>");
    let c = cluster(&format!(
        "<cluster><lans><lan name='default'>{}{}</lan><lan name='three'>{}{}{}</lan><lan name='other'>{}{}</lan></lans></cluster>",
        node("node1", "192.0.2.11"),
        node("node2", "192.0.2.12"),
        node("node1", "198.51.100.1"),
        node("node2", "198.51.100.2"),
        node("node3", "198.51.100.3"),
        node("node2", "203.0.113.2"),
        node("node3", "203.0.113.3"),
    ));
    let found = check_module_against_cluster(&m, &c);
    insta::assert_snapshot!(found.plain(), @r"
    userconfig.xml:1:43: error: defaultprim names 'node7', which is not a node of this module
      help: write alone, lastprim, node1 or node2
    userconfig.xml:4:18: error: lan 'three' has 3 node(s) (node1, node2, node3); a mirror runs on exactly 2
      help: define a lan with the two nodes of this module in cluster.xml
    userconfig.xml:5:18: error: lan 'other' connects node2 and node3, but lan 'default' connects node1 and node2
      help: use lans of the same two nodes
    userconfig.xml:6:18: error: there is no lan 'gone' in the cluster
      help: lans of the cluster: default, three, other
    userconfig.xml:9:21: error: virtual address '192.0.2.11' is the address of node 'node1' on lan 'default'
      help: choose a free address
    ");
    assert_eq!(links(&m, &c, "node1"), None);
}

#[test]
fn the_pasted_file_is_refused_until_it_is_filled_in() {
    let text = read("fixtures/pasted.xml");
    let (none, found) = parse_module("userconfig.xml", &text, &|_| None);
    assert!(none.is_none());
    let errors: Vec<String> = found
        .iter()
        .filter(|d| d.severity == Severity::Error)
        .map(|d| format!("{}:{} {}", d.line, d.column, &text[d.span.start..d.span.end]))
        .collect();
    assert_eq!(errors, ["13:31 VIRTUAL_TO_BE_DEFINED", "19:22 DIRECTORY_TO_BE_DEFINED", "23:17 PROCESS_NAME"]);

    let filled = text
        .replace("VIRTUAL_TO_BE_DEFINED", "192.0.2.50")
        .replace("DIRECTORY_TO_BE_DEFINED", "/srv/data")
        .replace("PROCESS_NAME", "daemon");
    let (some, found) = parse_module("userconfig.xml", &filled, &|_| None);
    let m = some.unwrap_or_else(|| panic!("{}", found.plain()));
    assert_eq!(m.rfs.unwrap().replicated[0].dir, "/srv/data");
    assert_eq!(m.service.loop_interval, Duration::from_hours(24));
    assert_eq!(m.errd.unwrap().procs[0].name, "daemon");
    let said = found.plain();
    for expected in [
        "4:15: warning: typographic quotes",
        "18:8: warning: attribute 'mountover'",
        "18:49: warning: attribute 'nbrei'",
    ] {
        assert!(said.contains(expected), "{expected} not in\n{said}");
    }
}

#[test]
fn old_forms_are_accepted_with_a_warning() {
    let text = "<macro name='LAN' value='default'/>\n<safe><service mode='mirror'><heart permanent_arp='on'>\
                <heartbeat ident='%LAN%'><server addr='192.0.2.11'/><server addr='192.0.2.12'/></heartbeat></heart></service></safe>";
    let (some, found) = parse_module("f", text, &|_| None);
    let m = some.unwrap_or_else(|| panic!("{}", found.plain()));
    assert_eq!(found.iter().count(), 4, "{}", found.plain());
    assert!(found.iter().all(|d| d.severity == Severity::Warning && d.help.is_some()));
    let c = cluster(
        "<cluster><lans><lan name='default' framework='on'><node name='a' addr='192.0.2.11'/><node name='b' addr='192.0.2.12'/></lan></lans></cluster>",
    );
    assert!(check_module_against_cluster(&m, &c).is_empty());
    assert_eq!(links(&m, &c, "a").unwrap().peer, "b");
}

#[test]
fn a_file_too_long_or_absent_is_one_clear_error() {
    let (none, found) = parse_module("f", &" ".repeat(config::MAX_FILE + 1), &|_| None);
    assert!(none.is_none() && found.plain().contains("more than 1048576"));
    let absent = check_file(&tests().join("no-such-file"), &|_| None, None);
    assert!(absent.has_errors() && absent.plain().contains("cannot read the file"));
    let dir = tempfile::tempdir().unwrap();
    let binary = dir.path().join("binary.xml");
    fs::write(&binary, b"<safe>\n\xff\xfe</safe>").unwrap();
    let found = check_file(&binary, &|_| None, None);
    assert!(found.plain().contains("binary.xml:2:1: error: the file is not UTF-8"), "{}", found.plain());
}

/// What is delivered must check clean, but for what the user has to fill in.
#[test]
fn delivered_modules_lack_only_what_must_be_filled_in() {
    let modules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules");
    let mut seen = 0;
    for entry in fs::read_dir(modules).unwrap() {
        let path = entry.unwrap().path().join("conf/userconfig.xml");
        let found = check_file(&path, &|_| None, None);
        seen += 1;
        for d in &found {
            assert!(d.message.contains("placeholder"), "{d}");
        }
    }
    assert!(seen > 0);
}

#[test]
fn a_report_shows_the_line_and_a_caret() {
    let (_, found) = parse_module("f.xml", &read("fixtures/pasted.xml"), &|_| None);
    let report = found.report(false);
    assert!(report.contains("--> f.xml:13:31"), "{report}");
    assert!(report.contains("^^^^^^^^^^^^^^^^^^^^^"), "{report}");
}
