//! How are addresses held for a module, until the runner lets go?

use crate::claim::{Claim, probe, reset};
use crate::cli::Failure;
use crate::spec::{Spec, Wanted, Where};
use net::announce::Schedule;
use net::interfaces::Interfaces;
use net::probe::Patience;
use net::rtnl::{Monitor, Rtnl};
use net::{Link, NetError};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::Signal;
use nix::sys::signalfd::SignalFd;
use serde_json::json;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::Path;
use sys::clock::monotonic_ms;
use wire::Emitter;
use wire::lines::LineBuffer;

/// The runner's side: orders on the standard input, and signals.
pub(crate) struct Orders {
    input: File,
    lines: LineBuffer,
    signals: SignalFd,
}

impl Orders {
    pub(crate) fn open() -> Result<Self, Failure> {
        let signals = sys::signals::take(&[Signal::SIGTERM, Signal::SIGINT])
            .map_err(|e| Failure::Sys("cannot take signals".to_owned(), e))?;
        let input = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Failure::Sys("cannot use the standard input".to_owned(), e))?;
        Ok(Self { input: File::from(input), lines: LineBuffer::new(), signals })
    }

    /// Waits for an order, a report of the monitor, or the time limit.
    pub(crate) fn wait(&mut self, monitor: &Monitor, limit_ms: Option<u64>) -> Result<Said, Failure> {
        let timeout = limit_ms.map_or(PollTimeout::NONE, |ms| PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX));
        let mut ready = [
            PollFd::new(self.input.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(monitor.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, timeout) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(e) => return Err(Failure::Sys("cannot wait for orders".to_owned(), e.into())),
        }
        let [input, signals, _] = ready.map(|fd| fd.any().unwrap_or(true));
        let mut said = Said::default();
        if signals {
            said.let_go = true;
            return Ok(said);
        }
        if !input {
            return Ok(said);
        }
        // An input that cannot be read is as good as closed: the safe side is to let go.
        if !self.lines.read_from(&mut self.input).is_ok_and(|count| count > 0) {
            said.let_go = true;
            return Ok(said);
        }
        while let Some(message) = self.lines.next_message() {
            match message {
                Ok(m) if matches!(m.kind.as_str(), "release" | "quit") => {
                    said.let_go = true;
                    return Ok(said);
                }
                Ok(m) if m.kind == "lease" => match m.value["until_boottime_ms"].as_u64() {
                    Some(until) => said.lease = said.lease.max(Some(until)),
                    None => warn("an order `lease` without until_boottime_ms was skipped"),
                },
                Ok(m) => warn(&format!("an order of unknown kind `{}` was skipped", m.kind)),
                Err(e) => warn(&format!("an order was skipped: {e}")),
            }
        }
        Ok(said)
    }
}

/// What the runner wants.
#[derive(Default)]
pub(crate) struct Said {
    pub(crate) let_go: bool,
    /// New end of the lease.
    lease: Option<u64>,
}

pub(crate) fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "sk-vip: {text}");
}

/// One address of the specification, held.
struct Held {
    wanted: Wanted,
    claim: Claim,
    schedule: Schedule,
    present: bool,
    /// It could not be put back, for want of its interface: it is tried again until that is there.
    waits: bool,
    /// When the kernel's lifetime was last renewed, and how long it is, milliseconds.
    renewed: u64,
    lifetime: u64,
}

impl Held {
    fn due(&self) -> u64 {
        self.renewed + self.lifetime / 3
    }

    fn expired(&self, now: u64) -> bool {
        now >= self.renewed + self.lifetime
    }

    /// Not given up.
    fn is_kept(&self) -> bool {
        self.present || self.waits
    }
}

struct Holder {
    spec: Spec,
    rtnl: Rtnl,
    monitor: Monitor,
    emitter: Emitter,
    /// Reported.
    interfaces: Interfaces,
    /// All, to announce again after the cable was out.
    carriers: Interfaces,
    held: Vec<Held>,
}

/// `sk-vip hold`.
pub fn hold(path: &Path) -> Result<u8, Failure> {
    let spec = Spec::read(path)?;
    let mut orders = Orders::open()?;
    let mut holder = Holder {
        emitter: Emitter::new("sk-vip", &spec.node, &spec.module),
        // Before anything is set, so that no removal is missed.
        monitor: Monitor::open()?,
        rtnl: Rtnl::open()?,
        interfaces: Interfaces::default(),
        carriers: Interfaces::default(),
        held: Vec::new(),
        spec,
    };
    let result = holder.claim().and_then(|()| holder.keep(&mut orders));
    // Whatever happened, nothing of ours remains.
    let released = holder.release();
    result?;
    released?;
    match holder.emitter.emit("released", &()) {
        Ok(()) => Ok(0),
        Err(e) => Err(e.into()),
    }
}

