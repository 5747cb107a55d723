//! The configuration of the cluster on this node: how is it made, checked, applied, carried to other nodes?

use crate::hosts::{Hosts, PORT};
use crate::{Failure, daemon, exit, nodes, put};
use config::Cluster;
use std::collections::BTreeSet;
use std::io::{IsTerminal, Read};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};
use sys::roots::Roots;
use wire::node::{Ask, Bundle, Stamp};
use wire::{ClusterKey, KeyRing};

/// Largest cluster.xml, and largest bundle.
const LIMIT: u64 = 512 * 1024;
/// Longest time for a module to take a new configuration of the cluster.
const UPDATE: Duration = Duration::from_mins(2);

/// What this node has. None: no configuration.
pub fn read(roots: &Roots) -> Result<Option<Bundle>, Failure> {
    let text = |path: &Path| match sys::files::read_bounded(path, LIMIT) {
        Ok(bytes) => String::from_utf8(bytes)
            .map(Some)
            .map_err(|_| Failure::new(exit::REFUSED, format!("{} is not UTF-8", path.display()))),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::system(path.display(), e)),
    };
    let Some(cluster_xml) = text(&roots.cluster_xml())? else { return Ok(None) };
    Ok(Some(Bundle { cluster_xml, operators: text(&roots.operators())?.unwrap_or_default(), key: None }))
}

fn need(roots: &Roots) -> Result<Bundle, Failure> {
    read(roots)?.ok_or_else(|| {
        Failure::new(exit::REFUSED, format!("{} does not exist", roots.cluster_xml().display()))
            .hint("make it with: sk-cluster create NAME=ADDRESS NAME=ADDRESS")
    })
}

/// Signature and date of what this node has.
pub fn stamp(roots: &Roots) -> Option<Stamp> {
    let bundle = read(roots).ok().flatten()?;
    let seconds = |path: &Path| {
        let modified = std::fs::metadata(path).and_then(|m| m.modified()).ok()?;
        modified.duration_since(UNIX_EPOCH).ok().map(|d| d.as_secs())
    };
    let date = seconds(&roots.cluster_xml()).max(seconds(&roots.operators())).unwrap_or(0);
    Some(Stamp { signature: bundle.signature(), date })
}

/// The cluster that a text describes; every error of it is in the failure.
fn parse(name: &str, text: &str) -> Result<Cluster, Failure> {
    let (cluster, found) = config::parse_cluster(name, text);
    cluster.ok_or_else(|| {
        Failure::new(exit::REFUSED, format!("{name} has errors; nothing was applied"))
            .hint(found.plain().trim_end().to_owned())
    })
}

/// Makes a bundle the configuration of this node, as a whole or not at all; what happened, in words.
pub fn apply(roots: &Roots, bundle: &Bundle) -> Result<Vec<String>, Failure> {
    let cluster = parse("cluster.xml", &bundle.cluster_xml)?;
    wire::role::parse_operators(&bundle.operators).map_err(|line| {
        Failure::new(exit::REFUSED, format!("keys of operators, line {line}: not NAME ROLE KEY; nothing was applied"))
    })?;
    sys::node::own(roots, cluster.own_addresses())
        .map_err(|e| Failure::new(exit::REFUSED, format!("{e}; nothing was applied")))?;
    let before = read(roots)?;
    if before.as_ref() == Some(&Bundle { key: None, ..bundle.clone() }) {
        return Ok(vec!["it was so already".to_owned()]);
    }
    if roots.cluster_lock().exists() {
        return Err(Failure::new(exit::REFUSED, "the configuration of the cluster is locked on this node")
            .hint("unlock it there: sk-cluster config cluster.xml unlock"));
    }
    std::fs::create_dir_all(&roots.etc).map_err(|e| Failure::system(roots.etc.display(), e))?;
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e| Failure::system(path, e)
    };
    let operators_before = before.as_ref().map(|b| b.operators.as_str()).unwrap_or_default();
    if operators_before != bundle.operators {
        let path = roots.operators();
        sys::files::write_durably(&path, bundle.operators.as_bytes(), 0o600).map_err(failed(&path))?;
    }
    if before.as_ref().is_some_and(|b| b.cluster_xml == bundle.cluster_xml) {
        return Ok(vec!["keys of operators are applied".to_owned()]);
    }
    let path = roots.cluster_xml();
    sys::files::write_durably(&path, bundle.cluster_xml.as_bytes(), 0o644).map_err(failed(&path))?;
    let mut words = vec![format!("cluster.xml is applied: {}", cluster.nodes().join(", "))];
    words.extend(update_modules(roots));
    Ok(words)
}

