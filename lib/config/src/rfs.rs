//! What does `<rfs>` say?

use crate::diagnostic::{At, Diagnostics, Span, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, unknown_child};
use crate::model::{Async, CpuLatency, Flow, Network, NotReplicated, Replicated, Rfs, Sync};
use crate::schedule::Schedule;
use crate::service::servers;
use crate::tree::Node;
use std::time::Duration;

/// Our own files: replicating them would make a node overwrite the identity of the other.
const OWN: [&str; 3] = ["/etc/sk", "/var/lib/sk", "/run/sk"];
/// File systems of the kernel.
const KERNEL: [&str; 3] = ["/proc", "/sys", "/dev"];

/// Memory a compiled expression may take, in bytes; the same limit as where expressions are used.
const REGEX_LIMIT: usize = 1 << 20;

const WITHOUT_EFFECT: [(&str, &str); 17] = [
    ("mountover", "it belongs to earlier versions"),
    ("mountoversuffix", "the directory is not renamed, replication is mounted over it"),
    ("packetsize", "there is no NFS mount"),
    ("reipacketsize", "block sizes are chosen by the replication itself"),
    ("ruzone_blocksize", "block sizes are chosen by the replication itself"),
    ("iotimeout", "it is for Windows"),
    ("roflags", "it is for Windows"),
    ("allocthreshold", "it is for Windows"),
    ("nfsbox_options", "it is for Windows"),
    ("locktimeout", "sendtimeout alone decides when the peer is lost"),
    ("nbrei", "resynchronisation goes through one ordered stream"),
    ("namespacepolicy", "resynchronisation always resumes and compares by blocks"),
    ("reitimeout", "sendtimeout alone decides when the peer is lost"),
    ("reicommit", "resynchronisation is made durable at its checkpoints"),
    ("nbremconn", "resynchronisation goes through one ordered stream"),
    ("checktime", "the replication process is watched directly"),
    ("checkintv", "the replication process is watched directly"),
];

pub(crate) fn read(element: &Node, found: &mut Diagnostics) -> Rfs {
    let mut f = Fields::new(element);
    let asynchronous = f.choice("async", &[("second", Async::Second), ("none", Async::None)], found);
    let sync = f.choice("sync", &[("fsync", Sync::Fsync), ("write", Sync::Write)], found);
    let cpu_latency = f.choice("cpulatency", &[("auto", CpuLatency::Auto), ("off", CpuLatency::Off)], found);
    // Access control lists are always replicated: both values are kept.
    f.on_off("acl", found);
    let send_timeout = f.period("sendtimeout", Unit::Seconds, found);
    let bandwidth = f.integer("reiallowedbw", 1, 1 << 40, found);
    let detail = f.on_off("reidetail", found);
    let scripts = f.on_off("scripts", found);
    // One minute and less say "off", as the original has it.
    let sync_delta = f.duration("syncdelta", Unit::Minutes, found).filter(|delta| *delta > Duration::from_mins(1));
    let sync_at = f.text("syncat", found).and_then(|(text, span)| schedule(text, span, found));
    for (name, why) in WITHOUT_EFFECT {
        f.without_effect(name, why, found);
    }
    f.finish(found);

    let mut rfs = Rfs {
        asynchronous: asynchronous.unwrap_or(Async::Second),
        sync: sync.unwrap_or(Sync::Fsync),
        cpu_latency: cpu_latency.unwrap_or(CpuLatency::Auto),
        send_timeout: send_timeout.unwrap_or(Duration::from_secs(30)),
        rei_allowed_bandwidth_kbs: bandwidth.and_then(|n| u64::try_from(n).ok()),
        rei_detail: detail == Some(true),
        sync_delta,
        sync_at,
        scripts: scripts == Some(true),
        flow: None,
        replicated: Vec::new(),
    };
    let mut places: Vec<Span> = Vec::new();
    let mut any = false;
    for child in &element.children {
        match child.name.as_str() {
            "replicated" => {
                any = true;
                if let Some((directory, span)) = replicated(child, found) {
                    overlap(&directory.dir, span, &rfs.replicated, found);
                    rfs.replicated.push(directory);
                    places.push(span);
                }
            }
            "flow" => {
                if rfs.flow.is_some() {
                    found.error(child.span, "<flow> stands twice in <rfs>", "keep one");
                }
                rfs.flow = flow(child, found);
            }
            _ => unknown_child(element, child, &["replicated", "flow"], found),
        }
    }
    if !any {
        let help = "add <replicated dir=\"…\" mode=\"read_only\"/>, or remove <rfs>";
        found.error(element.span, "<rfs> holds no <replicated>", help);
    }
    rfs
}

