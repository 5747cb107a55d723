//! Does a mirror behave as the reference's conformance list says? Each test is one case of the list, on two real cores.

use automaton::{DefaultPrimary, Event, Readiness, StateName, Verb};
use sim::engine::Mutation;
use sim::world::World;

use Readiness::{NotReady, Ready, Transient};
use StateName::{Alone, Prim, Second, Stop, Wait};

const N1: usize = 0;
const N2: usize = 1;

fn hosts() -> World {
    let mut world = World::new(42, Mutation::None);
    world.boot(N1);
    world.boot(N2);
    world
}

/// N1 PRIM Ready, N2 SECOND Ready.
fn mirror() -> World {
    let mut world = hosts();
    world.command(N1, Verb::Prim);
    world.command(N2, Verb::Start);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
    world.run_for(500);
    forget(&mut world);
    world
}

fn forget(world: &mut World) {
    for node in &mut world.nodes {
        node.log.clear();
    }
}

#[track_caller]
fn reach(world: &mut World, node: usize, name: StateName, readiness: Readiness) {
    let reached = world.run_until(30_000, |w| w.is(node, name, readiness));
    assert!(
        reached,
        "N{} is {:?}, not {name} {readiness:?}\n{:#?}",
        node + 1,
        world.state(node),
        world.nodes[node].log
    );
}

/// The lines appear in this order, others between them.
#[track_caller]
fn logged(world: &World, node: usize, lines: &[&str]) {
    let mut rest = world.nodes[node].log.iter();
    for line in lines {
        assert!(rest.any(|l| l == line), "N{}: no \"{line}\" in order in {:#?}", node + 1, world.nodes[node].log);
    }
}

#[track_caller]
fn never(world: &World, node: usize, line: &str) {
    assert!(!world.nodes[node].log.iter().any(|l| l == line), "N{}: \"{line}\"", node + 1);
}

#[track_caller]
fn lawful(world: &World) {
    assert!(world.violations.is_empty(), "{:?}", world.violations);
}

const NOT_UP_TO_DATE: [&str; 3] = [
    "Action wait from failover rule rfs_notuptodate_server",
    "Data may be not uptodate for replicated directories (wait for the start of the remote server)",
    "If you are sure that this server has valid data, run safekit prim to force start as primary",
];

#[test]
fn m1_a_new_module_waits_for_the_operator() {
    let mut world = hosts();
    world.command(N1, Verb::Start);
    world.command(N2, Verb::Start);
    reach(&mut world, N1, Wait, NotReady);
    reach(&mut world, N2, Wait, NotReady);
    world.run_for(10_000);
    for node in [N1, N2] {
        assert!(world.is(node, Wait, NotReady));
        logged(&world, node, &["Action start called by root", "Script prestart"]);
        logged(&world, node, &NOT_UP_TO_DATE);
        logged(&world, node, &["Local state WAIT NotReady"]);
        never(&world, node, "Script start_prim");
    }
}

#[test]
fn m2_first_prim_and_second() {
    let mut world = hosts();
    world.command(N1, Verb::Prim);
    reach(&mut world, N1, Alone, Ready);
    world.command(N2, Verb::Second);
    reach(&mut world, N2, Second, Transient);
    reach(&mut world, N2, Second, Ready);
    reach(&mut world, N1, Prim, Ready);
    logged(
        &world,
        N1,
        &[
            "Action prim called by root",
            "Script start_both",
            "Script start_prim",
            "Script start_sec",
            "Local state ALONE Ready",
            "Script stop_sec",
            "Local state PRIM Ready",
        ],
    );
    logged(&world, N2, &["Action second called by root", "Script start_second", "Local state SECOND Ready"]);
    lawful(&world);
}

#[test]
fn m3_stop_both_start_both() {
    let mut world = mirror();
    world.command(N2, Verb::Stop);
    reach(&mut world, N2, Stop, NotReady);
    reach(&mut world, N1, Alone, Ready);
    world.command(N1, Verb::Stop);
    reach(&mut world, N1, Stop, NotReady);
    forget(&mut world);
    world.command(N2, Verb::Start);
    world.command(N1, Verb::Start);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
    logged(&world, N1, &["Script start_prim", "Remote state SECOND Ready", "Local state PRIM Ready"]);
    never(&world, N2, "Script start_prim");
    lawful(&world);
}

