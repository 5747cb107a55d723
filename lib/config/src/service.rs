//! What do `<service>`, `<heart>`, `<user>` and `<errd>` say?

use crate::cluster::host;
use crate::diagnostic::{At, Diagnostics, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, suggestion, unknown_child};
use crate::macros::is_name;
use crate::model::{Boot, DefaultPrim, Errd, Heart, Heartbeat, Network, Proc, ProcAction, Service, User, Var};
use crate::rfs::check_regex;
use crate::tree::Node;
use std::collections::BTreeSet;
use std::time::Duration;

/// The kernel keeps this many bytes of a command's name.
const COMM: usize = 15;
/// Classes that the module itself switches on and off.
const CLASSES: [&str; 5] = ["prim", "both", "pre", "second", "sec"];
/// Actions of other parts of the product, easily taken for one of `<proc>`.
const OTHER_ACTIONS: [&str; 6] = ["wait", "swap", "start", "prim", "second", "reboot"];
/// Set by the module for its scripts.
const RESERVED: [&str; 7] = ["SAFE", "SAFEVAR", "SAFEBIN", "SAFEMODULE", "SAFEUSERBIN", "SAFEUSERCONF", "SAFEUSERVAR"];

/// The attributes of `<service>`, without `mode`, which is read before.
pub(crate) fn service(mut f: Fields<'_>, mode: &str, found: &mut Diagnostics) -> Service {
    if mode != "mirror" {
        for name in ["failover", "defaultprim"] {
            f.without_effect(name, "it is for mirrors", found);
        }
    }
    let boots = [("on", Boot::On), ("off", Boot::Off), ("auto", Boot::Auto), ("ignore", Boot::Ignore)];
    let default_prim = match f.string("defaultprim", found).as_deref() {
        None | Some("alone") => DefaultPrim::Alone,
        Some("lastprim") => DefaultPrim::LastPrim,
        Some(node) if mode == "mirror" => DefaultPrim::Node(node.to_owned()),
        Some(_) => DefaultPrim::Alone,
    };
    let service = Service {
        boot: f.choice("boot", &boots, found).unwrap_or(Boot::Ignore),
        boot_delay: f.duration("boot_delay", Unit::Seconds, found).unwrap_or_default(),
        failover: f.on_off("failover", found).unwrap_or(true),
        default_prim,
        max_loop: f.integer("maxloop", 0, 1_000_000, found).and_then(|n| u32::try_from(n).ok()).unwrap_or(3),
        loop_interval: f.duration("loop_interval", Unit::Hours, found).unwrap_or(Duration::from_hours(24)),
        automatic_reboot: f.on_off("automatic_reboot", found).unwrap_or(false),
        default_prim_at: f.place("defaultprim"),
    };
    f.finish(found);
    service
}

pub(crate) fn heart(element: &Node, found: &mut Diagnostics) -> Heart {
    let mut f = Fields::new(element);
    let port = f.port("port", found);
    let pulse = f.period("pulse", Unit::Milliseconds, found).unwrap_or(Duration::from_millis(700));
    let timeout = f.period("timeout", Unit::Milliseconds, found).unwrap_or(Duration::from_secs(30));
    if f.on_off("permanent_arp", found) == Some(true) {
        let help = "ARP entries of the peer are left to the kernel; it can be removed";
        found.warning(f.place("permanent_arp").0, "permanent_arp=\"on\" has no effect here", help);
    }
    f.finish(found);
    let mut heart = Heart { port, pulse, timeout, heartbeats: Vec::new() };
    let mut any = false;
    let mut old_form = 0;
    for child in &element.children {
        if child.name != "heartbeat" {
            unknown_child(element, child, &["heartbeat"], found);
            continue;
        }
        any = true;
        old_form += usize::from(child.children.iter().any(|c| c.name == "server"));
        let Some(beat) = heartbeat(child, &heart, found) else {
            continue;
        };
        for other in &heart.heartbeats {
            if other.ident == beat.ident {
                let message = format!("two heartbeats have the ident {}", quoted(&beat.ident));
                found.error(beat.at.0, message, "give each its own ident=\"…\"");
            }
            if other.network == beat.network {
                found.error(beat.at.0, "two heartbeats use the same network", "remove one of them");
            }
        }
        heart.heartbeats.push(beat);
    }
    if !any {
        let help = "add <heartbeat name=\"…\"/> with a lan of cluster.xml";
        found.error(element.span, "<heart> holds no <heartbeat>", help);
    }
    if old_form > 0 && old_form < element.children.iter().filter(|c| c.name == "heartbeat").count() {
        let help = "use the lans of cluster.xml for all of them";
        found.error(element.span, "heartbeats with <server> are mixed with heartbeats without", help);
    }
    heart
}

