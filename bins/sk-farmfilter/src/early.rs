//! How are packets of other nodes dropped before they cost anything? Where the kernel allows it, a small program at the
//! interface drops them before the rules see them, which costs a fraction of what the rules do.
//!
//! The rules stay what decides. The program drops only what they would drop, and when it is not there, or this process is
//! gone, they do it alone.

mod check;
mod program;
#[cfg(test)]
mod tests;

use crate::kernel::Contents;
use crate::plan::Plan;
use crate::spec::Mode;
use net::NetError;
use net::tcx::{Counters, Place, Program, Table};
use program::Maps;
use std::collections::BTreeSet;
use std::net::IpAddr;

/// The programs of a module, one for each interface with invisible addresses.
pub struct EarlyDrop {
    foreign: Table,
    dropped: Counters,
    /// What was counted while the programs were tried.
    base: Vec<[u64; 2]>,
    programs: Vec<(String, Program)>,
    /// With the index of the interface, whose end is theirs. None while everything is this node's own.
    places: Vec<(u32, Place)>,
    /// What the table holds.
    held: Vec<u8>,
}

impl EarlyDrop {
    /// Loads the programs and tries them; none is in place yet. `None`: no address could use one.
    ///
    /// # Errors
    /// The kernel is older than 6.6 or does not permit it, or a program does not say what the rules say.
    pub fn load(plan: &Plan<'_>) -> Result<Option<Self>, NetError> {
        let size = plan.groups.len() * share::BUCKETS;
        if size == 0 {
            return Ok(None);
        }
        let label = format!("sk_{}", plan.module);
        let (foreign, mut dropped) = (Table::new(&label, size)?, Counters::new(&label, plan.groups.len())?);
        let maps = Maps { foreign: foreign.descriptor(), dropped: dropped.descriptor() };
        // Of neighbouring buckets some are foreign, and others not.
        let pattern: Vec<u8> =
            (0..u32::try_from(size).unwrap_or(0)).map(|n| (net::jhash::jhash(&n.to_be_bytes(), 1) & 1) as u8).collect();
        foreign.set(&pattern)?;
        let interfaces: BTreeSet<&str> = plan.addresses.iter().map(|a| a.interface.as_str()).collect();
        let mut programs = Vec::new();
        for interface in interfaces {
            let here: Vec<_> = plan.addresses.iter().filter(|a| a.interface == interface).collect();
            let Some(code) = program::program(&here, plan.groups, maps) else { continue };
            let program = Program::load(&label, &code)?;
            let invisible = here.iter().filter(|a| a.mode == Mode::VmacInvisible);
            let addresses: Vec<IpAddr> = invisible.map(|a| a.address).collect();
            check::check(&program, &addresses, plan.groups, &pattern)?;
            programs.push((interface.to_owned(), program));
        }
        let held = vec![0; size];
        foreign.set(&held)?;
        let base = dropped.read()?;
        Ok((!programs.is_empty()).then_some(Self { foreign, dropped, base, programs, places: Vec::new(), held }))
    }

    /// Before the rules change: what they will let through is dropped no more.
    pub fn widen(&mut self, contents: &Contents) -> Result<(), NetError> {
        let both = foreign(contents).iter().zip(&self.held).map(|(new, old)| new & old).collect();
        self.hold(both)
    }

    /// After the rules have changed: what they drop need not get to them.
    pub fn narrow(&mut self, contents: &Contents) -> Result<(), NetError> {
        self.hold(foreign(contents))?;
        if self.held.iter().all(|b| *b == 0) {
            self.places.clear();
        } else if self.places.is_empty() {
            for (interface, program) in &self.programs {
                let index = nix::net::if_::if_nametoindex(interface.as_str())
                    .map_err(|e| NetError::sys(format!("find interface {interface}"), e.into()))?;
                self.places.push((index, program.attach(index)?));
            }
        }
        Ok(())
    }

    fn hold(&mut self, bytes: Vec<u8>) -> Result<(), NetError> {
        if self.held != bytes {
            self.foreign.set(&bytes)?;
            self.held = bytes;
        }
        Ok(())
    }

    /// Packets and bytes dropped, of each group.
    pub fn dropped(&mut self) -> Result<Vec<[u64; 2]>, NetError> {
        let mut all = self.dropped.read()?;
        for ([packets, bytes], [tried, tried_bytes]) in all.iter_mut().zip(&self.base) {
            (*packets, *bytes) = (packets.saturating_sub(*tried), bytes.saturating_sub(*tried_bytes));
        }
        Ok(all)
    }

    /// Where programs are in place.
    pub fn interfaces(&self) -> impl Iterator<Item = &str> {
        let places = self.programs.iter().map(|(interface, _)| interface.as_str()).zip(&self.places);
        places.filter(|(name, (index, _))| nix::net::if_::if_nametoindex(*name) == Ok(*index)).map(|(name, _)| name)
    }
}

/// A byte for each bucket of each group: 1 where the rules accept nothing.
fn foreign(contents: &Contents) -> Vec<u8> {
    contents.iter().flatten().map(|bucket| u8::from(bucket.class.is_none())).collect()
}
