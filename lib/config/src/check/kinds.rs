//! What does each kind of checker need?

use super::ident;
use super::model::{CheckAction, CustomCheck, IntfCheck, IpCheck, ModuleCheck, PingCheck, TcpCheck, When};
use crate::cluster::host;
use crate::diagnostic::{At, Diagnostics, Span, quoted};
use crate::duration::Unit;
use crate::fields::{Fields, no_children, only, unknown_child};
use crate::tree::Node;
use std::net::IpAddr;
use std::time::Duration;

const TEN_SECONDS: Duration = Duration::from_secs(10);
const FIVE_SECONDS: Duration = Duration::from_secs(5);
/// Where the health of modules is asked for, unless the file says another port.
const HEALTH_PORT: u16 = 9010;
const ACTIONS: [(&str, CheckAction); 5] = [
    ("wait", CheckAction::Wait),
    ("stop", CheckAction::Stop),
    ("stopstart", CheckAction::StopStart),
    ("restart", CheckAction::Restart),
    ("noaction", CheckAction::NoAction),
];

fn name<'a>(f: &mut Fields<'a>, found: &mut Diagnostics) -> Option<&'a str> {
    let (text, span) = f.mandatory("ident", found)?;
    ident(text, span, found);
    Some(text)
}

fn when(f: &mut Fields<'_>, default: Option<When>, mirror: bool, found: &mut Diagnostics) -> Option<When> {
    let all = [("pre", When::Pre), ("prim", When::Prim), ("second", When::Second), ("both", When::Both)];
    if default.is_none() && !f.node.attributes.iter().any(|a| a.name == "when") {
        let usual = if mirror { "prim" } else { "both" };
        let message = format!("<{}> has no attribute 'when'", f.node.name);
        let help = format!("add when=\"{usual}\" for the application, or when=\"pre\" for something outside of it");
        found.error(f.node.span, message, help);
    }
    let given = f.choice("when", &all, found);
    if let (false, Some(When::Prim | When::Second)) = (mirror, given) {
        let message = format!("when=\"{}\" in a module without primary", given.map_or("", When::as_str));
        found.error(f.place("when").0, message, "write when=\"both\", or when=\"pre\"");
    }
    given.or(default)
}

/// The only value that a fixed `when` may have.
fn fixed_when(f: &mut Fields<'_>, value: When, found: &mut Diagnostics) {
    if let Some((text, span)) = f.text("when", found)
        && text != value.as_str()
    {
        let message = format!("when={} in <{}>", quoted(text), f.node.name);
        found.error(span, message, format!("it is always \"{}\"; remove the attribute", value.as_str()));
    }
}

fn action(f: &mut Fields<'_>, default: CheckAction, when: Option<When>, found: &mut Diagnostics) -> CheckAction {
    let action = f.choice("action", &ACTIONS, found).unwrap_or(default);
    let place = f.place("action").0;
    match (action, when) {
        (CheckAction::Wait, Some(When::Prim | When::Second | When::Both)) => {
            let help = "write when=\"pre\": what is checked only while the application runs can never end the waiting";
            found.error(place, "action=\"wait\" needs when=\"pre\"", help);
        }
        (CheckAction::Restart | CheckAction::StopStart, Some(When::Pre)) => {
            let message = format!("action=\"{}\" with when=\"pre\"", action.as_str());
            let help =
                "what is checked before the application starts is not mended by it: action=\"wait\" is meant for that";
            found.warning(place, message, help);
        }
        _ => {}
    }
    action
}

/// The one `<to>`.
fn target<'a>(element: &'a Node, found: &mut Diagnostics) -> Option<Fields<'a>> {
    for child in &element.children {
        if child.name != "to" {
            unknown_child(element, child, &["to"], found);
        }
    }
    let to = only(element, "to", found)?;
    no_children(to, found);
    Some(Fields::new(to))
}

fn mandatory_target<'a>(element: &'a Node, form: &str, found: &mut Diagnostics) -> Option<Fields<'a>> {
    let to = target(element, found);
    if to.is_none() {
        found.error(element.span, format!("<{}> holds no <to>", element.name), format!("add <to {form}/>"));
    }
    to
}

fn address(given: Option<(&str, Span)>, found: &mut Diagnostics) -> Option<String> {
    let (text, span) = given?;
    let address = host(text);
    if address.is_none() {
        let message = format!("{} is neither an address nor a host name", quoted(text));
        found.error(span, message, "write an IPv4 or IPv6 address, or a host name");
    }
    address
}

/// An address itself: names mean nothing where an own address is looked for.
fn own_address(given: Option<(&str, Span)>, found: &mut Diagnostics) -> Option<String> {
    let span = given?.1;
    let text = address(given, found)?;
    let Ok(ip) = text.parse::<IpAddr>() else {
        found.error(span, format!("{} is no address", quoted(&text)), "write the IPv4 or IPv6 address of this node");
        return None;
    };
    Some(ip.to_string())
}

fn interval(f: &mut Fields<'_>, found: &mut Diagnostics) -> Duration {
    f.period("interval", Unit::Seconds, found).unwrap_or(TEN_SECONDS)
}

fn timeout(f: &mut Fields<'_>, found: &mut Diagnostics) -> Duration {
    f.period("timeout", Unit::Seconds, found).unwrap_or(FIVE_SECONDS)
}