fn heartbeat(element: &Node, heart: &Heart, found: &mut Diagnostics) -> Option<Heartbeat> {
    let mut f = Fields::new(element);
    let addresses = servers(element, found);
    let old_form = element.children.iter().any(|c| c.name == "server");
    let name = if old_form { f.text("name", found) } else { f.mandatory("name", found) };
    let ident = f.text("ident", found);
    let pulse = f.period("pulse", Unit::Milliseconds, found).unwrap_or(heart.pulse);
    let timeout = f.period("timeout", Unit::Milliseconds, found).unwrap_or(heart.timeout);
    let at = if element.attributes.iter().any(|a| a.name == "timeout") { f.place("timeout").0 } else { element.span };
    f.finish(found);
    if timeout <= pulse {
        let message = format!("timeout {}ms is not longer than pulse {}ms", timeout.as_millis(), pulse.as_millis());
        found.error(at, message, "a timeout should span several pulses");
    } else if timeout < pulse * 2 {
        let message =
            format!("timeout {}ms spans less than two pulses of {}ms", timeout.as_millis(), pulse.as_millis());
        found.warning(at, message, "one lost packet counts as a lost link; use a shorter pulse");
    }
    let network = if old_form {
        if addresses.is_empty() {
            return None;
        }
        Network::Addresses(addresses)
    } else {
        Network::Lan(name?.0.to_owned())
    };
    let (ident, span) = match (ident, name, &network) {
        (Some(i), ..) | (None, Some(i), _) => (i.0.to_owned(), i.1),
        (None, None, Network::Addresses(a)) => (a.first()?.clone(), element.span),
        (None, None, Network::Lan(lan)) => (lan.clone(), element.span),
    };
    if ident.contains(|c: char| c.is_whitespace() || c.is_control()) || ident.len() > 64 {
        let message = format!("{} cannot be the ident of a heartbeat", quoted(&ident));
        found.error(span, message, "use at most 64 characters without blanks");
    }
    Some(Heartbeat { network, ident, pulse, timeout, at: At(name.map_or(element.span, |n| n.1)) })
}

/// The addresses of `<server addr=…/>`, the form of old files.
pub(crate) fn servers(element: &Node, found: &mut Diagnostics) -> Vec<String> {
    let mut addresses: Vec<String> = Vec::new();
    for child in &element.children {
        if child.name != "server" {
            unknown_child(element, child, &["server"], found);
            continue;
        }
        no_children(child, found);
        let help = format!("name a lan of cluster.xml instead: <{} name=\"…\"/>", element.name);
        found.warning(child.span, "<server> is the form of old versions", help);
        let mut f = Fields::new(child);
        if let Some((text, span)) = f.mandatory("addr", found) {
            if let Some(address) = host(text) {
                addresses.push(address);
            } else {
                let message = format!("{} is neither an address nor a host name", quoted(text));
                found.error(span, message, "write an address of cluster.xml");
            }
        }
        f.finish(found);
    }
    addresses
}

