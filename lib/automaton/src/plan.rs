//! What is done, in which order, for each transition: the table behind the core and `sk-module plan`.

mod up;

use crate::action::{PeerMode, ReplicaOrder, Traffic};
use crate::state::{Mode, Readiness, Settings, State, StateName};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One step of a transition. Steps run one after the other; scripts, replication orders, addresses and the goodbye are awaited.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "step", rename_all = "snake_case")]
pub enum Step {
    /// Long-lived children started or stopped.
    Children { heartbeat: bool, errd: bool, replicate: bool },
    /// A script of the module; `force`: a stop script in forced mode (its first argument is `force`).
    Script { name: String, args: Vec<String>, force: bool },
    /// The module's addresses taken or released.
    Vip { held: bool },
    /// Farm: how much of the traffic this node asks for.
    Farm { traffic: Traffic },
    /// Order to the replication engine.
    Replicate { order: ReplicaOrder },
    /// A class of watched processes enabled or disabled.
    ErrdClass { class: String, enabled: bool },
    /// The module's state changes (and is published).
    State { state: State },
    /// From now on the peer is told our state.
    Publish,
    /// The next state is published with `leaving`.
    Leaving,
    /// The next state is published with `handover`.
    Handover,
    /// Goodbye to the peer.
    Bye,
}

/// The steps from one state to another. `action` is the third argument of scripts (`start`, `stop`, `stopstart`, `stopwait`,
/// `restart`, `swap`); `prim` and `primforce` plan a start forced by the operator. `from == to` plans a restart.
/// Empty: there is no such transition.
pub fn plan(from: StateName, to: StateName, action: &str, settings: &Settings) -> Vec<Step> {
    let force = matches!(action, "prim" | "primforce");
    let action = match action {
        "prim" | "primforce" | "second" => "start",
        other => other,
    };
    build(&Request { from, to, action, force, full: false }, settings)
}

/// The script that `<rfs scripts="on">` calls, and its words.
pub const CALLBACK: &str = "_rfs_callback";
pub(crate) const STARTS_SYNC: &str = "_rfs_startsynch";
const LEAVES_PRIMARY: &str = "_rfs_pritoscd";
/// Exit code of a callback by which it objects.
pub(crate) const OBJECTS: i32 = 2;

/// The call of the callback for `word`, when the module has one.
pub(crate) fn callback(word: &str, settings: &Settings) -> Vec<Step> {
    if !(settings.replicated && settings.rfs_scripts) {
        return Vec::new();
    }
    vec![Step::Script { name: CALLBACK.to_owned(), args: vec![word.to_owned()], force: false }]
}

/// A transition with what the core knows beyond its ends.
pub(crate) struct Request<'a> {
    pub from: StateName,
    pub to: StateName,
    pub action: &'a str,
    /// WAIT→ALONE whatever the replica's standing.
    pub force: bool,
    /// WAIT→SECOND with a full copy.
    pub full: bool,
}

