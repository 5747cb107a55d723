//! What does `userconfig.xml` say as a whole?

use crate::diagnostic::{Diagnostics, Source, quoted};
use crate::farm::Farm;
use crate::fields::{Fields, only, unknown_child};
use crate::macros::{Environment, Macros};
use crate::model::{Heart, Mode, Module, Rfs};
use crate::tree::{self, Node};
use crate::{check, failover, farm, rfs, service, vhost, vip};

/// Elements that belong to modules of other kinds.
const ELSEWHERE: [&str; 4] = ["heart", "rfs", "farm", "vip"];

/// What a module of this kind may hold.
fn children(mode: &str) -> &'static [&'static str] {
    match mode {
        "farm" => &["farm", "vip", "user", "vhost", "errd", "check", "failover"],
        "light" => &["user", "vhost", "errd", "check", "failover"],
        _ => &["heart", "rfs", "vip", "user", "vhost", "errd", "check", "failover"],
    }
}

/// Reads a module. `environment` gives the variables that `%X%` falls back to. `None` exactly when an error was found.
pub fn parse_module(file_name: &str, text: &str, environment: &Environment<'_>) -> (Option<Module>, Diagnostics) {
    let source = Source::new(file_name, text);
    let mut found = Diagnostics::new(source.clone());
    let module = tree::parse(text, &mut found)
        .and_then(|roots| document(roots, environment, &mut found))
        .and_then(|safe| read(&safe, source, &mut found));
    found.sort();
    let module = module.filter(|_| !found.has_errors());
    (module, found)
}

/// The `<safe>` element with macros expanded.
fn document(mut roots: Vec<Node>, environment: &Environment<'_>, found: &mut Diagnostics) -> Option<Node> {
    let mut macros = Macros::new(environment);
    let Some(at) = roots.iter().position(|r| r.name != "macro") else {
        for root in &roots {
            found.error(root.span, "<macro> outside of <safe>, and no <safe>", "begin with <safe>");
        }
        return None;
    };
    for root in &mut roots {
        macros.expand(root, found);
    }
    for outside in roots.iter().take(at) {
        let help = "move it behind <safe>";
        found.warning(outside.span, "<macro> stands outside of <safe>", help);
    }
    for extra in roots.iter().skip(at + 1) {
        let message = format!("<{}> stands after the end of the document", extra.name);
        found.error(extra.span, message, "a file holds one <safe> element");
    }
    let root = roots.into_iter().nth(at)?;
    if root.name != "safe" {
        let message = format!("<{}> stands where <safe> is expected", root.name);
        found.error(root.span, message, "a module is <safe><service mode=\"mirror\">…</service></safe>");
        return None;
    }
    Some(root)
}