/// Modules that run take the new addresses at once where they may.
fn update_modules(roots: &Roots) -> Vec<String> {
    sys::modules::known(roots)
        .into_iter()
        .filter(|name| roots.control_socket(name).exists())
        .map(|name| {
            let mut command = Command::new(roots.program("sk-module"));
            command.args(["update", "-m", &name]).stderr(std::process::Stdio::null());
            match sys::bounded::run(&mut command, UPDATE, 64 * 1024) {
                Ok(outcome) if outcome.status.is_some_and(|s| s.success()) => format!("module {name} has taken it"),
                _ => format!("module {name} takes it at its next start, or with: sk-module update -m {name}"),
            }
        })
        .collect()
}

/// `sk-cluster create`.
pub fn create(roots: &Roots, nodes: &[String]) -> Result<u8, Failure> {
    if roots.cluster_xml().exists() {
        return Err(Failure::new(exit::REFUSED, format!("{} exists already", roots.cluster_xml().display()))
            .hint("edit it and apply it with: sk-cluster config; or take it away with: sk-cluster deconfig"));
    }
    let text = cluster_text(nodes)?;
    parse("the cluster", &text)?;
    ensure_key(roots)?;
    let words = apply(roots, &Bundle { cluster_xml: text, ..Bundle::default() })?;
    for line in words {
        put(&line)?;
    }
    daemon::up(roots)?;
    put(&format!("{} is written; bring it to each other node:", roots.cluster_xml().display()))?;
    put("  sk-cluster export | ssh OTHER sk-cluster import")?;
    Ok(0)
}

fn cluster_text(nodes: &[String]) -> Result<String, Failure> {
    let mut names = BTreeSet::new();
    let mut lines = String::new();
    for (number, word) in nodes.iter().enumerate() {
        let (name, address) = match word.split_once('=') {
            Some((name, address)) => (name.to_owned(), address),
            None => (format!("node{}", number + 1), word.as_str()),
        };
        let plain =
            |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-:[]".contains(&b));
        if !plain(&name) || !plain(address) || !names.insert(name.clone()) {
            return Err(Failure::new(exit::USAGE, format!("{word:?} is no node"))
                .hint("write NAME=ADDRESS, each name once: node1=10.0.0.1"));
        }
        let bare_v6 = address.parse::<std::net::Ipv6Addr>().is_ok();
        let address = if bare_v6 { format!("[{address}]") } else { address.to_owned() };
        lines += &format!("      <node name=\"{name}\" addr=\"{address}\"/>\n");
    }
    Ok(format!(
        "<cluster>\n  <lans port=\"{PORT}\">\n    <lan name=\"default\" command=\"on\">\n{lines}    </lan>\n  </lans>\n</cluster>\n"
    ))
}

fn ensure_key(roots: &Roots) -> Result<(), Failure> {
    let path = roots.cluster_key();
    let failed = |e: wire::key::KeyError| Failure::new(exit::REFUSED, e.to_string());
    if path.exists() {
        return KeyRing::load(&path).map(|_| ()).map_err(failed);
    }
    std::fs::create_dir_all(&roots.etc).map_err(|e| Failure::system(roots.etc.display(), e))?;
    ClusterKey::generate().and_then(|key| key.save(&path)).map_err(failed)?;
    put(&format!("{} is written", path.display()))
}

/// `sk-cluster config`.
pub fn config(roots: &Roots, file: Option<&Path>, lock: Option<&str>) -> Result<u8, Failure> {
    if lock == Some("unlock") {
        let lock = roots.cluster_lock();
        sys::files::remove(&lock).map_err(|e| Failure::system(lock.display(), e))?;
    }
    let present = read(roots)?;
    let text = match file {
        Some(file) => {
            if file.extension().is_some_and(|e| e.eq_ignore_ascii_case("zip")) {
                return Err(Failure::new(exit::USAGE, "a zip of the former console holds keys of another kind")
                    .hint("take cluster.xml out of it and name that; the key is made here"));
            }
            let bytes = sys::files::read_bounded(file, LIMIT).map_err(|e| Failure::system(file.display(), e))?;
            String::from_utf8(bytes)
                .map_err(|_| Failure::new(exit::REFUSED, format!("{} is not UTF-8", file.display())))?
        }
        None => need(roots)?.cluster_xml,
    };
    parse(&file.unwrap_or(&roots.cluster_xml()).display().to_string(), &text)?;
    ensure_key(roots)?;
    let operators = present.map(|b| b.operators).unwrap_or_default();
    let mut words = apply(roots, &Bundle { cluster_xml: text, operators, key: None })?;
    if file.is_none() {
        // Names may have other addresses now.
        words.extend(update_modules(roots));
    }
    for line in words {
        put(&line)?;
    }
    if lock == Some("lock") {
        sys::files::write_durably(&roots.cluster_lock(), b"", 0o644)
            .map_err(|e| Failure::system(roots.cluster_lock().display(), e))?;
        put("later changes are refused until: sk-cluster config unlock")?;
    }
    daemon::up(roots)?;
    put("bring it to the other nodes with: sk-cluster push")?;
    Ok(0)
}

