//! What does the kernel filter now, and how is it told otherwise? Tables by `nft`, their contents by netlink.

use crate::cli::Failure;
use crate::early::EarlyDrop;
use crate::mark::{Class, FOR_ALL, bucket_mark, class_mark};
use crate::plan::{Plan, chain, dropped, former, group, peer, table, whole};
use net::NetError;
use net::nft::{Batch, Counter, Data, Element, Family, Nftables};
use std::io::Write;
use std::net::IpAddr;
use std::process::{Command, Stdio};
use sys::clock::monotonic_ms;

/// One bucket of one group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// `None`: not accepted here.
    pub class: Option<Class>,
    /// The node that owns it.
    pub owner: Option<u8>,
    /// Bit n: node n may still hold old connections in it.
    pub former: u32,
}

/// What each group's buckets are, by number of group and bucket.
pub type Contents = Vec<Vec<Bucket>>;

/// Where a node can be sent packets to: its addresses on the interface of directed addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hop {
    pub v4: Option<std::net::Ipv4Addr>,
    pub v6: Option<std::net::Ipv6Addr>,
}

/// The loaded tables of one module.
pub struct Kernel {
    nft: Nftables,
    table: String,
    /// The addresses, and their chains while buckets decide and while everything is this node's own.
    leases: Vec<(IpAddr, [String; 2])>,
    /// The lease ends then.
    lease_until: u64,
    directed: [bool; 2],
    nodes: usize,
    /// The text of the rules, to load them again when somebody removed them.
    text: String,
    contents: Contents,
    hops: Vec<Hop>,
    early: Early,
}

/// Whether packets of others are dropped before the rules.
enum Early {
    /// Not wanted, or no address could use it.
    Unused,
    /// Not possible, and why.
    Refused(String),
    Loaded(EarlyDrop),
}

impl Early {
    fn load(plan: &Plan<'_>, wanted: bool) -> Self {
        match wanted.then(|| EarlyDrop::load(plan)) {
            Some(Ok(Some(drop))) => Self::Loaded(drop),
            Some(Err(error)) => Self::Refused(error.to_string()),
            Some(Ok(None)) | None => Self::Unused,
        }
    }

    /// Does something with the programs; without success there are none any more, and the rules work alone.
    fn with(&mut self, act: impl FnOnce(&mut EarlyDrop) -> Result<(), NetError>) {
        if let Self::Loaded(drop) = self
            && let Err(error) = act(drop)
        {
            sys::warn!("sk-farmfilter: packets of other nodes are left to the rules: {error}");
            *self = Self::Refused(error.to_string());
        }
    }
}

impl Kernel {
    /// Loads the rules; nothing is accepted yet. With `early`, packets of others are dropped before the rules where the
    /// kernel allows it.
    pub fn load(plan: &Plan<'_>, early: bool) -> Result<Self, Failure> {
        let text = plan.text();
        run_nft(&text)?;
        Ok(Self {
            early: Early::load(plan, early),
            nft: Nftables::open()?,
            table: table(plan.module),
            leases: plan.addresses.iter().enumerate().map(|(n, a)| (a.address, [chain(n), whole(n)])).collect(),
            lease_until: 0,
            directed: [plan.directed(false), plan.directed(true)],
            nodes: plan.nodes,
            text,
            contents: vec![vec![Bucket::default(); share::BUCKETS]; plan.groups.len()],
            hops: Vec::new(),
        })
    }

    /// Accept for this long, or not at all (0).
    pub fn lease(&mut self, ms: u64) -> Result<(), Failure> {
        self.lease_until = monotonic_ms().saturating_add(ms);
        let mut batch = Batch::new();
        self.lease_batch(&mut batch, ms);
        self.commit(batch, "renew the lease of the farm filter")
    }

    fn lease_batch(&self, batch: &mut Batch, ms: u64) {
        let is_whole = Self::is_whole(&self.contents);
        for (v6, map) in [(false, "lease4"), (true, "lease6")] {
            let here: Vec<(Vec<u8>, &str)> = self
                .leases
                .iter()
                .filter(|(ip, _)| ip.is_ipv6() == v6)
                .map(|(ip, [shared, whole])| (bytes(*ip), if is_whole { whole.as_str() } else { shared.as_str() }))
                .collect();
            if here.is_empty() {
                continue;
            }
            batch.flush(Family::Netdev, &self.table, map);
            if ms > 0 {
                let elements =
                    here.iter().map(|(key, chain)| Element { key, data: Data::Goto(chain), timeout_ms: Some(ms) });
                batch.add(Family::Netdev, &self.table, map, elements);
            }
        }
    }