#[test]
fn m4_m5_stop_and_start_of_the_primary() {
    let mut world = mirror();
    world.command(N1, Verb::Stop);
    reach(&mut world, N2, Alone, Ready);
    reach(&mut world, N1, Stop, NotReady);
    logged(
        &world,
        N1,
        &[
            "Action stop called by root",
            "Local state PRIM Transient",
            "Script stop_prim",
            "Script stop_both",
            "Script transition",
            "Local state WAIT Transient",
            "Script stop_sec force",
            "Script stop_prim force",
            "Script stop_second force",
            "Script stop_both force",
            "Script poststop",
            "Local state STOP NotReady",
        ],
    );
    logged(
        &world,
        N2,
        &[
            "Remote state WAIT Transient",
            "Action alone called by heart: remote stop",
            "Script stop_second",
            "Script start_prim",
            "Local state ALONE Ready",
        ],
    );
    forget(&mut world);
    world.command(N1, Verb::Start);
    reach(&mut world, N1, Second, Ready);
    reach(&mut world, N2, Prim, Ready);
    never(&world, N2, "Script start_prim");
    logged(&world, N1, &["Local state SECOND Transient", "Local state SECOND Ready"]);
    lawful(&world);
}

#[test]
fn m6_restart_of_the_primary() {
    let mut world = mirror();
    world.command(N1, Verb::Restart);
    reach(&mut world, N1, Prim, Transient);
    reach(&mut world, N1, Prim, Ready);
    world.run_for(3_000);
    assert!(world.is_mirror());
    logged(&world, N1, &["Script stop_prim", "Script stop_prim force", "Script start_prim", "Local state PRIM Ready"]);
    assert!(world.nodes[N2].log.iter().all(|l| !l.starts_with("Local state")), "{:?}", world.nodes[N2].log);
}

#[test]
fn m7_stopstart_moves_the_address() {
    let mut world = mirror();
    assert!(world.nodes[N1].vip && !world.nodes[N2].vip);
    world.command(N1, Verb::StopStart);
    reach(&mut world, N2, Prim, Ready);
    reach(&mut world, N1, Second, Ready);
    assert!(!world.nodes[N1].vip && world.nodes[N2].vip);
    logged(&world, N1, &["Action stopstart called by root", "Action start called automatically"]);
    lawful(&world);
}

#[test]
fn m10_shutdown_of_the_primary_keeps_it_wanted() {
    let mut world = mirror();
    world.command(N1, Verb::Shutdown);
    reach(&mut world, N1, Stop, NotReady);
    reach(&mut world, N2, Alone, Ready);
    logged(&world, N1, &["Action shutdown called by root", "Script stop_prim", "Local state STOP NotReady"]);
    world.power_off(N1);
    forget(&mut world);
    world.boot(N1);
    reach(&mut world, N1, Second, Ready);
    logged(&world, N1, &["Action start called at boot time"]);
}

#[test]
fn m11_power_off_of_the_primary() {
    let mut world = mirror();
    world.power_off(N1);
    reach(&mut world, N2, Alone, Ready);
    logged(
        &world,
        N2,
        &["Remote state UNKNOWN", "Action alone called by heart: no heartbeat", "Local state ALONE Ready"],
    );
    world.boot(N1);
    reach(&mut world, N1, Second, Ready);
    reach(&mut world, N2, Prim, Ready);
    lawful(&world);
}

#[test]
fn m12_power_off_of_the_secondary() {
    let mut world = mirror();
    world.power_off(N2);
    reach(&mut world, N1, Alone, Ready);
    logged(&world, N1, &["Action alone called by heart: no heartbeat", "Script start_sec", "Local state ALONE Ready"]);
    never(&world, N1, "Script start_prim");
    lawful(&world);
}

#[test]
fn m13_power_off_of_both() {
    let mut world = mirror();
    world.power_off(N1);
    world.power_off(N2);
    world.run_for(1_000);
    world.boot(N1);
    reach(&mut world, N1, Wait, NotReady);
    world.run_for(10_000);
    assert!(world.is(N1, Wait, NotReady));
    world.boot(N2);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
    logged(&world, N1, &["Action wakeup from failover rule Implicit_wakeup", "Local state PRIM Ready"]);
    lawful(&world);
}

