//! What does the runner order, and when is it answered?

use super::{Node, Pending, config, incarnation, plan};
use crate::addresses::{Addresses, Layout};
use crate::cli::Failure;
use crate::kernel::{self, Kernel};
use crate::orders::Order;
use detector::farm::Farm;
use net::{Mac, NetError};
use serde_json::json;
use sys::clock::monotonic_ms;

impl Node {
    pub(super) fn order(&mut self, order: Order) -> Result<(), Failure> {
        match self.obey(&order) {
            Ok(()) => Ok(()),
            // Nobody listens any more.
            Err(Failure::Closed) => Err(Failure::Closed),
            Err(failure) => {
                let event = json!({"order": order.word(), "reason": failure.to_string(), "hint": failure.hint()});
                Ok(self.emitter.emit("failed", &event)?)
            }
        }
    }

    fn obey(&mut self, order: &Order) -> Result<(), Failure> {
        let now = monotonic_ms();
        match order {
            Order::Hold => {
                self.hold()?;
                self.emitter.emit("held", &())?;
            }
            Order::Open => {
                self.hold()?;
                self.open = true;
                self.up = true;
                self.must_announce = true;
                self.farm.set_open(now, self.serves());
                self.lease()?;
                self.expect(order, now)?;
            }
            Order::Close => {
                self.open = false;
                self.script_open = false;
                if let Some(addresses) = &mut self.addresses {
                    addresses.silence();
                }
                self.farm.set_open(now, false);
                self.expect(order, now)?;
            }
            Order::SetGroups(all) => {
                if !self.spec.script_control {
                    return Err(Failure::Usage(
                        "setgroups needs scriptcontrol=\"on\" in <vip>: without it traffic opens and closes with the module"
                            .to_owned(),
                    ));
                }
                self.script_open = *all;
                self.farm.set_open(now, self.serves());
                self.expect(order, now)?;
            }
            Order::Release => {
                self.release()?;
                self.farewell();
                self.farm = Farm::new(config(&self.spec)?, incarnation()?, monotonic_ms())
                    .map_err(|e| Failure::Usage(e.to_string()))?;
                self.lease_until = 0;
                // What the former life took and knew is no more.
                self.fill()?;
                self.emitter.emit("released", &())?;
            }
            Order::Quit => {}
        }
        Ok(())
    }

    /// Whether this node shall take a share.
    pub(super) fn serves(&self) -> bool {
        self.open && (self.script_open || !self.spec.script_control)
    }

    /// The answer comes when the nodes agree; that to an earlier order is not waited for any longer.
    fn expect(&mut self, order: &Order, now: u64) -> Result<(), Failure> {
        self.answer_now()?;
        let until = now + 3 * self.farm.config().listen_ms();
        self.pending = Some(Pending { answer: order.clone(), open: self.serves(), until });
        Ok(())
    }

    fn answer_now(&mut self) -> Result<(), Failure> {
        if let Some(pending) = self.pending.take() {
            let (kind, body) = pending.answer.answer();
            self.emitter.emit(kind, &body)?;
        }
        Ok(())
    }

    pub(super) fn answer_pending(&mut self, now: u64) -> Result<(), Failure> {
        let Some(pending) = &self.pending else { return Ok(()) };
        let late = now >= pending.until;
        let (open, settled) = self
            .farm
            .view()
            .map_or((false, true), |v| (v.member(self.me).is_some_and(|m| m.open), v.generation() == self.settled));
        // Who serves accepts: a client may come as soon as it is told.
        let agreed = open == pending.open && settled && (!open || self.leased(now));
        if !late && !agreed {
            return Ok(());
        }
        if !agreed {
            sys::warn!(
                "sk-farmfilter: the nodes did not agree in time on who serves; `{}` goes on",
                pending.answer.word()
            );
        }
        self.answer_now()
    }