pub(crate) fn user(element: &Node, found: &mut Diagnostics) -> User {
    let mut f = Fields::new(element);
    let five_minutes = Duration::from_mins(5);
    let mut user = User {
        nice_stop_timeout: f.period("nicestoptimeout", Unit::Seconds, found).unwrap_or(five_minutes),
        force_stop_timeout: f.period("forcestoptimeout", Unit::Seconds, found).unwrap_or(five_minutes),
        logging: f.choice("logging", &[("userlog", true), ("none", false)], found).unwrap_or(true),
        userlog_size_kb: f
            .integer("userlogsize", 1, 1 << 30, found)
            .and_then(|n| u64::try_from(n).ok())
            .unwrap_or(2048),
        vars: Vec::new(),
    };
    f.finish(found);
    for child in &element.children {
        if child.name != "var" {
            unknown_child(element, child, &["var"], found);
            continue;
        }
        no_children(child, found);
        let mut f = Fields::new(child);
        let name = f.mandatory("name", found);
        // An empty variable is a value like another.
        let value = f.raw("value");
        if value.is_none() {
            found.error(child.span, "<var> has no attribute 'value'", "add value=\"…\", which may be empty");
        }
        f.finish(found);
        let (Some((name, span)), Some(value)) = (name, value) else {
            continue;
        };
        if !is_name(name) {
            let message = format!("{} is not the name of a variable", quoted(name));
            found.error(span, message, "use letters, digits and '_', not beginning with a digit");
        } else if RESERVED.contains(&name) {
            let message = format!("variable {name} is set by the module itself");
            found.error(span, message, "choose another name");
        } else if user.vars.iter().any(|v| v.name == name) {
            let message = format!("variable {name} stands twice");
            found.error(span, message, "keep one of them");
        }
        user.vars.push(Var { name: name.to_owned(), value: value.value.clone() });
    }
    user
}

pub(crate) fn errd(element: &Node, found: &mut Diagnostics) -> Errd {
    let mut f = Fields::new(element);
    let poll = f.period("polltimer", Unit::Seconds, found).unwrap_or(Duration::from_secs(30));
    f.finish(found);
    let mut processes = Vec::new();
    let mut names = BTreeSet::new();
    for child in &element.children {
        if child.name != "proc" {
            unknown_child(element, child, &["proc"], found);
            continue;
        }
        if let Some(process) = process(child, found) {
            if !names.insert(process.name.clone()) {
                let message = format!("two <proc> have the name {}", quoted(&process.name));
                let help = "give each its own name, and the command's name in nameregex";
                found.error(child.span, message, help);
            }
            processes.push(process);
        }
    }
    Errd { poll_timer: poll, procs: processes }
}

