//! Which addresses does a host name have? The system's resolver only blocks, so it has one thread of its own, started when the
//! first name is asked for.

use mio::Waker;
use std::collections::BTreeSet;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// A name and its addresses, or why it has none.
pub(crate) type Resolved = (String, Result<Vec<SocketAddr>, String>);

pub(crate) struct Resolver {
    waker: Arc<Waker>,
    asked: Option<(Sender<String>, Receiver<Resolved>)>,
    pending: BTreeSet<String>,
}

impl Resolver {
    pub fn new(waker: Waker) -> Self {
        Self { waker: Arc::new(waker), asked: None, pending: BTreeSet::new() }
    }

    /// The poll is woken when the answer is there. A name that is being asked for is not asked for again.
    pub fn ask(&mut self, host: &str) {
        if !self.pending.insert(host.to_owned()) {
            return;
        }
        let (names, _) = self.asked.get_or_insert_with(|| start(self.waker.clone()));
        // The thread ends only with this process.
        let _ = names.send(host.to_owned());
    }

    pub fn answers(&mut self) -> Vec<Resolved> {
        let Some((_, answers)) = &self.asked else { return Vec::new() };
        let all: Vec<Resolved> = answers.try_iter().collect();
        for (host, _) in &all {
            self.pending.remove(host);
        }
        all
    }
}

fn start(waker: Arc<Waker>) -> (Sender<String>, Receiver<Resolved>) {
    let (names, asked) = channel::<String>();
    let (answer, answers) = channel();
    std::thread::spawn(move || {
        for host in asked {
            let found = (host.as_str(), 0).to_socket_addrs().map(Iterator::collect::<Vec<_>>);
            let result = match found {
                Ok(all) if all.is_empty() => Err(format!("{host} has no address")),
                Ok(all) => Ok(all),
                Err(error) => Err(format!("{host} cannot be resolved: {error}")),
            };
            if answer.send((host, result)).is_err() || waker.wake().is_err() {
                return;
            }
        }
    });
    (names, answers)
}