    /// Sets the addresses and loads the rules, if that was not done yet.
    fn hold(&mut self) -> Result<(), Failure> {
        if self.addresses.is_some() || self.spec.addresses.is_empty() {
            return Ok(());
        }
        let layout = Layout::find(&self.spec, &mut self.rtnl)?;
        self.own_hop = layout.hop(&mut self.rtnl)?;
        self.next_hop = 0;
        self.check(&layout)?;
        crate::oneshot::remember(&self.spec)?;
        let mut kernel = Kernel::load(&plan(&self.spec, &layout, self.nodes.len()), self.spec.early_drop)?;
        let set = kernel
            .apply(&self.contents, &self.hops)
            .and_then(|()| Addresses::set(&self.spec, &layout, &mut self.rtnl, &self.emitter, monotonic_ms()));
        match set {
            Ok(addresses) => {
                (self.layout, self.kernel, self.addresses) = (Some(layout), Some(kernel), Some(addresses));
                Ok(())
            }
            Err(error) => {
                kernel::remove(&self.spec.module)?;
                Err(error)
            }
        }
    }

    /// Refuses addresses that somebody else has.
    fn check(&mut self, layout: &Layout) -> Result<(), Failure> {
        loop {
            let friends: Vec<Mac> = self.macs.iter().flatten().copied().collect();
            match Addresses::check(layout, &mut self.rtnl, &friends) {
                // A node that shares a directed address answers with its own MAC, which this one may not have heard of yet.
                Err(NetError::Conflict { mac, .. }) if self.meet(mac)? => {}
                Err(error) => {
                    if let NetError::Conflict { address, mac, interface } = &error {
                        let event = json!({"address": address, "mac": mac, "interface": interface});
                        self.emitter.emit("conflict", &event)?;
                    }
                    return Err(error.into());
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Asks the other nodes for their MACs, and listens until one has this one, for as long as nodes that run need to be
    /// heard. `true`: `mac` is that of another node.
    fn meet(&mut self, mac: Mac) -> Result<bool, Failure> {
        let mut now = monotonic_ms();
        let until = now + self.farm.config().listen_ms();
        let known = |node: &Self| node.macs.iter().flatten().any(|m| *m == mac);
        // Without an own hop there is no directed address, and nobody shares an address under a MAC of its own.
        if self.own_hop.is_none() || known(self) {
            return Ok(false);
        }
        while now < until && !known(self) {
            let next = (now + self.spec.pulse_ms).min(until);
            self.introduce(true);
            while now < next && !known(self) {
                self.wait(None, next)?;
                now = monotonic_ms();
                self.lans.open(now);
                self.listen(now)?;
                self.think()?;
                if !self.monitor.read()?.is_empty() {
                    self.compare(now)?;
                }
            }
        }
        Ok(known(self))
    }

    /// Removes everything from the kernel; the first thing that ends is acceptance.
    pub(super) fn release(&mut self) -> Result<(), Failure> {
        (self.open, self.up, self.script_open, self.pending) = (false, false, false, None);
        self.restore_at = None;
        let closed = self.lease();
        let reset = self.spec.tcp_reset;
        let addresses = match self.addresses.take() {
            Some(addresses) => addresses.remove(&mut self.rtnl, &self.emitter, reset),
            None => Ok(()),
        };
        let rules = match self.kernel.take() {
            Some(_) => kernel::remove(&self.spec.module).map(drop),
            None => Ok(()),
        };
        crate::oneshot::forget(&self.spec.module);
        self.shares.iter_mut().for_each(|s| *s = None);
        self.rates.stop();
        self.rates_told.clear();
        // Removed rules accept nothing either, so a lease that could not be ended does not matter then.
        if rules.is_err() {
            closed?;
        }
        addresses.and(rules)
    }

    /// Tells the others, so that they need not wait for a timeout. Failures do not matter: silence says the same, later.
    pub(super) fn farewell(&mut self) {
        let begun = monotonic_ms();
        let until = begun + (self.spec.detection_ms() / 2).clamp(50, 500);
        self.farm.leave(begun);
        self.left = false;
        loop {
            let now = monotonic_ms();
            if self.listen(now).is_err() || self.think().is_err() || now >= until {
                return;
            }
            if self.left {
                // Once more, for a datagram that gets lost.
                let _ = self.think();
                return;
            }
            if self.wait(None, until).is_err() {
                return;
            }
        }
    }
}