pub(crate) fn build(request: &Request<'_>, settings: &Settings) -> Vec<Step> {
    use StateName::{Alone, Prim, Second, Stop, Up, Wait};
    if settings.mode != Mode::Mirror {
        return up::build(request, settings);
    }
    let mut p = Plan::new(request.from, request.to, request.action, settings);
    match (request.from, request.to) {
        (Stop, Wait) => {
            p.state(Wait, Readiness::Transient);
            p.push(Step::Children { heartbeat: true, errd: true, replicate: settings.replicated });
            p.script("transition");
            p.script("prestart");
            p.errd("pre", true);
            // Not before prestart: what a crash left running is stopped by it, and the peer may take over once it hears WAIT.
            p.push(Step::Publish);
        }
        (Wait, Alone | Prim) => {
            p.replicate(ReplicaOrder::Primary {
                peer: if request.to == Alone { PeerMode::Excluded } else { PeerMode::Paired },
                force: request.force,
            });
            p.state(request.to, Readiness::Transient);
            p.vip(true);
            p.script("transition");
            p.start("both");
            p.start("prim");
            if request.to == Alone {
                p.start("sec");
            }
            p.state(request.to, Readiness::Ready);
        }
        (Wait, Second) => {
            p.callback(STARTS_SYNC);
            p.replicate(ReplicaOrder::Secondary { full: request.full });
            p.state(Second, Readiness::Transient);
            p.script("transition");
            p.start("both");
            p.start("second");
            p.start("sec");
        }
        (Alone, Prim) => {
            p.state(Prim, Readiness::Transient);
            p.stop("sec", false);
            p.script("transition");
            p.state(Prim, Readiness::Ready);
        }
        (Prim, Alone) => {
            p.replicate(ReplicaOrder::ExcludePeer);
            p.state(Alone, Readiness::Transient);
            p.script("transition");
            p.start("sec");
            p.state(Alone, Readiness::Ready);
        }
        (Second, Alone) => {
            p.state(Second, Readiness::Transient);
            p.stop("second", false);
            p.replicate(ReplicaOrder::Promote { peer: PeerMode::Excluded });
            p.state(Alone, Readiness::Transient);
            p.vip(true);
            p.script("transition");
            p.start("prim");
            p.state(Alone, Readiness::Ready);
        }
        (Second, Prim) => {
            p.state(Second, Readiness::Transient);
            p.stop("sec", false);
            p.stop("second", false);
            p.replicate(ReplicaOrder::Promote { peer: PeerMode::Paired });
            p.state(Prim, Readiness::Transient);
            p.vip(true);
            p.script("transition");
            p.start("prim");
            p.state(Prim, Readiness::Ready);
        }
        (Alone | Prim, Second) => {
            p.state(request.from, Readiness::Transient);
            p.stop("prim", true);
            p.vip(false);
            p.callback(LEAVES_PRIMARY);
            p.replicate(ReplicaOrder::Demote);
            p.push(Step::Handover);
            p.state(Second, Readiness::Transient);
            p.script("transition");
            p.start("second");
            if request.from == Prim {
                p.start("sec");
            }
        }
        (Alone, Alone) => p.restart(&["sec", "prim", "both"]),
        (Prim, Prim) => p.restart(&["prim", "both"]),
        (Second, Second) => p.restart(&["sec", "second", "both"]),
        (Prim, Wait) => p.leave(&["prim", "both"]),
        (Alone, Wait) => p.leave(&["sec", "prim", "both"]),
        (Second, Wait) => p.leave(&["sec", "second", "both"]),
        (Wait, Stop) => {
            for class in ["sec", "prim", "second", "both"] {
                p.forced(class);
            }
            p.errd("pre", false);
            p.script("poststop");
            p.script("transition");
            p.push(Step::Bye);
            p.push(Step::Children { heartbeat: false, errd: false, replicate: false });
            p.state(Stop, Readiness::NotReady);
        }
        (from @ (Prim | Alone | Second), Stop) => {
            let mut steps = build(&Request { from, to: Wait, ..*request }, settings);
            steps.extend(build(&Request { from: Wait, to: Stop, ..*request }, settings));
            return steps;
        }
        (Stop, to @ (Alone | Prim | Second)) => {
            let mut steps = build(&Request { from: Stop, to: Wait, ..*request }, settings);
            steps.extend(build(&Request { from: Wait, to, ..*request }, settings));
            return steps;
        }
        (Wait, Wait) | (Stop, Stop) | (Up, _) | (_, Up) => {}
    }
    p.steps
}

struct Plan<'a> {
    steps: Vec<Step>,
    from: StateName,
    to: StateName,
    action: &'a str,
    settings: &'a Settings,
}

impl<'a> Plan<'a> {
    fn new(from: StateName, to: StateName, action: &'a str, settings: &'a Settings) -> Self {
        Self { steps: Vec::new(), from, to, action, settings }
    }

    fn push(&mut self, step: Step) {
        self.steps.push(step);
    }

    fn state(&mut self, name: StateName, readiness: Readiness) {
        self.push(Step::State { state: State::new(name, readiness) });
    }

