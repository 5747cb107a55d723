//! How do heartbeats travel, and when is a peer taken for dead.

use super::{Ev, PULSE_MS, TIMEOUT_MS, World};
use automaton::{Event, Published};

impl World {
    pub(super) fn send(&mut self, node: usize, bye: bool) {
        let Some(runner) = self.nodes[node].runner.as_mut() else { return };
        let Some(state) = runner.published.clone() else { return };
        runner.seq += 1;
        let seq = runner.seq;
        let life = self.nodes[node].life;
        if self.beats[node] && !self.rng.chance(self.loss) {
            let delay = self.rng.range(1, 30);
            self.at(delay, Ev::Packet { to: 1 - node, life, seq, state, bye });
        }
    }

    pub(super) fn packet(&mut self, to: usize, life: u64, seq: u64, state: Published, bye: bool) {
        let now = self.now;
        let Some(runner) = self.nodes[to].runner.as_mut() else { return };
        if !runner.heartbeat || runner.heard.as_ref().is_some_and(|(l, s, ..)| (*l, *s) >= (life, seq)) {
            return;
        }
        runner.last_heard = now;
        let news = runner.verdict != Some(true)
            || runner.heard.as_ref().is_none_or(|(_, _, old, old_bye)| *old != state || *old_bye != bye);
        runner.heard = Some((life, seq, state.clone(), bye));
        let up = runner.verdict == Some(true);
        runner.verdict = Some(true);
        if !up {
            self.tell(to, Event::PeerUp);
        }
        if news {
            self.tell(to, Event::PeerState { state, bye });
        }
    }

    pub(super) fn pulse(&mut self, node: usize, life: u64) {
        if self.nodes[node].life != life {
            return;
        }
        self.send(node, false);
        let now = self.now;
        let Some(runner) = self.nodes[node].runner.as_mut() else { return };
        if !runner.heartbeat {
            return;
        }
        if runner.verdict != Some(false) && now.saturating_sub(runner.last_heard) > TIMEOUT_MS {
            runner.verdict = Some(false);
            let other = &self.nodes[1 - node];
            let alive = other.runner.as_ref().is_some_and(|r| r.heartbeat && r.published.is_some());
            // With a store there is no compromise.
            if alive && self.store.is_none() {
                self.isolation = true;
            }
            self.tell(node, Event::PeerDown);
        }
        self.at(PULSE_MS, Ev::Pulse { node, life });
    }
}
