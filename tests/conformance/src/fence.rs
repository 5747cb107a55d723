//! Clients that would notice two primaries: writers at both mounts, and one that asks the virtual address who is there.

use crate::{Cluster, Module, SOON, wait};
use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::Child;
use std::sync::{Arc, Mutex};

const PORT: &str = "7777";

/// Lines with the time (milliseconds of the clock all hosts share) of what was acknowledged or answered, by node.
type Seen = Arc<Mutex<BTreeMap<String, Vec<u64>>>>;

/// A writer and an answering server on every node, and an asking client; they go on while a host is paused.
#[derive(Debug)]
pub struct Witnesses {
    children: Vec<(String, Child)>,
    /// Acknowledged writes by node.
    writes: Seen,
    /// Beginnings of connections to the virtual address, by the node that answered.
    answers: Seen,
}

impl Witnesses {
    /// Starts them. The module has a virtual address with this last number.
    pub fn start(cluster: &Cluster, module: &Module<'_>, vip: u8) -> Result<Self> {
        let mut all = Self { children: Vec::new(), writes: Seen::default(), answers: Seen::default() };
        for node in ["node1", "node2"] {
            let file = format!("{}/fence-{node}", module.directory());
            let mut writer = cluster.lab.spawn_beside(node, &["/opt/sk/bin/fence-witness", "write", &file])?;
            collect(&mut writer, &all.writes, |_| node.to_owned())?;
            all.children.push((node.to_owned(), writer));
            let server = cluster.lab.spawn_beside(node, &["/opt/sk/bin/fence-witness", "serve", PORT, node])?;
            all.children.push((node.to_owned(), server));
        }
        let to = format!("{}.{vip}:{PORT}", cluster.network());
        let mut asker = cluster.lab.spawn_beside("client", &["/opt/sk/bin/fence-witness", "ask", &to])?;
        collect(&mut asker, &all.answers, str::to_owned)?;
        all.children.push(("client".to_owned(), asker));
        Ok(all)
    }

    /// Waits until the node acknowledges writes and answers on the virtual address, from now on.
    pub fn served_by(&self, node: &str) -> Result<()> {
        let (writes, answers) = (count(&self.writes, node), count(&self.answers, node));
        wait::until(&format!("{node} serves clients"), SOON, || {
            let (w, a) = (count(&self.writes, node) - writes, count(&self.answers, node) - answers);
            if w > 5 && a > 5 { Ok(()) } else { Err(format!("{w} writes, {a} answers")) }
        })
    }

    /// Ends those of a host, which is going to lose its power.
    pub fn leave(&mut self, host: &str) -> Result<()> {
        for (_, child) in self.children.iter_mut().filter(|(at, _)| at == host) {
            child.kill()?;
            child.wait()?;
        }
        self.children.retain(|(at, _)| at != host);
        Ok(())
    }

    /// How many writes a node acknowledged.
    pub fn writes(&self, node: &str) -> usize {
        count(&self.writes, node)
    }

    /// After `to` had served for the first time, `from` never did, neither at its mount nor on the address.
    pub fn never_both(&self, from: &str, to: &str) -> Result<()> {
        let first = |seen: &Seen| lock(seen).get(to).and_then(|all| all.first().copied());
        let first = [first(&self.writes), first(&self.answers)].into_iter().flatten().min();
        let first = first.with_context(|| format!("{to} never served"))?;
        for (what, seen) in [("acknowledged a write", &self.writes), ("answered on the virtual address", &self.answers)]
        {
            let all = lock(seen);
            let late = all.get(from).into_iter().flatten().filter(|at| **at >= first).count();
            ensure!(late == 0, "{from} {what} {late} times after {to} had begun to serve");
        }
        Ok(())
    }
}

fn lock(seen: &Seen) -> std::sync::MutexGuard<'_, BTreeMap<String, Vec<u64>>> {
    seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn count(seen: &Seen, node: &str) -> usize {
    lock(seen).get(node).map_or(0, Vec::len)
}

fn collect(child: &mut Child, seen: &Seen, node: impl Fn(&str) -> String + Send + 'static) -> Result<()> {
    let Some(output) = child.stdout.take() else { bail!("no pipe") };
    let seen = seen.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if let Some((at, rest)) = line.split_once(' ')
                && let Ok(at) = at.parse()
            {
                lock(&seen).entry(node(rest)).or_default().push(at);
            }
        }
    });
    Ok(())
}

impl Drop for Witnesses {
    fn drop(&mut self) {
        for (_, child) in &mut self.children {
            drop(child.stdin.take());
            // One that waits for a disk ends with its mount.
            let _ = child.kill();
        }
        for (_, mut child) in std::mem::take(&mut self.children) {
            std::thread::spawn(move || child.wait());
        }
    }
}