fn process(element: &Node, found: &mut Diagnostics) -> Option<Proc> {
    no_children(element, found);
    let mut f = Fields::new(element);
    let name = f.mandatory("name", found);
    let service = f.choice("service", &[("yes", true), ("no", false)], found).unwrap_or(false);
    let restart_services = f.text("restart_services", found);
    let name_regex = f.text("nameregex", found);
    let arg_regex = f.text("argregex", found);
    for (text, span) in [name_regex, arg_regex].into_iter().flatten() {
        check_regex(text, span, found);
    }
    let explicit = element.attributes.iter().any(|a| a.name == "atleast");
    let at_least = f.integer("atleast", -1, 1_000_000, found).unwrap_or(1);
    let at_max = f.integer("atmax", -1, 1_000_000, found).unwrap_or(-1);
    let action = f.text("action", found);
    let class = f.mandatory("class", found);
    let start_after = f.integer("start_after", 0, 1_000_000, found).unwrap_or(0);
    f.finish(found);

    if at_max >= 0 && at_least > at_max {
        let message = format!("at least {at_least} and at most {at_max} processes cannot both hold");
        let help = if explicit {
            "raise atmax, or lower atleast"
        } else {
            "add atleast=\"-1\": without it at least 1 process is demanded"
        };
        found.error(element.span, message, help);
    } else if at_least <= 0 && at_max < 0 {
        let help = "give atleast from 1, or atmax from 0";
        found.warning(element.span, "this <proc> can never act: no number of processes is wrong", help);
    }
    let class = class.map(|(text, span)| {
        if text.contains(|c: char| c.is_whitespace() || c.is_control()) || text.len() > 64 {
            let message = format!("{} cannot be a class", quoted(text));
            found.error(span, message, "use at most 64 characters without blanks");
        }
        text
    });
    let action = process_action(action, class, found);
    let restart_services = services(restart_services, service, &action, found);
    if service {
        for (regex, attribute) in [(name_regex, "nameregex"), (arg_regex, "argregex")] {
            if let Some((_, span)) = regex {
                let message = format!("{attribute} with service=\"yes\"");
                found.error(span, message, "a service is found by its name alone; remove the expression");
            }
        }
    }
    let (name, span) = name?;
    if service && !name.chars().all(|c| c.is_ascii_alphanumeric() || ":_.\\@-".contains(c)) {
        found.error(
            span,
            format!("{} is not the name of a systemd unit", quoted(name)),
            "write for instance postgresql or postgresql@15-main.service",
        );
    }
    if !service && name_regex.is_none() && name.len() > COMM {
        let message = format!("{} is longer than the {COMM} bytes the kernel keeps of a command's name", quoted(name));
        let help = "shorten it to these bytes, or say which commands are meant with nameregex";
        found.error(span, message, help);
    }
    if name.len() > 63 || name.contains(|c: char| c.is_control() || c == '/') {
        let message = format!("{} is not the name of a command", quoted(name));
        found.error(span, message, "write the command's name without its directory");
    }
    Some(Proc {
        name: name.to_owned(),
        service,
        restart_services,
        name_regex: name_regex.map(|r| r.0.to_owned()),
        arg_regex: arg_regex.map(|r| r.0.to_owned()),
        at_least,
        at_max,
        action,
        class: class?.to_owned(),
        start_after: u32::try_from(start_after).unwrap_or(0),
    })
}

/// The names of `restart_services`.
fn services(
    given: Option<(&str, crate::diagnostic::Span)>,
    service: bool,
    action: &ProcAction,
    found: &mut Diagnostics,
) -> Vec<String> {
    let Some((text, span)) = given else { return Vec::new() };
    if !service || *action != ProcAction::Restart {
        let help = "it tells the scripts of action=\"restart\" which services to restart alone";
        found.error(span, "restart_services needs service=\"yes\" and action=\"restart\"", help);
    }
    let names: Vec<String> = text.split(',').map(|name| name.trim().to_owned()).collect();
    if names.iter().any(|name| name.is_empty() || name.len() > 255 || name.contains(char::is_control)) {
        found.error(span, format!("{} is not a list of services", quoted(text)), "separate the names by commas");
    }
    names
}

fn process_action(
    action: Option<(&str, crate::diagnostic::Span)>,
    class: Option<&str>,
    found: &mut Diagnostics,
) -> ProcAction {
    let known = ["restart", "stopstart", "stop", "noaction"];
    let Some((word, span)) = action else {
        return ProcAction::StopStart;
    };
    match word {
        "restart" => return ProcAction::Restart,
        "stopstart" => return ProcAction::StopStart,
        "stop" => return ProcAction::Stop,
        "noaction" => return ProcAction::NoAction,
        _ => {}
    }
    if OTHER_ACTIONS.contains(&word) {
        let message = format!("{} is not an action of <proc>", quoted(word));
        let help = "write restart, stopstart, stop, noaction or the path of an executable";
        found.error(span, message, help);
        return ProcAction::NoAction;
    }
    let near = suggestion(word, &known).map(|near| format!("did you mean '{near}'?"));
    if let Some(class) = class.filter(|c| CLASSES.contains(c)) {
        let message = format!("{} is taken for an executable, which cannot be used in class '{class}'", quoted(word));
        let own = "give it a class of its own, which the scripts switch with errd enable and errd disable";
        found.error(span, message, near.unwrap_or_else(|| own.to_owned()));
    } else if let Some(near) = near {
        found.warning(span, format!("{} is taken for an executable of the module", quoted(word)), near);
    }
    ProcAction::Handler(word.to_owned())
}
