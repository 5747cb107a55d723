//! Are farm and light modules read as they mean, and held against their cluster?

use config::{
    Cluster, Filter, Mode, Module, Place, Proto, VirtualMac, check_module_against_cluster, farm_links, links,
    parse_cluster, parse_module,
};
use std::time::Duration;

fn module(text: &str) -> Module {
    let (module, found) = parse_module("userconfig.xml", text, &|_| None);
    module.unwrap_or_else(|| panic!("{}", found.plain()))
}

fn cluster(text: &str) -> Cluster {
    let (cluster, found) = parse_cluster("cluster.xml", text);
    cluster.unwrap_or_else(|| panic!("{}", found.plain()))
}

/// `default` with three nodes, `pair` with two of them.
fn three() -> Cluster {
    cluster(
        "<cluster><lans><lan name='default'><node name='node1' addr='192.0.2.11' laddr='10.0.0.1'/>\
         <node name='node2' addr='192.0.2.12'/><node name='node3' addr='192.0.2.13'/></lan>\
         <lan name='pair'><node name='node1' addr='[2001:db8::1]'/><node name='node2' addr='[2001:db8::2]'/></lan></lans></cluster>",
    )
}

fn farm(lans: &str, groups: &str) -> Module {
    module(&format!(
        "<safe><service mode='farm'><farm>{lans}</farm><vip><interface_list><interface>\
         <virtual_interface type='vmac_invisible'><virtual_addr addr='192.0.2.50'/></virtual_interface></interface></interface_list>\
         <loadbalancing_list>{groups}</loadbalancing_list></vip></service></safe>"
    ))
}

#[test]
fn everything_of_a_farm_is_read() {
    let m = module(include_str!("good/farm.xml"));
    let f = m.farm().unwrap();
    assert_eq!((f.port(9), f.pulse, f.leader_missed, f.follower_missed), (4900, Duration::from_millis(50), 30, 6));
    assert_eq!(f.lans.len(), 2);
    assert!(m.heart().is_none() && m.rfs.is_none() && m.heartbeat_timeout().is_zero());
    let vip = m.vip.as_ref().unwrap();
    assert!(vip.script_control && !vip.tcp_reset && !vip.early_drop);
    let addresses = &vip.interfaces[0].addresses;
    assert!(addresses.iter().all(|a| a.place == Place::Alias));
    let macs: Vec<_> = addresses.iter().map(|a| a.mac.unwrap()).collect();
    let own = VirtualMac::Invisible([0x5a, 0xfe, 192, 0, 2, 51]);
    assert_eq!(macs, [VirtualMac::Directed, own, own, VirtualMac::Invisible([2, 0, 0, 0xaa, 0xbb, 1])]);
    let [first, second] = &vip.groups[..] else { panic!("{:?}", vip.groups) };
    let hosts = first.hosts.as_ref().unwrap();
    assert_eq!((hosts[0].name.as_str(), hosts[0].power, hosts[1].power), ("node1", 2, 0));
    assert_eq!((first.rules[0].addr.as_ref(), first.rules[0].port), (None, Some(80)));
    assert_eq!((first.rules[1].port, first.rules[1].proto, first.rules[1].filter), (None, Proto::Udp, Filter::OnPort));
    assert!(second.hosts.is_none());
    assert_eq!((second.rules[0].proto, second.rules[0].filter), (Proto::Arp, Filter::OnAddr));
    assert_eq!(second.rules[2].addr.as_deref(), Some("2001:db8::51"));
}

#[test]
fn defaults_of_a_farm_are_those_of_the_reference() {
    let m = module("<safe><service mode='farm'><farm><lan name='default'/></farm></service></safe>");
    let f = m.farm().unwrap();
    assert_eq!((f.port(1), f.port(2)), (4803, 4806));
    assert_eq!((f.pulse, f.leader_missed, f.follower_missed), (Duration::from_millis(100), 20, 10));
    assert!(m.vip.is_none(), "a farm behind a balancer has no address of its own");
    let light = module("<safe><service mode='light'><user/></service></safe>");
    assert_eq!(light.mode, Mode::Light);
    assert!(check_module_against_cluster(&light, &three()).is_empty());
}

#[test]
fn a_node_of_a_farm_finds_its_lans() {
    let c = three();
    let m =
        farm("<lan name='default'/><lan name='pair'/>", "<group name='G'><rule proto='tcp' filter='on_port'/></group>");
    assert!(check_module_against_cluster(&m, &c).is_empty());
    let l = farm_links(&m, &c, "node1").unwrap();
    assert_eq!(l.nodes, ["node1", "node2", "node3"]);
    assert_eq!(l.lans[0].nodes[0], ("node1".to_owned(), "10.0.0.1".to_owned()), "the own address as configured here");
    assert_eq!(l.lans[1].nodes[1], ("node2".to_owned(), "2001:db8::2".to_owned()));
    let third = farm_links(&m, &c, "node3").unwrap();
    assert_eq!(third.lans.len(), 1, "node3 is on one lan only");
    assert_eq!(farm_links(&m, &c, "node9"), None);
    assert_eq!(links(&m, &c, "node1"), None, "a farm has no peer");
}

