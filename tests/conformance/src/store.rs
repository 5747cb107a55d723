//! A real etcd on a host of the lab, of one member or of several, and what it says.

use crate::{Cluster, SOON, wait};
use anyhow::{Context, Result};
use e2e::lab::Lab;
use std::process::Child;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How etcd is started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Secured {
    /// TLS with certificates of an authority of the test, which clients must have, too.
    pub tls: bool,
}

/// An etcd cluster on one host: one member, or several.
#[derive(Debug)]
pub struct Store<'a> {
    lab: &'a Lab,
    host: String,
    address: String,
    secured: Secured,
    children: Mutex<Vec<Option<Child>>>,
}

/// Makes an authority, and a certificate for etcd and one for its clients, in /etc/sk/tls of the host. $1: address. No common name: etcd's gateway
/// refuses clients that have both one and a user.
const CERTIFICATES: &str = r#"set -e
mkdir -p /etc/sk/tls; cd /etc/sk/tls; [ -e ca.pem ] && exit 0
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -keyout ca.key -out ca.pem -subj "/CN=authority" 2>/dev/null
for name in server client; do
    openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr -subj "/O=$name" 2>/dev/null
    printf 'subjectAltName=IP:%s\n' "$1" >ext
    openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -out $name.pem -extfile ext 2>/dev/null
done"#;

impl<'a> Store<'a> {
    /// Starts etcd on `host` and waits until it answers.
    pub fn start(cluster: &'a Cluster, host: &str, secured: Secured) -> Result<Self> {
        Self::launch(cluster, host, secured, 1)
    }

    /// Starts several members on `host` and waits until each answers.
    pub fn members(cluster: &'a Cluster, host: &str, count: usize) -> Result<Self> {
        Self::launch(cluster, host, Secured::default(), count)
    }

    fn launch(cluster: &'a Cluster, host: &str, secured: Secured, count: usize) -> Result<Self> {
        let address = cluster.lab.address(host, "prod")?;
        if secured.tls {
            cluster.lab.exec(host, &["sh", "-c", CERTIFICATES, "sh", &address])?;
        }
        let children = Mutex::new((0..count).map(|_| None).collect());
        let store = Self { lab: &cluster.lab, host: host.to_owned(), address, secured, children };
        for member in 0..count {
            store.spawn(member)?;
        }
        for member in 0..count {
            store.answering(member)?;
        }
        Ok(store)
    }

    /// As in `arg` of `<splitbrain>`.
    pub fn endpoints(&self) -> String {
        (0..self.children().len()).map(|member| self.endpoint(member)).collect::<Vec<_>>().join(" ")
    }

    fn endpoint(&self, member: usize) -> String {
        format!("{}://{}:{}", if self.secured.tls { "https" } else { "http" }, self.address, 2379 + 10 * member)
    }