    /// Whether every packet that a rule names is this node's own.
    fn is_whole(contents: &Contents) -> bool {
        contents.iter().all(|group| group.iter().all(|bucket| bucket.class == Some(Class::Own)))
    }

    /// Puts buckets and next hops into the kernel, in one transaction; nothing happens when they are there already.
    pub fn apply(&mut self, contents: &Contents, hops: &[Hop]) -> Result<(), Failure> {
        if self.contents == *contents && self.hops == hops {
            return Ok(());
        }
        let before =
            (std::mem::replace(&mut self.contents, contents.clone()), std::mem::replace(&mut self.hops, hops.to_vec()));
        let mut batch = self.contents_batch(Some(&before.0));
        if Self::is_whole(&before.0) != Self::is_whole(&self.contents) {
            // In the same moment as the buckets, for what is left of the lease.
            self.lease_batch(&mut batch, self.lease_until.saturating_sub(monotonic_ms()));
        }
        self.early.with(|early| early.widen(contents));
        let result = self.commit(batch, "change the shares of the farm filter");
        if result.is_err() {
            (self.contents, self.hops) = before;
        } else {
            self.early.with(|early| early.narrow(contents));
        }
        result
    }

    /// Everything that differs from `before`; all without it.
    fn contents_batch(&self, before: Option<&Contents>) -> Batch {
        let mut batch = Batch::new();
        for (number, buckets) in self.contents.iter().enumerate() {
            if before.and_then(|b| b.get(number)) == Some(buckets) {
                continue;
            }
            let set = group(number);
            let pairs: Vec<([u8; 4], [u8; 4])> = marks(number, buckets)
                .filter_map(|(mark, bucket, b)| {
                    Some((mark.to_ne_bytes(), class_mark(number, bucket, b.class?).to_ne_bytes()))
                })
                .collect();
            batch.flush(Family::Netdev, &self.table, &set);
            let elements = pairs.iter().map(|(key, data)| Element { key, data: Data::Value(data), timeout_ms: None });
            batch.add(Family::Netdev, &self.table, &set, elements);
        }
        for (v6, directed) in [false, true].into_iter().zip(self.directed) {
            if directed {
                self.hops_batch(&mut batch, v6);
            }
        }
        batch
    }

    /// Where packets go that are not for this node.
    fn hops_batch(&self, batch: &mut Batch, v6: bool) {
        let address = |node: usize| {
            let hop = self.hops.get(node)?;
            if v6 { hop.v6.map(|a| a.octets().to_vec()) } else { hop.v4.map(|a| a.octets().to_vec()) }
        };
        let (family, to) = if v6 { (Family::Ip6, "to6") } else { (Family::Ip, "to4") };
        let mut pairs = Vec::new();
        let mut old = Vec::new();
        let mut by_node: Vec<Vec<[u8; 4]>> = vec![Vec::new(); self.nodes];
        for (number, buckets) in self.contents.iter().enumerate() {
            for (mark, bucket, b) in marks(number, buckets) {
                match b.class {
                    None => pairs.extend(b.owner.and_then(|o| address(o.into())).map(|a| (mark.to_ne_bytes(), a))),
                    Some(Class::Legacy) => {
                        let mark = class_mark(number, bucket, Class::Legacy).to_ne_bytes();
                        let to = b.owner.and_then(|o| address(o.into())).map(|a| (mark, a));
                        // Datagrams go to the owner at once, others when their connection is not here.
                        pairs.extend(to.clone());
                        old.extend(to);
                    }
                    Some(Class::Gained) => {
                        let mark = class_mark(number, bucket, Class::Gained).to_ne_bytes();
                        for (node, list) in by_node.iter_mut().enumerate() {
                            if node < 32 && b.former >> node & 1 == 1 {
                                list.push(mark);
                            }
                        }
                    }
                    Some(Class::Own) => {}
                }
            }
        }
        let fill = |batch: &mut Batch, family, set: &str, pairs: &[([u8; 4], Vec<u8>)]| {
            batch.flush(family, &self.table, set);
            let elements = pairs.iter().map(|(key, data)| Element { key, data: Data::Value(data), timeout_ms: None });
            batch.add(family, &self.table, set, elements);
        };
        fill(batch, Family::Netdev, to, &pairs);
        fill(batch, family, to, &old);
        for (node, list) in by_node.iter().enumerate() {
            let pairs: Vec<_> = address(node).map_or_else(Vec::new, |a| list.iter().map(|m| (*m, a.clone())).collect());
            fill(batch, family, &former(node), &pairs);
            let all: Vec<_> = address(node).map(|a| (FOR_ALL.to_ne_bytes(), a)).into_iter().collect();
            fill(batch, family, &peer(node), &all);
        }
    }