#[test]
fn the_old_form_of_a_lan_is_accepted_with_a_warning() {
    let text = "<safe><service mode='farm'><farm><lan><node name='a' addr='192.0.2.12'/><node addr='192.0.2.11'/></lan></farm></service></safe>";
    let (m, found) = parse_module("f", text, &|_| None);
    assert!(!found.has_errors() && found.iter().count() == 2, "{}", found.plain());
    let m = m.unwrap();
    assert!(check_module_against_cluster(&m, &three()).is_empty());
    assert_eq!(farm_links(&m, &three(), "node2").unwrap().nodes.len(), 3);
    let (again, _) = parse_module("safeconf.xml", &m.expanded_xml(), &|_| None);
    assert_eq!(again, Some(m));
}

#[test]
fn a_farm_that_does_not_fit_its_cluster_is_told_so() {
    let m = farm(
        "<lan name='gone'/>",
        "<group name='G'><cluster><host name='nodeX'/></cluster><rule proto='tcp' filter='on_port'/></group>",
    );
    insta::assert_snapshot!(check_module_against_cluster(&m, &three()).plain(), @r"
    userconfig.xml:1:45: error: there is no lan 'gone' in the cluster
      help: lans of the cluster: default, pair
    ");
    let m = farm(
        "<lan name='default'/>",
        "<group name='G'><cluster><host name='nodeX'/><host name='node1'/></cluster><rule proto='tcp' filter='on_port'/></group>",
    );
    insta::assert_snapshot!(check_module_against_cluster(&m, &three()).plain(), @r#"
    userconfig.xml:1:250: warning: group 'G' does not name node2, node3
      help: what is not named gets no traffic of the group; name it with power="0" to say that this is meant
    userconfig.xml:1:274: error: host 'nodeX' is not a node of this farm
      help: nodes of its lans in cluster.xml: node1, node2, node3
    "#);
    let taken = three();
    let m = module(
        "<safe><service mode='farm'><farm><lan name='default'/></farm><vip><interface_list><interface><virtual_interface type='vmac_directed'>\
         <virtual_addr addr='192.0.2.13'/></virtual_interface></interface></interface_list><loadbalancing_list><group name='G'>\
         <rule proto='tcp' filter='on_port'/></group></loadbalancing_list></vip></service></safe>",
    );
    assert!(check_module_against_cluster(&m, &taken).plain().contains("is the address of node 'node3'"));
}

#[test]
fn sizes_of_a_farm_are_bounded() {
    let nodes: Vec<String> = (1..=33).map(|n| format!("<node name='n{n}' addr='10.0.0.{n}'/>")).collect();
    let nodes = nodes.concat();
    let c = cluster(&format!("<cluster><lans><lan name='default'>{nodes}</lan></lans></cluster>"));
    let m = module("<safe><service mode='farm'><farm><lan name='default'/></farm></service></safe>");
    assert!(check_module_against_cluster(&m, &c).plain().contains("has 33 nodes; a farm runs on 32 at most"));
}

#[test]
fn rules_that_take_from_each_other_are_named() {
    let said = |groups: &str| {
        let text = format!(
            "<safe><service mode='farm'><farm><lan name='default'/></farm><vip><interface_list><interface>\
             <virtual_interface type='vmac_invisible'><virtual_addr addr='192.0.2.50'/><virtual_addr addr='192.0.2.51'/>\
             </virtual_interface></interface></interface_list><loadbalancing_list>{groups}</loadbalancing_list></vip></service></safe>"
        );
        let (module, found) = parse_module("userconfig.xml", &text, &|_| None);
        assert!(module.is_some(), "{}", found.plain());
        found.plain()
    };
    let group = |name: &str, rules: &str| format!("<group name='{name}'>{rules}</group>");
    let all = "<rule proto='tcp' filter='on_addr'/>";
    let web = "<rule port='80' proto='tcp' filter='on_port'/>";
    let one = "<rule virtual_addr='192.0.2.50' proto='tcp' filter='on_addr'/>";
    // What is meant: the special case first.
    assert_eq!(said(&(group("web", web) + &group("rest", all))), "");
    assert_eq!(said(&(group("web", web) + &group("dns", "<rule port='80' proto='udp' filter='on_addr'/>"))), "");
    assert_eq!(said(&group("both", &format!("{web}{all}"))), "");
    // Nothing is left for the second one, in another group or in the same.
    for groups in [group("rest", all) + &group("web", web), group("web", &format!("{all}{web}"))] {
        let words = said(&groups);
        assert!(words.contains("'web' (tcp address * port 80) gets nothing: it is covered by"), "{words}");
    }
    let words = said(&(group("web", web) + &group("first", one)));
    assert!(words.contains("'first' (tcp address 192.0.2.50 port *) gets only what is left by"), "{words}");
}