#[test]
fn m15_m16_isolation_and_its_end() {
    let mut world = mirror();
    world.beats = [false, false];
    world.link = false;
    reach(&mut world, N1, Alone, Ready);
    reach(&mut world, N2, Alone, Ready);
    world.run_for(2_000);
    world.beats = [true, true];
    world.link = true;
    reach(&mut world, N2, Second, Ready);
    reach(&mut world, N1, Prim, Ready);
    logged(&world, N1, &["Split brain recovery: staying alone"]);
    logged(
        &world,
        N2,
        &[
            "Remote state ALONE Ready",
            "Split brain recovery: exiting alone",
            "Script stop_prim",
            "Local state SECOND Ready",
        ],
    );
    never(&world, N1, "Script stop_prim");
}

#[test]
fn m19_a_short_cut_of_the_replication_network_changes_nothing() {
    let mut world = mirror();
    world.link = false;
    world.run_for(800);
    world.link = true;
    world.run_for(5_000);
    assert!(world.is_mirror());
    assert!(world.nodes.iter().all(|n| n.log.iter().all(|l| !l.starts_with("Local state"))));
}

#[test]
fn a_long_cut_of_the_replication_network_outdates_the_secondary() {
    let mut world = mirror();
    world.link = false;
    reach(&mut world, N1, Alone, Ready);
    assert!(world.is(N2, Second, Transient));
    logged(&world, N1, &["Action alone called by heart: no replication"]);
    never(&world, N1, "Script stop_prim");
    // The primary dies now: the other must not serve.
    let mut dead = mirror();
    dead.link = false;
    reach(&mut dead, N1, Alone, Ready);
    dead.power_off(N1);
    reach(&mut dead, N2, Wait, NotReady);
    dead.run_for(5_000);
    assert!(dead.is(N2, Wait, NotReady));
    never(&dead, N2, "Script start_prim");
    world.link = true;
    reach(&mut world, N2, Second, Ready);
    reach(&mut world, N1, Prim, Ready);
    lawful(&world);
}

#[test]
fn m20_the_node_that_stopped_first_waits() {
    let mut world = mirror();
    world.command(N2, Verb::Stop);
    reach(&mut world, N2, Stop, NotReady);
    reach(&mut world, N1, Alone, Ready);
    world.run_for(1_000);
    world.command(N1, Verb::Stop);
    reach(&mut world, N1, Stop, NotReady);
    forget(&mut world);
    world.command(N2, Verb::Start);
    reach(&mut world, N2, Wait, NotReady);
    logged(&world, N2, &NOT_UP_TO_DATE);
    world.command(N1, Verb::Start);
    reach(&mut world, N2, Second, Ready);
    reach(&mut world, N1, Prim, Ready);
    lawful(&world);
}

#[test]
fn m21_degraded_primary() {
    let mut world = mirror();
    world.tell(N1, Event::ReplicaFault { reason: "disk".to_owned() });
    reach(&mut world, N1, Alone, Ready);
    reach(&mut world, N2, Wait, NotReady);
    logged(&world, N1, &["Resource rfs.degraded up"]);
    never(&world, N1, "Script stop_prim");
    logged(&world, N2, &["Action wait from failover rule degraded_server"]);
    world.command(N1, Verb::Stop);
    reach(&mut world, N1, Stop, NotReady);
    assert!(world.is(N2, Wait, NotReady));
    world.command(N1, Verb::Start);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
    lawful(&world);
}

#[test]
fn m22_failover_off() {
    let mut world = mirror();
    for node in [N1, N2] {
        world.tell(node, Event::SetFailover { on: false, origin: "root".to_owned() });
    }
    world.power_off(N1);
    reach(&mut world, N2, Wait, NotReady);
    logged(
        &world,
        N2,
        &[
            "Failover-off configured",
            "Action stopstart called by failover-off",
            "Transition STOPSTART from failover-off",
            "Local state WAIT NotReady",
        ],
    );
    world.boot(N1);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
    never(&world, N2, "Script start_prim");
    lawful(&world);
}

/// Without data to compare, nothing but its memory keeps the survivor from serving.
#[test]
fn failover_off_outlives_the_runner_and_the_host() {
    let mut world = World::new(42, Mutation::None);
    for node in &mut world.nodes {
        node.settings.replicated = false;
        node.settings.failover = false;
    }
    world.writing = false;
    world.boot(N1);
    world.boot(N2);
    world.command(N1, Verb::Prim);
    world.command(N2, Verb::Start);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
    world.power_off(N1);
    reach(&mut world, N2, Wait, NotReady);
    world.kill_runner(N2);
    world.run_for(15_000);
    assert!(world.is(N2, Wait, NotReady), "{:?}", world.state(N2));
    world.power_off(N2);
    world.boot(N2);
    world.run_for(15_000);
    assert!(world.is(N2, Wait, NotReady), "{:?}", world.state(N2));
    // The operator's word ends it.
    world.command(N2, Verb::Stop);
    reach(&mut world, N2, Stop, NotReady);
    world.command(N2, Verb::Prim);
    reach(&mut world, N2, Alone, Ready);
    world.boot(N1);
    reach(&mut world, N1, Second, Ready);
    lawful(&world);
}

