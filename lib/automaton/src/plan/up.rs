//! What is done, in which order, for each transition of a farm or light module?
//!
//! The address is there from before `start_both` until after `stop_both`. While the application is not there (before the end of
//! `start_both`, from the beginning of `stop_both` on) clients are left to the other nodes, so that none is refused.

use super::{Plan, Request, Step};
use crate::action::Traffic;
use crate::state::{Mode, Readiness, Settings, StateName};

pub(super) fn build(request: &Request<'_>, settings: &Settings) -> Vec<Step> {
    use StateName::{Alone, Prim, Second, Stop, Up, Wait};
    let mut p = Plan::new(request.from, request.to, request.action, settings);
    match (request.from, request.to) {
        (Stop, Wait) => {
            p.state(Wait, Readiness::Transient);
            p.push(Step::Children { heartbeat: false, errd: true, replicate: false });
            p.script("transition");
            p.script("prestart");
            p.errd("pre", true);
        }
        (Wait, Up) => {
            p.state(Up, Readiness::Transient);
            p.vip(true);
            p.script("transition");
            p.before_the_application();
            p.start("both");
            p.traffic(Traffic::Open);
            p.state(Up, Readiness::Ready);
        }
        (Up, Up) => {
            p.state(Up, Readiness::Transient);
            p.traffic(Traffic::Standby);
            p.stop("both", true);
            p.start("both");
            p.traffic(Traffic::Open);
            p.state(Up, Readiness::Ready);
        }
        (Up, Wait) => {
            p.state(Up, Readiness::Transient);
            p.traffic(Traffic::Standby);
            p.stop("both", false);
            p.vip(false);
            p.script("transition");
            p.state(Wait, Readiness::Transient);
        }
        (Wait, Stop) => {
            p.forced("both");
            p.errd("pre", false);
            p.script("poststop");
            p.script("transition");
            p.push(Step::Children { heartbeat: false, errd: false, replicate: false });
            p.state(Stop, Readiness::NotReady);
        }
        (Up, Stop) => {
            let mut steps = build(&Request { from: Up, to: Wait, ..*request }, settings);
            steps.extend(build(&Request { from: Wait, to: Stop, ..*request }, settings));
            return steps;
        }
        (Stop, Up) => {
            let mut steps = build(&Request { from: Stop, to: Wait, ..*request }, settings);
            steps.extend(build(&Request { from: Wait, to: Up, ..*request }, settings));
            return steps;
        }
        (Wait, Wait) | (Stop, Stop) | (Alone | Prim | Second, _) | (_, Alone | Prim | Second) => {}
    }
    p.steps
}

impl Plan<'_> {
    fn shares_traffic(&self) -> bool {
        self.settings.mode == Mode::Farm && self.settings.has_vip
    }

    /// Scripts that control the traffic do it by themselves from here on.
    fn before_the_application(&mut self) {
        if self.shares_traffic() {
            let traffic = if self.settings.script_control { Traffic::Open } else { Traffic::Standby };
            self.push(Step::Farm { traffic });
        }
    }

    fn traffic(&mut self, traffic: Traffic) {
        if self.shares_traffic() && !self.settings.script_control {
            self.push(Step::Farm { traffic });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use StateName::{Alone, Prim, Second, Stop, Up, Wait};

    fn settings(mode: Mode, has_vip: bool, script_control: bool) -> Settings {
        Settings { mode, has_vip, script_control, replicated: false, ..crate::state::test_settings("node1", "") }
    }

    /// Scripts (forced ones with `!`), addresses and traffic, in order.
    fn words(from: StateName, to: StateName, settings: &Settings) -> String {
        let words = super::super::plan(from, to, "start", settings).into_iter().filter_map(|s| match s {
            Step::Script { name, force, .. } => Some(if force { format!("{name}!") } else { name }),
            Step::Vip { held } => Some(if held { "+vip" } else { "-vip" }.to_owned()),
            Step::Farm { traffic } => Some(traffic.as_str().to_owned()),
            _ => None,
        });
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn a_farm_opens_before_and_closes_after_its_application() {
        let farm = settings(Mode::Farm, true, false);
        let table = [
            (Stop, Wait, "transition prestart"),
            (Wait, Up, "+vip transition standby start_both open"),
            (Up, Up, "standby stop_both stop_both! start_both open"),
            (Up, Wait, "standby stop_both -vip transition"),
            (Wait, Stop, "stop_both! poststop transition"),
            (Stop, Up, "transition prestart +vip transition standby start_both open"),
            (Up, Stop, "standby stop_both -vip transition stop_both! poststop transition"),
        ];
        for (from, to, want) in table {
            assert_eq!(words(from, to, &farm), want, "{from} -> {to}");
        }
    }

    #[test]
    fn scripts_that_control_the_traffic_find_it_theirs() {
        let farm = settings(Mode::Farm, true, true);
        assert_eq!(words(Wait, Up, &farm), "+vip transition open start_both");
        assert_eq!(words(Up, Up, &farm), "stop_both stop_both! start_both");
        assert_eq!(words(Up, Wait, &farm), "stop_both -vip transition");
    }

    #[test]
    fn without_addresses_only_scripts_run() {
        for mode in [Mode::Farm, Mode::Light] {
            let plain = settings(mode, false, false);
            assert_eq!(words(Stop, Up, &plain), "transition prestart transition start_both");
            assert_eq!(words(Up, Stop, &plain), "stop_both transition stop_both! poststop transition");
        }
    }

    #[test]
    fn there_are_no_roles_in_a_farm_and_no_up_in_a_mirror() {
        let farm = settings(Mode::Farm, true, false);
        let mirror = crate::state::test_settings("node1", "node2");
        for other in [Stop, Wait, Up, Alone, Prim, Second] {
            for role in [Alone, Prim, Second] {
                assert!(super::super::plan(other, role, "start", &farm).is_empty());
                assert!(super::super::plan(role, other, "stop", &farm).is_empty());
            }
            assert!(super::super::plan(other, Up, "start", &mirror).is_empty());
            assert!(super::super::plan(Up, other, "stop", &mirror).is_empty());
        }
    }

    #[test]
    fn scripts_are_told_where_they_are() {
        let farm = settings(Mode::Farm, false, false);
        let args = |from, to, action| {
            let steps = super::super::plan(from, to, action, &farm);
            steps
                .into_iter()
                .filter_map(|s| match s {
                    Step::Script { name, args, .. } => Some(format!("{name} {}", args.join(" "))),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(
            args(Up, Up, "restart"),
            ["stop_both UP UP restart", "stop_both force UP UP restart", "start_both UP UP restart"]
        );
        assert_eq!(args(Wait, Up, "start"), ["transition WAIT UP start", "start_both WAIT UP start"]);
    }
}