impl Holder {
    fn claim(&mut self) -> Result<(), Failure> {
        let (links, addresses) = (self.rtnl.links()?, self.rtnl.addresses()?);
        let mut claims = Vec::new();
        for wanted in &self.spec.addresses {
            let mut claim = Claim::prepare(
                wanted.address,
                wanted.prefix,
                wanted.interface.as_deref(),
                wanted.place == Where::OneSide,
                &links,
                &addresses,
            )?;
            claim.adopt(&mut self.rtnl, &links, &addresses)?;
            self.carriers.watch(claim.place.subnet, &claim.place.link.name);
            if wanted.interface_check {
                self.interfaces.watch(claim.place.subnet, &claim.place.link.name);
            }
            claims.push(claim);
        }
        if self.spec.probe
            && let Err(error) = probe(&claims.iter().collect::<Vec<_>>(), Patience::default())
        {
            if let NetError::Conflict { address, mac, interface } = &error {
                self.emitter.emit("conflict", &json!({"address": address, "mac": mac, "interface": interface}))?;
            }
            // What a former life left here is used by somebody else now.
            for claim in &claims {
                claim.remove(&mut self.rtnl)?;
            }
            return Err(error.into());
        }
        for (wanted, mut claim) in self.spec.addresses.clone().into_iter().zip(claims) {
            let now = monotonic_ms();
            let Some(seconds) = self.spec.lifetime_s(now) else {
                return Err(Failure::Usage("the lease ended before the addresses could be set".to_owned()));
            };
            claim.set(&mut self.rtnl, Some(seconds))?;
            claim.announce();
            let mut schedule = claim.schedule(now, wanted.reroute());
            schedule.poll(now);
            let lifetime = u64::from(seconds) * 1000;
            self.held.push(Held { wanted, schedule, present: true, waits: false, renewed: now, lifetime, claim });
        }
        for held in &self.held {
            held.claim.prefer(&mut self.rtnl)?;
            self.emitter.emit("vip", &json!({"address": held.claim.ip, "value": "up"}))?;
        }
        self.emitter.emit("held", &())?;
        let links = self.rtnl.links()?;
        self.report_interfaces(&links)
    }

    fn keep(&mut self, orders: &mut Orders) -> Result<(), Failure> {
        loop {
            let now = monotonic_ms();
            for held in &mut self.held {
                if held.present && held.schedule.poll(now) {
                    held.claim.announce();
                }
            }
            self.renew(now)?;
            let kept = self.held.iter().filter(|h| h.is_kept());
            // What can only be renewed by a longer lease is looked at again when that ends.
            let renewable = self.spec.lifetime_s(monotonic_ms()).is_some();
            let next = kept
                .flat_map(|h| {
                    let announcement = h.schedule.due().filter(|_| h.present);
                    [renewable.then(|| h.due()), self.spec.lease_until_ms, announcement]
                })
                .flatten()
                .min();
            // One more millisecond: waking a moment early would only mean waking twice.
            let limit = next.map(|at| at.saturating_sub(monotonic_ms()) + 1);
            let said = orders.wait(&self.monitor, limit)?;
            if said.let_go {
                return Ok(());
            }
            if self.spec.lease_until_ms.is_some() {
                self.spec.lease_until_ms = self.spec.lease_until_ms.max(said.lease);
            }
            if !self.monitor.read()?.is_empty() {
                self.compare()?;
            }
        }
    }

    /// Renews lifetimes that are due. Never after the lifetime has passed: the peer may own the address by now.
    fn renew(&mut self, now: u64) -> Result<(), Failure> {
        let over = self.spec.lease_until_ms.is_some_and(|until| now >= until);
        if !self.held.iter().any(|h| h.is_kept() && (over || now >= h.due())) {
            return Ok(());
        }
        // Removals reported meanwhile come first, else renewing would bring the address back.
        if !self.monitor.read()?.is_empty() {
            self.compare()?;
        }
        let mut changed = false;
        for held in self.held.iter_mut().filter(|h| h.is_kept()) {
            let before = monotonic_ms();
            let over = self.spec.lease_until_ms.is_some_and(|until| before >= until);
            if over || held.expired(before) {
                held.waits = false;
                held.claim.remove(&mut self.rtnl)?;
                changed = true;
                continue;
            }
            // Too little left of the lease: it lives until then, or until the lease is longer.
            let Some(seconds) = self.spec.lifetime_s(before) else { continue };
            match held.claim.set(&mut self.rtnl, Some(seconds)) {
                Ok(()) => changed |= held.waits,
                // The interface is away, as the comparison tells or told; this process is awake, which is what expires.
                Err(e) if held.waits || e.errno() == Some(Errno::ENODEV as i32) => {
                    changed |= !held.waits;
                    held.renewed = before;
                    continue;
                }
                Err(e) => return Err(e.into()),
            }
            let after = monotonic_ms();
            if held.expired(after) || self.spec.lease_until_ms.is_some_and(|until| after >= until) {
                // This process was stopped between both looks at the clock.
                held.claim.remove(&mut self.rtnl)?;
                changed = true;
                continue;
            }
            held.renewed = before;
            held.lifetime = u64::from(seconds) * 1000;
            held.claim.prefer(&mut self.rtnl)?;
        }
        if changed { self.compare() } else { Ok(()) }
    }

