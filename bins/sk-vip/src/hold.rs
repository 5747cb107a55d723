//! How are addresses held for a module, and its interfaces watched, until the runner lets go?

use crate::claim::{Claim, probe, reset};
use crate::cli::Failure;
use crate::interfaces::Interfaces;
use crate::spec::{Spec, Wanted, Where};
use net::announce::Schedule;
use net::choose::place;
use net::probe::Patience;
use net::rtnl::{Monitor, Rtnl};
use net::{NetError, Subnet};
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
struct Orders {
    input: File,
    lines: LineBuffer,
    signals: SignalFd,
}

impl Orders {
    fn open() -> Result<Self, Failure> {
        let signals = sys::signals::take(&[Signal::SIGTERM, Signal::SIGINT])
            .map_err(|e| Failure::Sys("cannot take signals".to_owned(), e))?;
        let input = io::stdin()
            .as_fd()
            .try_clone_to_owned()
            .map_err(|e| Failure::Sys("cannot use the standard input".to_owned(), e))?;
        Ok(Self { input: File::from(input), lines: LineBuffer::new(), signals })
    }

    /// Waits for an order, a report of the monitor, or the time limit. `true`: let go.
    fn wait(&mut self, monitor: &Monitor, limit_ms: Option<u64>) -> Result<bool, Failure> {
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
        if signals {
            return Ok(true);
        }
        if !input {
            return Ok(false);
        }
        // An input that cannot be read is as good as closed: the safe side is to let go.
        if !self.lines.read_from(&mut self.input).is_ok_and(|count| count > 0) {
            return Ok(true);
        }
        while let Some(message) = self.lines.next_message() {
            match message {
                Ok(m) if matches!(m.kind.as_str(), "release" | "quit") => return Ok(true),
                Ok(m) => warn(&format!("an order of unknown kind `{}` was skipped", m.kind)),
                Err(e) => warn(&format!("an order was skipped: {e}")),
            }
        }
        Ok(false)
    }
}

fn warn(text: &str) {
    let _ = writeln!(io::stderr(), "sk-vip: {text}");
}

/// One address of the specification, held.
struct Held {
    wanted: Wanted,
    claim: Claim,
    schedule: Schedule,
    present: bool,
    /// When the kernel's lifetime was last renewed.
    renewed: u64,
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
            claim.set(&mut self.rtnl, Some(self.spec.lifetime_s()))?;
            claim.announce();
            let mut schedule = claim.schedule(now, wanted.reroute());
            schedule.poll(now);
            self.held.push(Held { wanted, schedule, present: true, renewed: now, claim });
        }
        for held in &self.held {
            held.claim.prefer(&mut self.rtnl)?;
            self.emitter.emit("vip", &json!({"address": held.claim.ip, "value": "up"}))?;
        }
        self.emitter.emit("held", &())?;
        self.report_interfaces()
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
            let next = self
                .held
                .iter()
                .filter(|h| h.present)
                .flat_map(|h| [Some(h.renewed + self.spec.lifetime_ms / 3), h.schedule.due()])
                .flatten()
                .min();
            // One more millisecond: waking a moment early would only mean waking twice.
            let limit = next.map(|at| at.saturating_sub(monotonic_ms()) + 1);
            if orders.wait(&self.monitor, limit)? {
                return Ok(());
            }
            if !self.monitor.read()?.is_empty() {
                self.compare()?;
            }
        }
    }

    /// Renews lifetimes that are due. Never after the lifetime has passed: the peer may own the address by now.
    fn renew(&mut self, now: u64) -> Result<(), Failure> {
        if !self.held.iter().any(|h| h.present && now >= h.renewed + self.spec.lifetime_ms / 3) {
            return Ok(());
        }
        // Removals reported meanwhile come first, else renewing would bring the address back.
        if !self.monitor.read()?.is_empty() {
            self.compare()?;
        }
        let mut late = false;
        for held in self.held.iter_mut().filter(|h| h.present) {
            let last = held.renewed;
            let expired = |at: u64| at >= last + self.spec.lifetime_ms;
            if expired(monotonic_ms()) {
                held.claim.remove(&mut self.rtnl)?;
                late = true;
                continue;
            }
            let before = monotonic_ms();
            held.claim.set(&mut self.rtnl, Some(self.spec.lifetime_s()))?;
            if expired(monotonic_ms()) {
                // This process was stopped between both looks at the clock.
                held.claim.remove(&mut self.rtnl)?;
                late = true;
                continue;
            }
            held.renewed = before;
            held.claim.prefer(&mut self.rtnl)?;
        }
        if late { self.compare() } else { Ok(()) }
    }

    /// Compares what the kernel has with what we hold, and reports the difference.
    fn compare(&mut self) -> Result<(), Failure> {
        let addresses = self.rtnl.addresses()?;
        let lifetime_ms = self.spec.lifetime_ms;
        for held in &mut self.held {
            let (ip, index) = (held.claim.ip, held.claim.place.link.index);
            let present = addresses.iter().any(|a| a.ip == ip && a.index == index);
            if present == held.present {
                continue;
            }
            let now = monotonic_ms();
            let expired = now >= held.renewed + lifetime_ms;
            if !present && !expired && !held.wanted.check {
                warn(&format!("{ip} was removed by somebody else and is put back"));
                if let Err(e) = held.claim.set(&mut self.rtnl, Some(self.spec.lifetime_s())) {
                    warn(&e.to_string());
                } else {
                    held.renewed = now;
                    held.schedule = held.claim.schedule(now, held.wanted.reroute());
                    continue;
                }
            }
            if !present && expired {
                warn(&format!("{ip} expired: this process was not scheduled for more than {lifetime_ms} ms"));
            }
            held.present = present;
            if present {
                held.renewed = now;
                held.schedule = held.claim.schedule(now, held.wanted.reroute());
            }
            self.emitter.emit("ip", &json!({"address": ip, "value": if present { "up" } else { "down" }}))?;
        }
        self.report_interfaces()
    }

    fn report_interfaces(&mut self) -> Result<(), Failure> {
        let links = self.rtnl.links()?;
        let now = monotonic_ms();
        for report in self.interfaces.update(&links) {
            self.emitter.emit("intf", &report)?;
        }
        for back in self.carriers.update(&links).iter().filter(|r| r.value == "up") {
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

/// `sk-vip watch`.
pub fn watch(path: &Path, once: bool) -> Result<u8, Failure> {
    let spec = Spec::read(path)?;
    let mut orders = Orders::open()?;
    let mut monitor = Monitor::open()?;
    let mut rtnl = Rtnl::open()?;
    let emitter = Emitter::new("sk-vip", &spec.node, &spec.module);
    let (links, addresses) = (rtnl.links()?, rtnl.addresses()?);
    let mut interfaces = Interfaces::default();
    for wanted in spec.addresses.iter().filter(|w| w.interface_check) {
        match place(wanted.address, wanted.prefix, wanted.interface.as_deref(), &links, &addresses) {
            Ok(place) => interfaces.watch(place.subnet, &place.link.name),
            // It may appear later (a driver loaded late, a bond set up by hand): down until then.
            Err(NetError::UnknownInterface { name }) => {
                let full = if wanted.address.is_ipv4() { 32 } else { 128 };
                interfaces.watch(Subnet::of(wanted.address, wanted.prefix.unwrap_or(full)), &name);
            }
            Err(e) => return Err(e.into()),
        }
    }
    loop {
        for report in interfaces.update(&rtnl.links()?) {
            emitter.emit("intf", &report)?;
        }
        if once || orders.wait(&monitor, None)? {
            return Ok(0);
        }
        monitor.read()?;
    }
}