pub(super) fn tcp(element: &Node, mirror: bool, found: &mut Diagnostics) -> Option<TcpCheck> {
    let mut f = Fields::new(element);
    let ident = name(&mut f, found);
    let when = when(&mut f, None, mirror, found);
    let action = action(&mut f, CheckAction::Restart, when, found);
    f.finish(found);
    let mut to = mandatory_target(element, "addr=\"…\" port=\"…\"", found)?;
    let host = address(to.mandatory("addr", found), found);
    if !to.node.attributes.iter().any(|a| a.name == "port") {
        found.error(to.node.span, "<to> has no attribute 'port'", "add port=\"…\"");
    }
    let port = to.port("port", found);
    let (interval, timeout) = (interval(&mut to, found), timeout(&mut to, found));
    to.finish(found);
    Some(TcpCheck { ident: ident?.to_owned(), when: when?, action, host: host?, port: port?, interval, timeout })
}

pub(super) fn ping(element: &Node, mirror: bool, found: &mut Diagnostics) -> Option<PingCheck> {
    let mut f = Fields::new(element);
    let ident = name(&mut f, found);
    let when = when(&mut f, Some(When::Pre), mirror, found);
    let action = action(&mut f, CheckAction::Wait, when, found);
    f.finish(found);
    let mut to = mandatory_target(element, "addr=\"…\"", found)?;
    let host = address(to.mandatory("addr", found), found);
    let (interval, timeout) = (interval(&mut to, found), timeout(&mut to, found));
    to.finish(found);
    Some(PingCheck { ident: ident?.to_owned(), when: when?, action, host: host?, interval, timeout })
}

pub(super) fn intf(element: &Node, found: &mut Diagnostics) -> Option<IntfCheck> {
    let mut f = Fields::new(element);
    let ident = name(&mut f, found);
    fixed_when(&mut f, When::Pre, found);
    f.finish(found);
    let mut to = mandatory_target(element, "local_addr=\"…\"", found)?;
    let local_addr = own_address(to.mandatory("local_addr", found), found);
    to.finish(found);
    Some(IntfCheck { ident: ident?.to_owned(), local_addr: local_addr? })
}

pub(super) fn ip(element: &Node, mirror: bool, found: &mut Diagnostics) -> Option<IpCheck> {
    let mut f = Fields::new(element);
    let ident = name(&mut f, found);
    let fixed = if mirror { When::Prim } else { When::Both };
    fixed_when(&mut f, fixed, found);
    f.finish(found);
    let mut to = mandatory_target(element, "addr=\"…\"", found)?;
    let addr = own_address(to.mandatory("addr", found), found);
    let interval = interval(&mut to, found);
    to.finish(found);
    Some(IpCheck { ident: ident?.to_owned(), when: fixed, addr: addr?, interval })
}

pub(super) fn module(element: &Node, found: &mut Diagnostics) -> Option<ModuleCheck> {
    let mut f = Fields::new(element);
    let other = f.mandatory("name", found);
    let given = f.text("ident", found);
    fixed_when(&mut f, When::Pre, found);
    f.finish(found);
    let mut check = ModuleCheck {
        ident: String::new(),
        name: String::new(),
        host: "127.0.0.1".to_owned(),
        port: HEALTH_PORT,
        interval: TEN_SECONDS,
        timeout: FIVE_SECONDS,
    };
    if let Some(mut to) = target(element, found) {
        if let Some(addr) = to.text("addr", found) {
            check.host = address(Some(addr), found)?;
        }
        check.port = to.port("port", found).unwrap_or(HEALTH_PORT);
        check.interval = interval(&mut to, found);
        check.timeout = timeout(&mut to, found);
        if to.on_off("secure", found) == Some(true) {
            let help = "the state of modules is served without encryption and without secrets; write secure=\"off\"";
            found.error(to.place("secure").0, "secure=\"on\" is not supported", help);
        }
        to.finish(found);
    }
    let (other, span) = other?;
    if !other.chars().all(|c| c.is_ascii_alphanumeric() || "_-.".contains(c)) || other.len() > 64 {
        let message = format!("{} is not the name of a module", quoted(other));
        found.error(span, message, "write the name given to sk-module -m");
    }
    other.clone_into(&mut check.name);
    check.ident = match given {
        Some((text, span)) => {
            ident(text, span, found);
            text.to_owned()
        }
        None => format!("{other}_{}", check.host),
    };
    Some(check)
}

pub(super) fn custom(element: &Node, mirror: bool, found: &mut Diagnostics) -> Option<CustomCheck> {
    no_children(element, found);
    let mut f = Fields::new(element);
    let ident = name(&mut f, found);
    let when = when(&mut f, None, mirror, found);
    let action = action(&mut f, CheckAction::NoAction, when, found);
    let exec = f.mandatory("exec", found);
    // An empty list of words is a value like another.
    let arg = f.raw("arg").map(|a| a.value.trim().to_owned()).unwrap_or_default();
    f.finish(found);
    let (exec, span) = exec?;
    if exec.contains(char::is_whitespace) {
        let message = format!("exec {} contains blanks", quoted(exec));
        found.error(span, message, "write the executable alone, and its words in arg=\"…\"");
    }
    Some(CustomCheck { ident: ident?.to_owned(), when: when?, action, exec: exec.to_owned(), arg, at: At(span) })
}