#[test]
fn m23_defaultprim_comes_back() {
    let mut world = World::new(42, Mutation::None);
    for node in &mut world.nodes {
        node.settings.default_primary = DefaultPrimary::Node("node1".to_owned());
    }
    world.boot(N1);
    world.boot(N2);
    world.command(N1, Verb::Prim);
    world.command(N2, Verb::Start);
    reach(&mut world, N1, Prim, Ready);
    world.run_for(500);
    world.power_off(N1);
    reach(&mut world, N2, Alone, Ready);
    forget(&mut world);
    world.boot(N1);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
    logged(&world, N2, &["Transition SWAP from defaultprim", "Begin of Swap", "Script stop_prim"]);
    lawful(&world);
    // An operator's swap is not undone.
    world.run_for(500);
    world.command(N1, Verb::Swap);
    reach(&mut world, N2, Prim, Ready);
    world.run_for(10_000);
    assert!(world.is(N2, Prim, Ready) && world.is(N1, Second, Ready));
}

#[test]
fn m24_swap_from_either_side() {
    for asked in [N1, N2] {
        let mut world = mirror();
        world.command(asked, Verb::Swap);
        reach(&mut world, N2, Prim, Ready);
        reach(&mut world, N1, Second, Ready);
        logged(
            &world,
            N1,
            &["Begin of Swap", "Script stop_prim", "Script stop_prim force", "Script start_second", "Script start_sec"],
        );
        logged(&world, N2, &["Script stop_sec", "Script stop_second", "Script start_prim", "Local state PRIM Ready"]);
        never(&world, N1, "Local state ALONE Ready");
        lawful(&world);
    }
}

#[test]
fn a_swap_survives_the_death_of_either_node() {
    for (dies, after) in [(N1, 20), (N1, 120), (N1, 250), (N2, 20), (N2, 120), (N2, 250)] {
        let mut world = mirror();
        world.command(N1, Verb::Swap);
        world.run_for(after);
        world.power_off(dies);
        reach(&mut world, 1 - dies, Alone, Ready);
        world.boot(dies);
        reach(&mut world, 1 - dies, Prim, Ready);
        reach(&mut world, dies, Second, Ready);
        lawful(&world);
    }
}

#[test]
fn m25_an_inconsistent_node_needs_primforce() {
    let mut world = mirror();
    world.command(N2, Verb::Stop);
    reach(&mut world, N2, Stop, NotReady);
    reach(&mut world, N1, Alone, Ready);
    world.command(N2, Verb::Start);
    reach(&mut world, N2, Second, Transient);
    assert!(world.run_until(5_000, |w| w.nodes[N2].engine.standing == lineage::Standing::Inconsistent));
    world.command(N2, Verb::Stop);
    reach(&mut world, N2, Stop, NotReady);
    world.command(N1, Verb::Stop);
    reach(&mut world, N1, Stop, NotReady);
    forget(&mut world);
    world.command(N2, Verb::Prim);
    reach(&mut world, N2, Wait, Transient);
    reach(&mut world, N2, Stop, NotReady);
    logged(
        &world,
        N2,
        &[
            "Data may be inconsistent for replicated directories (stopped during reintegration)",
            "If you are sure that this server has valid data, run safekit primforce to force start as primary",
            "Requested prim start aborted",
        ],
    );
    assert_eq!(world.nodes[N2].refusals, ["Requested prim start aborted"]);
    world.command(N2, Verb::PrimForce);
    reach(&mut world, N2, Alone, Ready);
    world.command(N1, Verb::Start);
    reach(&mut world, N1, Second, Ready);
    reach(&mut world, N2, Prim, Ready);
}

