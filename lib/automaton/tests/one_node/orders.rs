//! What becomes of commands, automatic ones too, and of what was wanted before the runner began?

use crate::driver::{Runner, settings};
use automaton::{Core, Event, Persisted, Readiness, Settings, StateName, Verb};
use lineage::Standing;

#[test]
fn the_third_automatic_action_is_the_last_inside_the_interval() {
    let mut r = Runner::prim();
    for _ in 0..3 {
        r.errd(Verb::Restart);
        assert_eq!(r.state(), "PRIM Ready");
    }
    assert!(r.core.loop_reached());
    r.now += 86_400_001;
    r.feed(Event::Tick);
    r.errd(Verb::Restart);
    assert_eq!((r.state().as_str(), r.persisted.loop_count), ("PRIM Ready", 1));
    r.errd(Verb::Restart);
    r.errd(Verb::Restart);
    r.command(Verb::Restart);
    assert_eq!(r.persisted.loop_count, 0, "a command of the operator resets the counter");
    for _ in 0..4 {
        r.errd(Verb::Restart);
    }
    assert_eq!(r.state(), "STOP NotReady");
    r.at("Action stop called by maxloop");
}

#[test]
fn without_an_interval_nothing_is_counted() {
    let mut r = Runner::prim();
    r.core = Core::new(Settings { loop_interval_ms: 0, ..settings() }, Persisted::default(), 1);
    r.report.standing = Standing::Alone;
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    for _ in 0..9 {
        r.errd(Verb::Restart);
    }
    assert_eq!(r.state(), "ALONE Ready");
}

#[test]
fn automatic_stopstart_may_reboot() {
    let mut r = Runner::prim();
    r.core = Core::new(Settings { automatic_reboot: true, ..settings() }, Persisted::default(), 1);
    r.report.standing = Standing::Alone;
    r.command(Verb::Start);
    r.feed(Event::PeerDown);
    r.errd(Verb::StopStart);
    assert_eq!(r.state(), "STOP NotReady");
    r.at("reboot");
    assert!(r.persisted.wanted);
}

#[test]
fn a_new_runner_starts_what_was_wanted() {
    let wanted = Persisted { wanted: true, ..Persisted::default() };
    for (boot, persisted, line) in [
        (true, Persisted::default(), "Action start called at boot time"),
        (false, wanted, "Action start called automatically"),
    ] {
        let mut r = Runner::new(settings(), Standing::Alone, &[1]);
        r.core = Core::new(settings(), persisted, 2);
        r.feed(Event::Begin { boot });
        r.at(line);
        assert_eq!(r.state(), "WAIT Transient");
    }
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.feed(Event::Begin { boot: false });
    assert_eq!(r.state(), "STOP NotReady");
}

#[test]
fn commands_that_make_no_sense_are_refused() {
    let mut r = Runner::prim();
    r.command(Verb::Prim);
    r.at("refused: the module is not stopped, it is PRIM Ready");
    let mut r = Runner::new(settings(), Standing::Alone, &[1]);
    r.command(Verb::Restart);
    r.at("refused: the module is STOP NotReady");
    let mut r = Runner::second();
    r.peer(StateName::Alone, Readiness::Ready, Standing::Paired, &[1]);
    r.command(Verb::Swap);
    r.at("refused: no swap from SECOND Ready while the other node is ALONE Ready");
}