    fn replicate(&mut self, order: ReplicaOrder) {
        if self.settings.replicated {
            self.push(Step::Replicate { order });
        }
    }

    fn callback(&mut self, word: &str) {
        self.steps.extend(callback(word, self.settings));
    }

    fn vip(&mut self, held: bool) {
        if self.settings.has_vip {
            self.push(Step::Vip { held });
        }
    }

    fn errd(&mut self, class: &str, enabled: bool) {
        self.push(Step::ErrdClass { class: class.to_owned(), enabled });
    }

    fn call(&mut self, name: &str, force: bool) {
        if self.settings.has_scripts {
            let mut args = vec![self.from.to_string(), self.to.to_string(), self.action.to_owned()];
            if force {
                args.insert(0, "force".to_owned());
            }
            self.push(Step::Script { name: name.to_owned(), args, force });
        }
    }

    fn script(&mut self, name: &str) {
        self.call(name, false);
    }

    fn start(&mut self, class: &str) {
        self.call(&format!("start_{class}"), false);
        self.errd(class, true);
    }

    /// Plain stop; with `twice` also the forced one.
    fn stop(&mut self, class: &str, twice: bool) {
        self.errd(class, false);
        self.call(&format!("stop_{class}"), false);
        if twice {
            self.forced(class);
        }
    }

    fn forced(&mut self, class: &str) {
        self.call(&format!("stop_{class}"), true);
    }

    /// Stops in the order given, starts in the reverse of `sec` last.
    fn restart(&mut self, classes: &[&str]) {
        self.state(self.from, Readiness::Transient);
        for class in classes {
            self.stop(class, true);
        }
        for class in ["both", "prim", "second", "sec"] {
            if classes.contains(&class) {
                self.start(class);
            }
        }
        if self.from != StateName::Second {
            self.state(self.from, Readiness::Ready);
        }
    }

    /// To WAIT: the peer learns that we leave once the application is stopped and the stream drained, not before.
    fn leave(&mut self, classes: &[&str]) {
        self.state(self.from, Readiness::Transient);
        for class in classes {
            self.stop(class, false);
        }
        if self.from.serves() {
            self.vip(false);
        }
        self.replicate(ReplicaOrder::Retire);
        self.script("transition");
        self.push(Step::Leaving);
        self.state(StateName::Wait, Readiness::Transient);
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let on = |on: &bool| if *on { "on" } else { "off" };
        match self {
            Self::Children { heartbeat, errd, replicate } => {
                write!(f, "children heartbeat={} errd={} replicate={}", on(heartbeat), on(errd), on(replicate))
            }
            Self::Script { name, args, .. } => write!(f, "script {name} {}", args.join(" ")),
            Self::Vip { held } => write!(f, "vip {}", on(held)),
            Self::Farm { traffic } => write!(f, "traffic {}", traffic.as_str()),
            Self::Replicate { order } => match order {
                ReplicaOrder::Primary { peer, force } => {
                    write!(f, "replicate primary peer={}{}", mode(*peer), if *force { " force" } else { "" })
                }
                ReplicaOrder::Secondary { full } => {
                    write!(f, "replicate secondary{}", if *full { " full" } else { "" })
                }
                ReplicaOrder::ExcludePeer => f.write_str("replicate exclude_peer"),
                ReplicaOrder::Promote { peer } => write!(f, "replicate promote peer={}", mode(*peer)),
                ReplicaOrder::Demote => f.write_str("replicate demote"),
                ReplicaOrder::Outdate => f.write_str("replicate outdate"),
                ReplicaOrder::Abandon => f.write_str("replicate abandon"),
                ReplicaOrder::Retire => f.write_str("replicate retire"),
            },
            Self::ErrdClass { class, enabled } => write!(f, "errd {class} {}", on(enabled)),
            Self::State { state } => write!(f, "state {state}"),
            Self::Publish => f.write_str("publish"),
            Self::Leaving => f.write_str("leaving"),
            Self::Handover => f.write_str("handover"),
            Self::Bye => f.write_str("bye"),
        }
    }
}

