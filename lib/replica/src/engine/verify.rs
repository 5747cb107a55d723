//! A comparison of both replicas over the present stream: may it begin, and when must it end?

use super::Engine;
use super::core::{Core, random};
use super::place::duplicate;
use super::repair::Differences;
use super::report::{Peer, Role};
use super::serve::{Fronts, Server};
use super::spec::Failure;
use super::window::Whose;
use crate::op::Op;
use crate::resync::ask::Ask;
use crate::resync::{Gone, Progress};
use crate::stream::frame;
use crate::verify::{Config, Difference, Link, Question, Summary, Verify};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;

/// Set in the numbers of our questions: those of resynchronisations begin with the number of a connection.
const MARK: u64 = 1 << 63;

/// Starts comparisons, from any thread.
#[derive(Clone)]
pub struct Verifier {
    server: Arc<Server>,
}

impl Engine {
    pub fn verifier(&self) -> Verifier {
        Verifier { server: self.server.clone() }
    }
}

impl Verifier {
    pub(super) fn server(&self) -> &Server {
        &self.server
    }

    /// Compares both replicas, in the calling thread. `bandwidth`: bytes a second read on each node. `repair`: what differs is put right, see
    /// [`super::repair`]; the result comes before that. See [`Verify::run`].
    pub fn run(
        &self,
        bandwidth: Option<u64>,
        repair: bool,
        found: &mut dyn FnMut(Difference) -> bool,
        progress: &mut dyn FnMut(Summary) -> bool,
    ) -> Result<Summary, Failure> {
        let core = &self.server.core;
        let roots = self.server.root_descriptors()?;
        let own = duplicate(&roots)?;
        let number = random()? as u64;
        let excludes = self.server.excludes.clone();
        let verify = Verify::new(Config { roots, excludes, front: Arc::new(Fronts(core.all_fronts())), bandwidth });
        let link = {
            let mut flow = core.flow();
            if flow.role != Role::Primary {
                return Err(Failure::new("this node does not serve", "run it on the primary"));
            }
            if flow.verify.is_some() {
                return Err(Failure::new("the replicas are being compared already", "wait for its end"));
            }
            let synced = flow.paired && flow.end.is_none() && flow.peer == Peer::InSync;
            let Some(link) = flow.link.filter(|_| synced) else {
                return Err(Failure::new("the secondary is not in sync", "wait until it is, then compare again"));
            };
            flow.verify = Some(verify.clone());
            link
        };
        let stream = Questions { core, link, verify: &verify, number: AtomicU64::new(number) };
        let mut differences = Differences::new(own);
        let mut noted = |difference: Difference| {
            if repair {
                differences.add(&difference);
            }
            found(difference)
        };
        let outcome = verify.run(&stream, &mut noted, progress);
        {
            let mut flow = core.flow();
            if flow.verify.as_ref().is_some_and(|v| Arc::ptr_eq(v, &verify)) {
                flow.verify = None;
            }
        }
        let summary =
            outcome.map_err(|e| Failure::new(format!("the comparison was not finished: {e}"), "compare again"))?;
        if repair && summary.differences > 0 {
            core.repair(link, &differences.set)?;
        }
        Ok(summary)
    }

    /// Waits until the secondary is in sync. `progress` is told about every second how far it is; false ends the waiting.
    pub fn wait_in_sync(&self, progress: &mut dyn FnMut(Option<Progress>) -> bool) -> Result<(), Failure> {
        let core = &self.server.core;
        loop {
            let (resync, primary, synced) = {
                let flow = core.flow();
                let synced = flow.paired && flow.link.is_some() && flow.end.is_none() && flow.peer == Peer::InSync;
                (flow.resync.clone(), flow.role == Role::Primary, synced)
            };
            if synced {
                return Ok(());
            }
            if !primary {
                return Err(Failure::new("this node does not serve any more", "compare again on the primary"));
            }
            if !progress(resync.map(|r| r.progress(sys::clock::monotonic()))) {
                return Err(Failure::new("nobody waits for the result any more", "the repair goes on"));
            }
            core.wait_change(Duration::from_secs(1));
        }
    }
}

struct Questions<'a> {
    core: &'a Core,
    link: u64,
    verify: &'a Arc<Verify>,
    number: AtomicU64,
}

impl Link for Questions<'_> {
    fn ask(&self, question: &Question) -> Result<u64, Gone> {
        let id = self.number.fetch_add(1, SeqCst) | MARK;
        let payload = serde_json::to_vec(&Ask::Verify { question: question.clone() }).map_err(|_| Gone)?;
        let mut text = Vec::new();
        frame::op_text(&Op::Ask { id }, &mut text).map_err(|_| Gone)?;
        let mut flow = self.core.flow();
        // Decided under the lock: nothing follows the goodbye of a role that ends, and nothing goes to another connection.
        let current = flow.link == Some(self.link) && flow.verify.as_ref().is_some_and(|v| Arc::ptr_eq(v, self.verify));
        if !current || payload.len() > frame::MAX_PAYLOAD {
            return Err(Gone);
        }
        self.core.append(&mut flow, Whose::Walker, &text, &payload, true);
        let held = flow.link == Some(self.link);
        drop(flow);
        self.core.outlet.hint();
        held.then_some(id).ok_or(Gone)
    }

    fn wait_room(&self, bytes: usize) -> Result<(), Gone> {
        self.core.wait_room(self.link, bytes as u64).then_some(()).ok_or(Gone)
    }

    fn now(&self) -> Duration {
        sys::clock::monotonic()
    }
}

impl Core {
    /// No question of a comparison enters the stream any more.
    pub fn end_verify(&self) {
        let verify = self.flow().verify.take();
        if let Some(verify) = verify {
            verify.end();
        }
    }
}