    fn children(&self) -> MutexGuard<'_, Vec<Option<Child>>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spawn(&self, member: usize) -> Result<()> {
        let tls = if self.secured.tls {
            "--client-cert-auth --trusted-ca-file /etc/sk/tls/ca.pem --cert-file /etc/sk/tls/server.pem --key-file /etc/sk/tls/server.key"
        } else {
            ""
        };
        let peer = |member: usize| format!("http://127.0.0.1:{}", 2380 + 10 * member);
        let all: Vec<String> = (0..self.children().len()).map(|m| format!("w{m}={}", peer(m))).collect();
        let line = format!(
            "exec etcd --name w{member} --data-dir /srv/etcd{member} --listen-client-urls {0} --advertise-client-urls {0} \
             --listen-peer-urls {1} --initial-advertise-peer-urls {1} --initial-cluster {2} {tls} >/srv/etcd{member}.log 2>&1",
            self.endpoint(member),
            peer(member),
            all.join(",")
        );
        let child = self.lab.spawn(&self.host, &["sh", "-c", &line])?;
        if let Some(place) = self.children().get_mut(member) {
            *place = Some(child);
        }
        Ok(())
    }

    /// Starts a member again with what it had.
    pub fn resume(&self, member: usize) -> Result<()> {
        self.spawn(member)?;
        self.answering(member)
    }

    fn answering(&self, member: usize) -> Result<()> {
        wait::until(&format!("member {member} of etcd answers"), SOON, || {
            self.answers(member).map_err(|error| format!("{error:#}"))
        })
    }

    /// Kills a member.
    pub fn stop(&self, member: usize) -> Result<()> {
        self.lab.kill(&self.host, &process(member))?;
        let child = self.children().get_mut(member).and_then(Option::take);
        if let Some(mut child) = child {
            // What leads into the host stops with a frozen process, and nobody would let it go on.
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Freezes the only member, or lets it go on: it takes connections and answers nothing.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { "-STOP" } else { "-CONT" };
        for pid in self.lab.pids(&self.host, &process(0))? {
            self.lab.exec(&self.host, &["kill", signal, &pid.to_string()])?;
        }
        Ok(())
    }

    /// Makes the only member slow for as long as the result lives: frozen for some milliseconds, then not, and so on.
    pub fn slow(&self, frozen_ms: u32, awake_ms: u32) -> Result<Slow> {
        let pid = self.lab.pids(&self.host, &process(0))?.first().copied().context("no etcd")?;
        let seconds = |ms: u32| format!("{}.{:03}", ms / 1000, ms % 1000);
        let line = format!(
            "(while kill -STOP {pid} && sleep {} && kill -CONT {pid} && sleep {}; do :; done) & \
             cat >/dev/null; kill $!; wait; kill -CONT {pid}",
            seconds(frozen_ms),
            seconds(awake_ms)
        );
        Ok(Slow(self.lab.spawn(&self.host, &["sh", "-c", &line])?))
    }

    /// A question in the gateway's own form, by curl on the host itself.
    pub fn post(&self, path: &str, body: &str) -> Result<serde_json::Value> {
        self.post_to(0, path, body)
    }

    fn post_to(&self, member: usize, path: &str, body: &str) -> Result<serde_json::Value> {
        let url = format!("{}{path}", self.endpoint(member));
        let tls: &[&str] = if self.secured.tls {
            &["--cacert", "/etc/sk/tls/ca.pem", "--cert", "/etc/sk/tls/client.pem", "--key", "/etc/sk/tls/client.key"]
        } else {
            &[]
        };
        let text = self.lab.exec(&self.host, &[&["curl", "-sS", "-m", "5", "-d", body, &url], tls].concat())?;
        serde_json::from_str(&text).with_context(|| text.clone())
    }

    fn answers(&self, member: usize) -> Result<()> {
        let seen = self.post_to(member, "/v3/kv/range", r#"{"key":"bm90aGluZw=="}"#)?;
        seen["header"]["revision"]
            .as_str()
            .map(drop)
            .or_else(|| seen["error"].as_str().map(drop))
            .context("no answer of etcd")
    }

    /// `sk-arbiter show` of a module on a node.
    pub fn record(&self, node: &str, module: &str) -> Result<serde_json::Value> {
        let text = self.lab.exec(node, &["sk-arbiter", "show", "-m", module, "--json"])?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// The command line of a member.
fn process(member: usize) -> String {
    format!("^etcd --name w{member} ")
}

/// A slow store; dropped, it is as fast as before.
#[derive(Debug)]
pub struct Slow(Child);

impl Drop for Slow {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Its shell ends at the end of its input.
        let _ = self.0.wait();
    }
}

impl Drop for Store<'_> {
    fn drop(&mut self) {
        for (member, child) in std::mem::take(&mut *self.children()).into_iter().enumerate() {
            if let Some(mut child) = child {
                // The host is going down with the lab, or is down already.
                let _ = self.lab.kill(&self.host, &process(member));
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}
