//! Are the steps of a start and a stop taken in the right order, also when one fails, hangs or is interrupted?

use crate::driver::{Runner, settings};
use automaton::{Event, Evidence, Readiness, ReplicaPeer, ReplicaRole, StateName, Verb};
use lineage::Standing;

#[test]
fn nothing_is_published_before_prestart_ended_and_the_replica_is_known() {
    let mut r = Runner::new(settings(), Standing::Paired, &[1]);
    r.hold = Some("prestart");
    r.command(Verb::Start);
    assert_eq!(r.published, None);
    r.script_ends(Some(0));
    assert_eq!(r.published.map(|p| p.standing), Some(Standing::Paired));
}

#[test]
fn the_address_and_the_directories_are_there_before_the_application() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.command(Verb::Start);
    assert_eq!(r.state(), "WAIT Transient");
    r.feed(Event::PeerDown);
    assert!(r.at("primary") < r.at("vip") && r.at("vip") < r.at("start_prim"));
    // Whoever looks at the verbose log sees which step of the transition has begun.
    assert!(r.at("Local internal state WAIT_TO_ALONE_1") < r.at("primary"));
    let last = r.done.iter().filter(|l| l.starts_with("Local internal state WAIT_TO_ALONE_")).count();
    assert!(r.at("start_prim") < r.at(&format!("Local internal state WAIT_TO_ALONE_{last}")));
    assert!(r.persisted.wanted && r.persisted.was_primary);
}

#[test]
fn a_dead_runner_is_not_waited_for_once_its_engine_is_gone_too() {
    let died = Event::PeerGone { evidence: Evidence::RunnerDead };
    let mut r = Runner::second();
    r.feed(Event::PeerGone { evidence: Evidence::PortUnreachable });
    r.replica(ReplicaRole::Secondary, Standing::Paired, &[1], ReplicaPeer::Lost);
    assert_eq!(r.state(), "SECOND Ready", "what is not authenticated decides nothing");
    r.replica(ReplicaRole::Secondary, Standing::Paired, &[1], ReplicaPeer::InSync);
    r.feed(died.clone());
    assert_eq!(r.state(), "SECOND Ready", "its engine is still there");
    r.replica(ReplicaRole::Secondary, Standing::Paired, &[1], ReplicaPeer::Lost);
    assert_eq!(r.state(), "ALONE Ready");
    assert!(r.at("Action alone called by heart: remote runner dead") < r.at("promote"));
    // A successor that is heard before that is asked as any peer.
    let mut r = Runner::second();
    r.feed(died.clone());
    r.peer(StateName::Prim, Readiness::Ready, Standing::Paired, &[1]);
    r.replica(ReplicaRole::Secondary, Standing::Paired, &[1], ReplicaPeer::Lost);
    assert_eq!(r.state(), "SECOND Ready");
    // A primary need not wait either.
    let mut r = Runner::prim();
    r.feed(died);
    assert_eq!(r.state(), "PRIM Ready");
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    assert!(r.at("Action alone called by heart: remote runner dead") < r.at("exclude"));
}

#[test]
fn writers_are_freed_while_a_script_runs() {
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.command(Verb::Restart);
    r.replica(ReplicaRole::Primary, Standing::Paired, &[1], ReplicaPeer::Lost);
    r.feed(Event::PeerDown);
    // The stop script may be waiting for its own writes.
    assert!(r.at("exclude") > r.at("stop_prim"));
    assert_eq!(r.state(), "PRIM Transient");
    r.replica(ReplicaRole::Primary, Standing::Alone, &[2, 1], ReplicaPeer::Absent);
    r.script_ends(Some(0));
    assert_eq!(r.state(), "ALONE Ready");
    assert_eq!(r.done.iter().filter(|l| *l == "exclude").count(), 1);
}

#[test]
fn a_stop_script_that_hangs_is_forced_before_the_address_goes() {
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.command(Verb::Stop);
    r.script_ends(None);
    assert!(r.at("Script stop_prim did not end in time and was killed") < r.at("stop_prim!"));
    assert!(r.at("stop_prim!") < r.at("no vip") && r.at("no vip") < r.at("retire"));
    assert_eq!(r.state(), "STOP NotReady");
}

#[test]
fn forcestop_leaves_the_plain_stop_scripts_out() {
    let mut r = Runner::prim();
    r.command(Verb::ForceStop);
    assert_eq!(r.state(), "STOP NotReady");
    assert!(!r.done.contains(&"stop_prim".to_owned()));
    assert!(r.at("stop_prim!") < r.at("retire"));
    // While a plain stop hangs.
    let mut r = Runner::prim();
    r.hold = Some("stop_prim");
    r.command(Verb::Stop);
    r.command(Verb::ForceStop);
    r.script_ends(None);
    assert!(!r.done.contains(&"stop_both".to_owned()));
    assert_eq!(r.state(), "STOP NotReady");
}

#[test]
fn a_stop_during_the_start_takes_effect_after_the_running_script() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.hold = Some("start_both");
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    r.command(Verb::Stop);
    assert_eq!(r.state(), "ALONE Transient");
    r.script_ends(Some(0));
    assert_eq!(r.state(), "STOP NotReady");
    assert!(!r.done.contains(&"start_prim".to_owned()));
    assert!(r.at("no vip") < r.at("retire"));
    assert!(!r.persisted.wanted);
}

#[test]
fn the_exit_code_of_a_start_script_drives_nothing() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.hold = Some("start_prim");
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    r.script_ends(Some(7));
    assert_eq!(r.state(), "ALONE Ready");
}

#[test]
fn directories_that_cannot_be_served_stop_the_module() {
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.fail = Some("primary");
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    assert_eq!(r.state(), "STOP NotReady");
    r.at("Replication failed: busy");
    assert!(!r.persisted.wanted, "a new runner must not try again for ever");
    assert!(!r.done.contains(&"start_prim".to_owned()));
}

#[test]
fn directories_that_stay_busy_are_released_by_ending_the_engine() {
    let mut r = Runner::prim();
    r.fail = Some("retire");
    r.command(Verb::Stop);
    assert_eq!(r.state(), "STOP NotReady");
    assert_eq!(r.done.iter().filter(|l| *l == "retire").count(), 2);
    assert!(r.at("stop_prim!") < r.at("engine ended"));
    // The peer must not hear that we left before.
    assert!(r.at("engine ended") < r.at("WAIT Transient"));
}