fn read(safe: &Node, source: Source, found: &mut Diagnostics) -> Option<Module> {
    Fields::new(safe).finish(found);
    for child in &safe.children {
        if child.name != "macro" && child.name != "service" {
            unknown_child(safe, child, &["macro", "service"], found);
        }
    }
    let Some(element) = only(safe, "service", found) else {
        found.error(safe.span, "<safe> holds no <service>", "add <service mode=\"mirror\">…</service>");
        return None;
    };
    let mut f = Fields::new(element);
    let (mode, span) = f.mandatory("mode", found)?;
    if !["mirror", "farm", "light"].contains(&mode) {
        let message = format!("invalid value {} for the attribute mode", quoted(mode));
        found.error(span, message, "write one of: mirror, farm, light");
        // What another kind of module may hold is not judged by the rules of a mirror.
        return None;
    }
    let service = service::service(f, mode, found);
    let known = children(mode);
    for child in &element.children {
        let name = child.name.as_str();
        if name == "macro" {
            found.error(child.span, "<macro> inside <service>", "move it before <service>");
        } else if known.contains(&name) {
        } else if ELSEWHERE.contains(&name) {
            let message = format!("<{name}> in a module with mode=\"{mode}\"");
            found.error(child.span, message, format!("remove it: {}", why(mode, name)));
        } else {
            unknown_child(element, child, known, found);
        }
    }
    let vip = only(element, "vip", found).filter(|_| mode != "light").map(|e| {
        let kind = if mode == "farm" { vip::Kind::Farm } else { vip::Kind::Mirror };
        vip::read(e, kind, found)
    });
    let user = only(element, "user", found).map(|e| service::user(e, found));
    let errd_element = only(element, "errd", found);
    let errd = errd_element.map(|e| service::errd(e, found));
    if let (Some(errd), None) = (errd_element, &user) {
        let help = "add <user/>: without it no script is called, and nothing could be restarted";
        found.error(errd.span, "<errd> without <user>", help);
    }
    let read = match mode {
        "light" => Some((Mode::Light, None)),
        "farm" => farm(element, found).map(|farm| (Mode::Farm(farm), None)),
        _ => mirror(element, found).map(|(heart, rfs)| (Mode::Mirror(heart), rfs)),
    };
    let heart = read.as_ref().and_then(|(mode, _)| match mode {
        Mode::Mirror(heart) => Some(heart),
        Mode::Farm(_) | Mode::Light => None,
    });
    let checks = check::read(element, mode == "mirror", found);
    let around = failover::Surroundings {
        mirror: mode == "mirror",
        checks: &checks,
        heartbeats: heart.iter().flat_map(|h| &h.heartbeats).map(|b| b.ident.as_str()).collect(),
        processes: errd.iter().flat_map(|e| &e.procs).map(|p| p.name.as_str()).collect(),
    };
    let failover = only(element, "failover", found).map(|e| failover::read(e, &around, found)).unwrap_or_default();
    let vhost = only(element, "vhost", found).map(|e| vhost::read(e, found)).unwrap_or_default();
    let (mode, rfs) = read?;
    Some(Module { mode, service, vip, rfs, user, errd, vhost, checks, failover, source })
}

fn farm(parent: &Node, found: &mut Diagnostics) -> Option<Farm> {
    let Some(element) = only(parent, "farm", found) else {
        let help = "add <farm><lan name=\"…\"/></farm> with a lan of cluster.xml";
        found.error(parent.span, "a farm needs <farm>", help);
        return None;
    };
    Some(farm::read(element, found))
}

fn mirror(parent: &Node, found: &mut Diagnostics) -> Option<(Heart, Option<Rfs>)> {
    let heart = only(parent, "heart", found).map(|e| service::heart(e, found));
    let rfs = only(parent, "rfs", found).map(|e| rfs::read(e, found));
    let Some(heart) = heart else {
        let help = "add <heart><heartbeat name=\"…\"/></heart> with a lan of cluster.xml";
        found.error(parent.span, "a mirror needs <heart>", help);
        return None;
    };
    check_flow(&heart, rfs.as_ref(), found);
    Some((heart, rfs))
}

/// Why an element has no place in a module of this kind.
fn why(mode: &str, element: &str) -> &'static str {
    match (mode, element) {
        (_, "rfs") => "files are replicated in mirrors only",
        ("light", "vip") => "a light module has no virtual address",
        ("light", _) => "a light module knows of no other node",
        (_, "heart") => "the nodes of a farm know of each other by <farm>",
        _ => "the nodes of a mirror know of each other by <heart>",
    }
}

/// The replication network is named once.
fn check_flow(heart: &Heart, rfs: Option<&Rfs>, found: &mut Diagnostics) {
    let Some(flow) = heart.heartbeats.iter().find(|h| h.ident == "flow") else { return };
    match rfs {
        None => {
            let help = "the ident 'flow' marks the replication network; choose another ident";
            found.error(flow.at.0, "ident=\"flow\" without <rfs>", help);
        }
        Some(rfs) => {
            if let Some(other) = rfs.flow.as_ref().filter(|f| f.network != flow.network) {
                let help = "remove <flow>: the heartbeat with ident=\"flow\" already names the network";
                found.error(other.at.0, "<flow> and the heartbeat 'flow' name different networks", help);
            }
        }
    }
}