fn schedule(text: &str, span: Span, found: &mut Diagnostics) -> Option<Schedule> {
    Schedule::parse(text)
        .map_err(|reason| {
            let message = format!("{} is no date in the syntax of crontab(5): {reason}", quoted(text));
            let help = "write minute, hour, day of the month, month, day of the week; for instance 01 0 * * * (daily, at 00:01)";
            found.error(span, message, help);
        })
        .ok()
}

fn flow(element: &Node, found: &mut Diagnostics) -> Option<Flow> {
    let mut f = Fields::new(element);
    let name = f.text("name", found);
    f.finish(found);
    let addresses = servers(element, found);
    let network = match (name, addresses.is_empty()) {
        (_, false) => Network::Addresses(addresses),
        (Some((name, _)), true) => Network::Lan(name.to_owned()),
        (None, true) => {
            if !element.attributes.iter().any(|a| a.name == "name") && element.children.is_empty() {
                found.error(element.span, "<flow> has no attribute 'name'", "add name=\"…\", a lan of cluster.xml");
            }
            return None;
        }
    };
    Some(Flow { network, at: At(name.map_or(element.span, |n| n.1)) })
}

fn replicated(element: &Node, found: &mut Diagnostics) -> Option<(Replicated, Span)> {
    let mut f = Fields::new(element);
    let dir = f.mandatory("dir", found);
    let read_only = f.choice("mode", &[("read_only", true)], found).unwrap_or(false);
    f.finish(found);
    let mut to_check = Vec::new();
    let mut exclude = Vec::new();
    for child in &element.children {
        match child.name.as_str() {
            "tocheck" => {
                no_children(child, found);
                let mut f = Fields::new(child);
                if let Some((path, span)) = f.mandatory("path", found) {
                    to_check.extend(relative(path, span, found));
                }
                f.finish(found);
            }
            "notreplicated" => exclude.extend(exclusion(child, found)),
            _ => unknown_child(element, child, &["tocheck", "notreplicated"], found),
        }
    }
    for path in &to_check {
        let excluded = exclude.iter().any(|e| matches!(e, NotReplicated::Path(p) if within(path, p)));
        if excluded {
            let message = format!("{} must exist before replication starts, yet it is not replicated", quoted(path));
            found.error(element.span, message, "remove its <tocheck>, or its <notreplicated>");
        }
    }
    let (text, span) = dir?;
    let dir = absolute(text, span, found)?;
    let directory = Replicated { dir, read_only, to_check, not_replicated: exclude };
    Some((directory, span))
}