fn mode(peer: PeerMode) -> &'static str {
    match peer {
        PeerMode::Excluded => "excluded",
        PeerMode::Paired => "paired",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StateName::{Alone, Prim, Second, Stop, Wait};

    fn settings() -> Settings {
        crate::state::test_settings("node1", "node2")
    }

    fn scripts(from: StateName, to: StateName, action: &str) -> String {
        plan(from, to, action, &settings())
            .into_iter()
            .filter_map(|s| match s {
                Step::Script { name, force, .. } => Some(if force { format!("{name}!") } else { name }),
                _ => None,
            })
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn scripts_are_called_in_the_documented_order() {
        let table = [
            (Stop, Wait, "transition prestart"),
            (Wait, Alone, "transition start_both start_prim start_sec"),
            (Wait, Prim, "transition start_both start_prim"),
            (Wait, Second, "transition start_both start_second start_sec"),
            (Alone, Prim, "stop_sec transition"),
            (Prim, Alone, "transition start_sec"),
            (Second, Alone, "stop_second transition start_prim"),
            (Alone, Second, "stop_prim stop_prim! transition start_second"),
            (Prim, Second, "stop_prim stop_prim! transition start_second start_sec"),
            (Second, Prim, "stop_sec stop_second transition start_prim"),
            (
                Alone,
                Alone,
                "stop_sec stop_sec! stop_prim stop_prim! stop_both stop_both! start_both start_prim start_sec",
            ),
            (Prim, Prim, "stop_prim stop_prim! stop_both stop_both! start_both start_prim"),
            (
                Second,
                Second,
                "stop_sec stop_sec! stop_second stop_second! stop_both stop_both! start_both start_second start_sec",
            ),
            (Prim, Wait, "stop_prim stop_both transition"),
            (Alone, Wait, "stop_sec stop_prim stop_both transition"),
            (Second, Wait, "stop_sec stop_second stop_both transition"),
            (Wait, Stop, "stop_sec! stop_prim! stop_second! stop_both! poststop transition"),
            (
                Prim,
                Stop,
                "stop_prim stop_both transition stop_sec! stop_prim! stop_second! stop_both! poststop transition",
            ),
        ];
        for (from, to, want) in table {
            assert_eq!(scripts(from, to, "start"), want, "{from} -> {to}");
        }
    }

    #[test]
    fn the_address_is_up_while_the_application_runs() {
        for from in [Wait, Second, Alone, Prim, Stop] {
            for to in [Alone, Prim, Second, Wait, Stop] {
                let steps = plan(from, to, "start", &settings());
                let at = |want: &dyn Fn(&Step) -> bool| steps.iter().position(want);
                let start = at(&|s| matches!(s, Step::Script { name, .. } if name == "start_prim"));
                let stop = at(&|s| matches!(s, Step::Script { name, force: false, .. } if name == "stop_prim"));
                if let (Some(up), Some(start)) = (at(&|s| *s == Step::Vip { held: true }), start) {
                    assert!(up < start, "{from} -> {to}");
                }
                if let (Some(down), Some(stop)) = (at(&|s| *s == Step::Vip { held: false }), stop) {
                    assert!(stop < down, "{from} -> {to}");
                }
            }
        }
    }

    #[test]
    fn forced_scripts_have_force_as_first_argument() {
        let steps = plan(Prim, Second, "swap", &settings());
        assert!(steps.contains(&Step::Script {
            name: "stop_prim".into(),
            args: ["force", "PRIM", "SECOND", "swap"].map(String::from).to_vec(),
            force: true
        }));
    }

    #[test]
    fn a_leaving_primary_says_so_only_after_its_stream_is_drained() {
        let steps = plan(Prim, Stop, "stop", &settings());
        let retire = steps.iter().position(|s| *s == Step::Replicate { order: ReplicaOrder::Retire });
        let leaving = steps.iter().position(|s| *s == Step::Leaving);
        assert!(retire.is_some() && retire < leaving);
    }
}
