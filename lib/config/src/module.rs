//! What does `userconfig.xml` say as a whole?

use crate::diagnostic::{Diagnostics, Source, quoted};
use crate::fields::{Fields, only, unknown_child};
use crate::macros::{Environment, Macros};
use crate::model::Module;
use crate::tree::{self, Node};
use crate::{rfs, service, vip};

const CHILDREN: [&str; 5] = ["heart", "rfs", "vip", "user", "errd"];
/// Elements that real modules have and this version does not run.
const LATER: [(&str, &str); 4] = [
    ("check", "checkers"),
    ("failover", "rules of the failover machine"),
    ("farm", "farm modules"),
    ("vhost", "virtual host names"),
];

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
    if mode != "mirror" {
        if mode == "farm" || mode == "light" {
            let message = format!("mode=\"{mode}\" is not supported yet");
            found.error(span, message, "only mirror modules can be run");
        } else {
            let message = format!("invalid value {} for the attribute mode", quoted(mode));
            found.error(span, message, "write mode=\"mirror\"");
        }
        // What another kind of module may hold is not judged by the rules of a mirror.
        return None;
    }
    let service = service::service(f, found);
    for child in &element.children {
        let name = child.name.as_str();
        if let Some((_, what)) = LATER.iter().find(|(later, _)| *later == name) {
            let message = format!("<{name}> is not supported yet");
            let help = format!("{what} are not run by this version; remove the element if the module can do without");
            found.error(child.span, message, help);
        } else if name == "macro" {
            found.error(child.span, "<macro> inside <service>", "move it before <service>");
        } else if !CHILDREN.contains(&name) {
            unknown_child(element, child, &CHILDREN, found);
        }
    }
    let heart = only(element, "heart", found).map(|e| service::heart(e, found));
    let vip = only(element, "vip", found).map(|e| vip::read(e, found));
    let rfs_element = only(element, "rfs", found);
    let rfs = rfs_element.map(|e| rfs::read(e, found));
    let user = only(element, "user", found).map(|e| service::user(e, found));
    let errd_element = only(element, "errd", found);
    let errd = errd_element.map(|e| service::errd(e, found));
    let Some(heart) = heart else {
        let help = "add <heart><heartbeat name=\"…\"/></heart> with a lan of cluster.xml";
        found.error(element.span, "a mirror needs <heart>", help);
        return None;
    };
    if let (Some(errd), None) = (errd_element, &user) {
        let help = "add <user/>: without it no script is called, and nothing could be restarted";
        found.error(errd.span, "<errd> without <user>", help);
    }
    let flow = heart.heartbeats.iter().find(|h| h.ident == "flow");
    if let Some(flow) = flow {
        match &rfs {
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
    Some(Module { service, heart, vip, rfs, user, errd, source })
}