    /// Executes; when somebody removed the tables they are loaded again, once.
    fn commit(&mut self, batch: Batch, what: &str) -> Result<(), Failure> {
        match self.nft.commit(batch, what) {
            Err(e) if e.errno() == Some(libc::ENOENT) => {
                sys::warn!(
                    "sk-farmfilter: the rules of table {} were removed by somebody; they are loaded again",
                    self.table
                );
                run_nft(&self.text)?;
                let all = self.contents_batch(None);
                // The lease is renewed within a pulse.
                Ok(self.nft.commit(all, what)?)
            }
            other => Ok(other?),
        }
    }

    /// Packets and bytes counted since the rules were loaded, whoever dropped them.
    pub fn counters(&mut self) -> Result<Vec<Counter>, NetError> {
        let mut counters = self.nft.counters(Family::Netdev, &self.table)?;
        self.early.with(|early| {
            for (number, [packets, bytes]) in early.dropped()?.into_iter().enumerate() {
                let name = dropped(&group(number));
                for counter in counters.iter_mut().filter(|c| c.name == name) {
                    counter.packets = counter.packets.saturating_add(packets);
                    counter.bytes = counter.bytes.saturating_add(bytes);
                }
            }
            Ok(())
        });
        Ok(counters)
    }

    /// On which interfaces packets of others are dropped before the rules, and why on none where that was wanted.
    pub fn early(&self) -> (Vec<&str>, Option<&str>) {
        match &self.early {
            Early::Unused => (Vec::new(), None),
            Early::Refused(reason) => (Vec::new(), Some(reason)),
            Early::Loaded(drop) => (drop.interfaces().collect(), None),
        }
    }

    /// Loads the rules again, as after the interface was made anew.
    pub fn reload(&mut self, plan: &Plan<'_>, early: bool) -> Result<(), Failure> {
        self.text = plan.text();
        self.early = Early::Unused;
        run_nft(&self.text)?;
        let all = self.contents_batch(None);
        self.nft.commit(all, "fill the farm filter again")?;
        self.early = Early::load(plan, early);
        self.early.with(|drop| drop.narrow(&self.contents));
        Ok(())
    }
}

/// Removes the tables of a module; tells whether there were any.
pub fn remove(module: &str) -> Result<bool, Failure> {
    let mut nft = Nftables::open()?;
    let name = table(module);
    let mut found = false;
    for family in Family::ALL {
        let mut batch = Batch::new();
        batch.delete_table(family, &name);
        match nft.commit(batch, &format!("remove table {} {name}", family.word())) {
            Ok(()) => found = true,
            Err(e) if matches!(e.errno(), Some(libc::ENOENT | libc::EOPNOTSUPP | libc::EAFNOSUPPORT)) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(found)
}

fn marks(group: usize, buckets: &[Bucket]) -> impl Iterator<Item = (u32, u8, &Bucket)> {
    (0..=u8::MAX).zip(buckets).map(move |(n, b)| (bucket_mark(group, n), n, b))
}

fn bytes(ip: IpAddr) -> Vec<u8> {
    match ip {
        IpAddr::V4(v4) => v4.octets().to_vec(),
        IpAddr::V6(v6) => v6.octets().to_vec(),
    }
}

/// Executes a text as one transaction.
fn run_nft(text: &str) -> Result<(), Failure> {
    let failed = |e| Failure::Sys("cannot run nft (package nftables)".to_owned(), e);
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(failed)?;
    if let Some(mut input) = child.stdin.take() {
        // A failure shows in nft's own words.
        let _ = input.write_all(text.as_bytes());
    }
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&output.stderr);
    let first = words.lines().find(|l| l.contains("Error")).or_else(|| words.lines().next()).unwrap_or("no words");
    Err(Failure::Rules(first.trim().to_owned()))
}