    /// Compares what the kernel has with what we hold, and reports the difference.
    fn compare(&mut self) -> Result<(), Failure> {
        let (links, addresses) = (self.rtnl.links()?, self.rtnl.addresses()?);
        for held in &mut self.held {
            let now = monotonic_ms();
            match held.claim.follow(&links) {
                // The neighbours know another MAC.
                Ok(true) => held.schedule = held.claim.schedule(now, held.wanted.reroute()),
                Ok(false) => {}
                Err(e) => warn(&e.to_string()),
            }
            let (ip, index) = (held.claim.ip, held.claim.place.link.index);
            let mut present = addresses.iter().any(|a| a.ip == ip && a.index == index);
            if present == held.present && !held.waits {
                continue;
            }
            let over = self.spec.lease_until_ms.is_some_and(|until| now >= until);
            let expired = over || held.expired(now);
            if let Some(seconds) = self.spec.lifetime_s(now).filter(|_| !present && !expired && !held.wanted.check) {
                match held.claim.set(&mut self.rtnl, Some(seconds)) {
                    Ok(()) => {
                        warn(&format!("{ip} was removed by somebody else and is put back"));
                        present = true;
                        held.lifetime = u64::from(seconds) * 1000;
                    }
                    Err(e) => {
                        if !std::mem::replace(&mut held.waits, true) {
                            warn(&format!(
                                "{ip} was removed by somebody else and is put back when that is possible: {e}"
                            ));
                        }
                    }
                }
            }
            if !present && over {
                warn(&format!("{ip} is given up: the lease to hold it has ended"));
            } else if !present && expired {
                warn(&format!("{ip} expired: this process was not scheduled for more than {} ms", held.lifetime));
            }
            if present {
                held.waits = false;
                held.renewed = now;
                held.schedule = held.claim.schedule(now, held.wanted.reroute());
            }
            if std::mem::replace(&mut held.present, present) == present {
                continue;
            }
            self.emitter.emit("ip", &json!({"address": ip, "value": if present { "up" } else { "down" }}))?;
        }
        self.report_interfaces(&links)
    }

    fn report_interfaces(&mut self, links: &[Link]) -> Result<(), Failure> {
        let now = monotonic_ms();
        for report in self.interfaces.update(links) {
            self.emitter.emit("intf", &report)?;
        }
        for back in self.carriers.update(links).iter().filter(|r| r.value == "up") {
            // The switch may have learnt something else while the cable was out.
            for held in self.held.iter_mut().filter(|h| h.claim.place.link.name == back.interface) {
                if held.schedule.due().is_none() {
                    held.schedule = held.claim.schedule(now, held.wanted.reroute());
                }
            }
        }
        Ok(())
    }

    /// Resets connections and removes every address; goes on with the others when one fails.
    fn release(&mut self) -> Result<(), Failure> {
        let mut first_error = None;
        let mut told = false;
        for held in std::mem::take(&mut self.held) {
            if self.spec.tcp_reset {
                match reset(held.claim.ip) {
                    Ok(None) if !told => {
                        told = true;
                        warn("this kernel cannot reset connections (INET_DIAG_DESTROY is missing)");
                    }
                    Ok(_) => {}
                    Err(e) => warn(&format!("connections of {} remain: {e}", held.claim.ip)),
                }
            }
            match held.claim.remove(&mut self.rtnl) {
                Ok(_) => {
                    // A closed output must not keep the other addresses from being removed.
                    let _ = self.emitter.emit("vip", &json!({"address": held.claim.ip, "value": "down"}));
                }
                Err(e) => first_error = first_error.or(Some(e)),
            }
        }
        first_error.map_or(Ok(()), |e| Err(e.into()))
    }
}
