//! Is it up, now, once? For shells and cron.

use crate::cli::Common;
use crate::probe::local::Local;
use crate::probe::{Outcome, Prober, local};
use crate::spec::Target;
use mio::{Events, Poll};
use net::rtnl::Rtnl;
use serde_json::json;
use std::io;
use std::net::IpAddr;
use std::time::Duration;
use sys::clock::monotonic_ms;
use sys::failure::{Failure, put};

/// One probe over the network.
pub(crate) fn probe(kind: &str, name: &str, target: &Target, common: &Common) -> Result<u8, Failure> {
    let mut poll = Poll::new().map_err(|e| Failure::system("epoll", e))?;
    let mut prober = Prober::new(poll.registry())?;
    let mut events = Events::with_capacity(64);
    let began = monotonic_ms();
    let timeout = u64::try_from(common.timeout.as_millis()).unwrap_or(u64::MAX);
    let mut outcome = prober.start(0, target, timeout, began);
    while outcome.is_none() {
        let wait = prober.deadline().map(|t| Duration::from_millis(t.saturating_sub(monotonic_ms())));
        match poll.poll(&mut events, wait) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => return Err(Failure::system("epoll", e)),
            _ => {}
        }
        let now = monotonic_ms();
        let mut done: Vec<(usize, Outcome)> = events.iter().flat_map(|event| prober.ready(event, now)).collect();
        done.extend(prober.expire(now));
        outcome = done.into_iter().next().map(|(_, outcome)| outcome);
    }
    let took = monotonic_ms().saturating_sub(began);
    match outcome {
        Some(Ok(_)) => tell(kind, name, None, Some(took), common.json),
        Some(Err(trouble)) if trouble.own => Err(Failure::system(format!("{kind} {name}"), &trouble.reason)),
        Some(Err(trouble)) => tell(kind, name, Some(&trouble.reason), Some(took), common.json),
        None => Ok(1),
    }
}

pub(crate) fn interface(which: &str, json: bool) -> Result<u8, Failure> {
    let look = |rtnl: &mut Rtnl| match which.parse::<IpAddr>() {
        Ok(ip) => local::interface(rtnl, ip),
        Err(_) => local::named(rtnl, which),
    };
    own("intf", which, look, json)
}

pub(crate) fn address(ip: IpAddr, json: bool) -> Result<u8, Failure> {
    own("ip", &ip.to_string(), |rtnl| local::address(rtnl, ip), json)
}

fn own(
    kind: &str,
    name: &str,
    look: impl Fn(&mut Rtnl) -> Result<Local, net::NetError>,
    json: bool,
) -> Result<u8, Failure> {
    let failed = |e| Failure::system("links and addresses", e);
    let mut rtnl = Rtnl::open().map_err(failed)?;
    let found = look(&mut rtnl).map_err(failed)?;
    tell(kind, name, found.err().as_deref(), None, json)
}

fn tell(kind: &str, name: &str, reason: Option<&str>, took: Option<u64>, as_json: bool) -> Result<u8, Failure> {
    let value = if reason.is_none() { "up" } else { "down" };
    let line = if as_json {
        json!({"kind": kind, "name": name, "value": value, "reason": reason, "ms": took}).to_string()
    } else {
        format!("{kind} {name} {value}")
    };
    if let Some(reason) = reason {
        sys::warn!("sk-check: {kind} {name}: {reason}");
    }
    put(&line)?;
    Ok(u8::from(reason.is_some()))
}