/// `sk-cluster confcheck`.
pub fn confcheck(roots: &Roots, file: Option<&Path>, json: bool) -> Result<u8, Failure> {
    let path = file.map_or_else(|| roots.cluster_xml(), Path::to_owned);
    let (cluster, found) = config::load_cluster(&path);
    if json {
        let lines = found.json_lines();
        if !lines.is_empty() {
            put(lines.trim_end())?;
        }
        return Ok(if cluster.is_some() { 0 } else { exit::REFUSED });
    }
    let text = found.plain();
    if !text.is_empty() {
        sys::warn!("{}", text.trim_end());
    }
    match cluster {
        Some(cluster) => {
            put(&format!("{}: no errors; nodes {}", path.display(), cluster.nodes().join(", "))).map(|()| 0)
        }
        None => Ok(exit::REFUSED),
    }
}

/// `sk-cluster deconfig`.
pub fn deconfig(roots: &Roots) -> Result<u8, Failure> {
    let is_running = |name: &String| std::os::unix::net::UnixStream::connect(roots.control_socket(name)).is_ok();
    if let Some(name) = sys::modules::known(roots).into_iter().find(is_running) {
        return Err(Failure::new(exit::REFUSED, format!("module {name} has a runner on this node"))
            .hint(format!("sk-module stop --wait -m {name}; sk-module deconfig -m {name}")));
    }
    if roots.cluster_lock().exists() {
        return Err(
            Failure::new(exit::REFUSED, "the configuration of the cluster is locked").hint("sk-cluster config unlock")
        );
    }
    for path in [roots.cluster_xml(), roots.operators(), roots.cluster_key()] {
        match std::fs::remove_file(&path) {
            Ok(()) => put(&format!("{} is removed", path.display()))?,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
            Err(e) => return Err(Failure::system(path.display(), e)),
        }
    }
    Ok(0)
}

/// `sk-cluster push`.
pub fn push(hosts: &Hosts, to: Option<&str>) -> Result<u8, Failure> {
    let bundle = need(hosts.roots)?;
    parse(&hosts.roots.cluster_xml().display().to_string(), &bundle.cluster_xml)?;
    send(hosts, to, &bundle)
}

/// Brings a bundle to other nodes.
pub fn send(hosts: &Hosts, to: Option<&str>, bundle: &Bundle) -> Result<u8, Failure> {
    let targets = hosts.named(to)?;
    let payload = serde_json::to_vec(bundle).map_err(|e| Failure::system("the configuration", e))?;
    let question = Ask::Cluster { origin: sys::commands::who() };
    let outcomes = nodes::ask_quietly(&targets, &hosts.psk()?, &question, &payload);
    nodes::print(&targets, &outcomes)
}

/// `sk-cluster export`.
pub fn export(roots: &Roots) -> Result<u8, Failure> {
    if std::io::stdout().is_terminal() {
        return Err(Failure::new(
            exit::USAGE,
            "this prints the secret key of the cluster; it is not shown on a terminal",
        )
        .hint("sk-cluster export | ssh OTHER sk-cluster import"));
    }
    let mut bundle = need(roots)?;
    let ring = KeyRing::load(&roots.cluster_key()).map_err(|e| Failure::new(exit::REFUSED, e.to_string()))?;
    bundle.key = Some(ring.to_text());
    let text = serde_json::to_string(&bundle).map_err(|e| Failure::system("the configuration", e))?;
    put(&text).map(|()| 0)
}