#[test]
fn m29_prim_beside_a_primary_and_second_without_one() {
    let mut world = mirror();
    world.command(N2, Verb::Stop);
    reach(&mut world, N2, Stop, NotReady);
    world.command(N2, Verb::Prim);
    reach(&mut world, N2, Wait, Transient);
    reach(&mut world, N2, Stop, NotReady);
    assert_eq!(world.nodes[N2].refusals.len(), 1);
    assert!(world.is(N1, Alone, Ready));
    world.command(N1, Verb::Stop);
    reach(&mut world, N1, Stop, NotReady);
    world.command(N2, Verb::Second);
    reach(&mut world, N2, Wait, Transient);
    reach(&mut world, N2, Stop, NotReady);
    assert_eq!(world.nodes[N2].refusals.len(), 2);
}

#[test]
fn a_killed_runner_of_the_primary_fails_over() {
    let mut world = mirror();
    world.kill_runner(N1);
    reach(&mut world, N2, Prim, Ready);
    reach(&mut world, N1, Second, Ready);
    lawful(&world);
}

#[test]
fn c3_the_fourth_automatic_restart_stops_the_module() {
    let mut world = mirror();
    for _ in 0..3 {
        world.automatic(N1, Verb::Restart, "errd");
        reach(&mut world, N1, Prim, Transient);
        reach(&mut world, N1, Prim, Ready);
    }
    forget(&mut world);
    world.automatic(N1, Verb::Restart, "errd");
    reach(&mut world, N1, Stop, NotReady);
    logged(
        &world,
        N1,
        &[
            "Action restart called by errd",
            "Action stop called by maxloop",
            "Action stop called by heart : local fault",
            "Local state PRIM Transient",
            "Script stop_prim",
            "Local state WAIT Transient",
            "Script stop_prim force",
            "Local state STOP NotReady",
        ],
    );
    reach(&mut world, N2, Alone, Ready);
    // A new runner does not start it again.
    assert!(!world.nodes[N1].persisted.wanted);
}

#[test]
fn c6_c12_interface_and_address() {
    let event = |name: &str, value: &str| Event::Resource {
        name: name.to_owned(),
        value: value.to_owned(),
        origin: "intfcheck".to_owned(),
    };
    let mut world = mirror();
    world.tell(N1, event("intf.10.0.0.0", "down"));
    reach(&mut world, N1, Wait, NotReady);
    reach(&mut world, N2, Alone, Ready);
    logged(&world, N1, &["Action wait from failover rule interface_failure", "Local state WAIT NotReady"]);
    world.tell(N1, event("intf.10.0.0.0", "up"));
    reach(&mut world, N1, Second, Ready);
    reach(&mut world, N2, Prim, Ready);
    logged(&world, N1, &["Action wakeup from failover rule Implicit_wakeup", "Local state SECOND Ready"]);
    world.tell(N2, event("ip.10.0.0.50", "down"));
    reach(&mut world, N1, Alone, Ready);
    reach(&mut world, N2, Second, Ready);
    logged(&world, N2, &["Action stopstart from failover rule ip_failure", "Action start called automatically"]);
    lawful(&world);
}

#[test]
fn an_address_in_use_blocks_the_start_and_is_tried_again() {
    let mut world = hosts();
    world.nodes[N1].vip_conflict = true;
    world.command(N1, Verb::Prim);
    reach(&mut world, N1, Wait, NotReady);
    logged(
        &world,
        N1,
        &[
            "Virtual IP: 10.0.0.50 is in use by 02:00:00:00:00:01",
            "Action wait from failover rule ip_failure",
            "Local state WAIT NotReady",
        ],
    );
    never(&world, N1, "Script start_prim");
    world.nodes[N1].vip_conflict = false;
    reach(&mut world, N1, Alone, Ready);
}

#[test]
fn without_replicated_directories_a_lone_node_serves() {
    let mut world = World::new(42, Mutation::None);
    for node in &mut world.nodes {
        node.settings.replicated = false;
    }
    world.writing = false;
    world.boot(N1);
    world.boot(N2);
    world.command(N1, Verb::Start);
    reach(&mut world, N1, Alone, Ready);
    world.command(N2, Verb::Start);
    reach(&mut world, N2, Second, Ready);
    reach(&mut world, N1, Prim, Ready);
    world.power_off(N1);
    reach(&mut world, N2, Alone, Ready);
    world.boot(N1);
    reach(&mut world, N2, Prim, Ready);
    world.command(N2, Verb::Swap);
    reach(&mut world, N1, Prim, Ready);
    reach(&mut world, N2, Second, Ready);
}