fn exclusion(element: &Node, found: &mut Diagnostics) -> Option<NotReplicated> {
    no_children(element, found);
    let mut f = Fields::new(element);
    let path = f.text("path", found);
    let regex = f.text("regexpath", found);
    f.finish(found);
    let given = |name| element.attributes.iter().any(|a| a.name == name);
    match (given("path"), given("regexpath")) {
        (true, true) => {
            let help = "write two <notreplicated> elements";
            found.error(element.span, "<notreplicated> has both 'path' and 'regexpath'", help);
        }
        (false, false) => {
            let help = "add path=\"…\" or regexpath=\"…\"";
            found.error(element.span, "<notreplicated> has neither 'path' nor 'regexpath'", help);
        }
        _ => {}
    }
    if let Some((path, span)) = path {
        return relative(path, span, found).map(NotReplicated::Path);
    }
    let (text, span) = regex?;
    let body = text.strip_prefix('!').unwrap_or(text);
    // As the replication does: names are bytes.
    let built = regex::bytes::RegexBuilder::new(body).unicode(false).size_limit(REGEX_LIMIT).build();
    regex_built(body, built.err(), span, found);
    Some(NotReplicated::Regex(text.to_owned()))
}

/// Reports an expression for text that cannot be compiled.
pub(crate) fn check_regex(text: &str, span: Span, found: &mut Diagnostics) {
    let built = regex::RegexBuilder::new(text).size_limit(REGEX_LIMIT).build();
    regex_built(text, built.err(), span, found);
}

fn regex_built(text: &str, error: Option<regex::Error>, span: Span, found: &mut Diagnostics) {
    if let Some(error) = error {
        let reason = error.to_string();
        let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
        let message = format!("{} is not a regular expression: {reason}", quoted(text));
        found.error(span, message, "write a POSIX extended regular expression, for instance .*\\.log$");
    }
}

fn within(path: &str, parent: &str) -> bool {
    path == parent || path.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

fn overlap(dir: &str, span: Span, others: &[Replicated], found: &mut Diagnostics) {
    for other in others {
        if within(dir, &other.dir) || within(&other.dir, dir) {
            let message = format!("{} and {} overlap", quoted(dir), quoted(&other.dir));
            found.error(span, message, "a directory is replicated once; remove the inner one");
        }
    }
}

/// Without doubled and final slashes.
fn absolute(text: &str, span: Span, found: &mut Diagnostics) -> Option<String> {
    if !text.starts_with('/') {
        let message = format!("{} is not an absolute path", quoted(text));
        found.error(span, message, "write the path from '/' on");
        return None;
    }
    let parts = parts(text, span, found)?;
    if parts.is_empty() {
        let help = "choose a directory in it: the root of a file system cannot be replicated";
        found.error(span, "the root directory cannot be replicated", help);
        return None;
    }
    let path = format!("/{}", parts.join("/"));
    for own in OWN {
        if within(own, &path) || within(&path, own) {
            let message = format!("{} holds files of this product ({own})", quoted(&path));
            found.error(span, message, "replicate the application's own directory only");
        }
    }
    for kernel in KERNEL {
        if within(&path, kernel) {
            let message = format!("{} belongs to the kernel", quoted(&path));
            found.error(span, message, "replicate the application's own directory only");
        }
    }
    Some(path)
}

fn relative(text: &str, span: Span, found: &mut Diagnostics) -> Option<String> {
    if text.starts_with('/') {
        let message = format!("{} must be relative to the replicated directory", quoted(text));
        found.error(span, message, "write the path without the directory in front");
        return None;
    }
    let parts = parts(text, span, found)?;
    if parts.is_empty() {
        found.error(span, "the path names the replicated directory itself", "name something inside it");
        return None;
    }
    Some(parts.join("/"))
}

fn parts<'t>(text: &'t str, span: Span, found: &mut Diagnostics) -> Option<Vec<&'t str>> {
    let parts: Vec<&str> = text.split('/').filter(|p| !p.is_empty() && *p != ".").collect();
    if parts.contains(&"..") {
        let message = format!("{} contains '..'", quoted(text));
        found.error(span, message, "write the path without it");
        return None;
    }
    if text.len() > 4000 || parts.iter().any(|p| p.len() > 255) {
        let message = format!("{} is too long for a path", quoted(text));
        found.error(span, message, "names have at most 255 bytes, paths 4000");
        return None;
    }
    Some(parts)
}
