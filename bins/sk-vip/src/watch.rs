//! How are the interfaces of a module's addresses watched, and the connections of the addresses counted, until the runner lets go?

use crate::cli::Failure;
use crate::hold::{Orders, warn};
use crate::spec::Spec;
use net::choose::place;
use net::diag::count_connections;
use net::interfaces::Interfaces;
use net::rtnl::{Monitor, Rtnl};
use net::{NetError, Subnet};
use serde_json::json;
use std::net::IpAddr;
use std::path::Path;
use sys::clock::monotonic_ms;
use wire::Emitter;

/// How often connections are counted.
const COUNT_MS: u64 = 10_000;

/// The connections of the addresses where they are to be counted.
struct Counted {
    addresses: Vec<IpAddr>,
    /// As last reported.
    counts: Vec<Option<usize>>,
    due: u64,
    failed: bool,
}

impl Counted {
    fn new(spec: &Spec) -> Self {
        let addresses: Vec<IpAddr> = spec.addresses.iter().filter(|w| w.connections).map(|w| w.address).collect();
        Self { counts: vec![None; addresses.len()], addresses, due: 0, failed: false }
    }

    /// When it is counted again; None: nothing is counted.
    fn due(&self) -> Option<u64> {
        (!self.addresses.is_empty()).then_some(self.due)
    }

    /// What changed since the last time, when it is due.
    fn update(&mut self, now: u64) -> Vec<(IpAddr, usize)> {
        if self.due().is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.due = now + COUNT_MS;
        let counts = match count_connections(&self.addresses) {
            Ok(counts) => counts,
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    warn(&format!("connections are not counted: {error}"));
                }
                return Vec::new();
            }
        };
        self.failed = false;
        let known = self.addresses.iter().zip(&mut self.counts);
        known
            .zip(counts)
            .filter_map(|((address, known), new)| (known.replace(new) != Some(new)).then_some((*address, new)))
            .collect()
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
    let mut counted = Counted::new(&spec);
    loop {
        for report in interfaces.update(&rtnl.links()?) {
            emitter.emit("intf", &report)?;
        }
        for (address, count) in counted.update(monotonic_ms()) {
            emitter.emit("connections", &json!({"address": address, "value": count}))?;
        }
        let limit = counted.due().map(|at| at.saturating_sub(monotonic_ms()) + 1);
        if once || orders.wait(&monitor, limit)?.let_go {
            return Ok(0);
        }
        monitor.read()?;
    }
}