/// `sk-cluster import`.
pub fn import(roots: &Roots, replace_key: bool) -> Result<u8, Failure> {
    if std::io::stdin().is_terminal() {
        return Err(Failure::new(exit::USAGE, "import reads what export printed from stdin")
            .hint("ssh OTHER sk-cluster export | sk-cluster import"));
    }
    let mut text = Vec::new();
    std::io::stdin().take(LIMIT * 2).read_to_end(&mut text).map_err(|e| Failure::system("stdin", e))?;
    let strange =
        || Failure::new(exit::REFUSED, "stdin does not hold what `sk-cluster export` prints; nothing was applied");
    let bundle: Bundle = serde_json::from_slice(&text).map_err(|_| strange())?;
    let ring = bundle.key.as_ref().and_then(|k| KeyRing::parse(k.as_bytes())).ok_or_else(strange)?;
    let path = roots.cluster_key();
    let own = match KeyRing::load(&path) {
        Ok(own) => Some(own),
        Err(wire::key::KeyError::Missing(_)) => None,
        Err(_) if replace_key => None,
        Err(e) => return Err(Failure::new(exit::REFUSED, e.to_string())),
    };
    if own.as_ref().is_some_and(|own| own.used() != ring.used()) && !replace_key {
        return Err(Failure::new(exit::REFUSED, "this node has the key of another cluster; nothing was applied")
            .hint("to make it a node of this one: sk-cluster import --replace-key"));
    }
    parse("cluster.xml", &bundle.cluster_xml)?;
    std::fs::create_dir_all(&roots.etc).map_err(|e| Failure::system(roots.etc.display(), e))?;
    // The configuration first: it may be refused, and the key then stays as it is.
    let words = apply(roots, &bundle)?;
    if own != Some(ring.clone()) {
        sys::files::write_durably(&path, ring.to_text().as_bytes(), 0o600)
            .map_err(|e| Failure::system(path.display(), e))?;
        put(&format!("{} is written", path.display()))?;
    }
    for line in words {
        put(&line)?;
    }
    daemon::up(roots)?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roots(dir: &Path) -> Roots {
        Roots { etc: dir.join("etc"), var: dir.join("var"), run: dir.join("run"), safe: dir.join("safe") }
    }

    fn text(second: &str) -> String {
        cluster_text(&["node1=127.0.0.1".to_owned(), second.to_owned()]).unwrap()
    }

    #[test]
    fn nodes_make_a_cluster_that_can_be_read() {
        let made = cluster_text(&["10.0.0.1".into(), "b=fd00::2".into(), "c=db.example.com".into()]).unwrap();
        let cluster = parse("x", &made).unwrap();
        assert_eq!(cluster.nodes(), ["node1", "b", "c"]);
        assert_eq!(cluster.command_lan().unwrap().nodes[1].address, "fd00::2");
        for bad in ["a=\"/>", "=10.0.0.1", "a=", "node1=10.0.0.9"] {
            assert!(cluster_text(&["10.0.0.1".into(), bad.into()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_bundle_is_applied_as_a_whole_or_not_at_all() {
        let dir = tempfile::tempdir().unwrap();
        let roots = roots(dir.path());
        let good = Bundle { cluster_xml: text("node2=192.0.2.2"), ..Bundle::default() };
        apply(&roots, &good).unwrap();
        assert_eq!(read(&roots).unwrap().as_ref(), Some(&good));
        assert_eq!(stamp(&roots).unwrap().signature, good.signature());
        let bad = [
            Bundle { cluster_xml: "<cluster>".into(), ..good.clone() },
            // No address of this host.
            Bundle {
                cluster_xml: cluster_text(&["203.0.113.1".into(), "203.0.113.2".into()]).unwrap(),
                ..good.clone()
            },
            Bundle { cluster_xml: text("node2=192.0.2.3"), operators: "x king 0".into(), key: None },
        ];
        for bundle in bad {
            assert!(apply(&roots, &bundle).is_err());
            assert_eq!(read(&roots).unwrap().as_ref(), Some(&good));
        }
        std::fs::write(roots.cluster_lock(), "").unwrap();
        // What is there already needs no change.
        apply(&roots, &good).unwrap();
        assert!(
            apply(&roots, &Bundle { cluster_xml: text("node2=192.0.2.3"), ..good.clone() })
                .unwrap_err()
                .message
                .contains("locked")
        );
    }

    #[test]
    fn a_signature_tells_configurations_apart() {
        let a = Bundle { cluster_xml: "ab".into(), operators: "c".into(), key: None };
        let b = Bundle { cluster_xml: "a".into(), operators: "bc".into(), key: None };
        assert_ne!(a.signature(), b.signature());
        assert_eq!(a.signature(), Bundle { key: Some("k".into()), ..a.clone() }.signature());
    }
}
