//! What does `<splitbrain>` say: who is asked before a node goes on alone?

use super::ident;
use crate::cluster::host;
use crate::diagnostic::{Diagnostics, Span, quoted};
use crate::duration::Unit;
use crate::expand::Writer;
use crate::fields::{Fields, no_children};
use crate::tree::Node;
use std::time::Duration;

/// Shortest lease: the kernel counts the lifetime of an address in seconds.
const SHORTEST_LEASE: Duration = Duration::from_secs(2);
const LONGEST_LEASE: Duration = Duration::from_mins(10);
/// Witnesses or endpoints.
const MOST: usize = 16;
/// Attributes of `exec="etcd"` alone.
const OF_STORE: [&str; 6] = ["lease", "ca", "cert", "key", "user", "passwordfile"];

/// `<splitbrain>`: the arbiter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Splitbrain {
    /// The resource is `splitbrain.IDENT`.
    pub ident: String,
    pub exec: ArbiterKind,
}

/// Who is asked (`exec`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArbiterKind {
    /// Hosts that answer to ping, without brackets.
    Ping { witnesses: Vec<String> },
    /// An etcd cluster; our own attribute values.
    Etcd(Etcd),
}

/// `exec="etcd"`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Etcd {
    /// `http://HOST:PORT` or `https://HOST:PORT`.
    pub endpoints: Vec<String>,
    /// How long a node may serve without hearing of the store or of its peer. None: made of the heartbeat timeout.
    pub lease: Option<Duration>,
    /// PEM file with the authorities whose servers are trusted.
    pub ca: Option<String>,
    /// PEM files of this node's own certificate and key.
    pub cert: Option<String>,
    pub key: Option<String>,
    /// User of etcd, and the file that holds the password.
    pub user: Option<String>,
    pub password_file: Option<String>,
}

pub(crate) fn read(element: &Node, mirror: bool, found: &mut Diagnostics) -> Option<Splitbrain> {
    no_children(element, found);
    if !mirror {
        let help = "remove it: only a mirror has one primary";
        found.error(element.span, "<splitbrain> in a module that is no mirror", help);
    }
    let mut f = Fields::new(element);
    let name = f.mandatory("ident", found);
    if let Some((text, span)) = name {
        ident(text, span, found);
    }
    let exec = f.mandatory("exec", found);
    let arg = f.mandatory("arg", found);
    if let Some((text, span)) = f.text("when", found)
        && text != "pre"
    {
        found.error(span, format!("when={} in <splitbrain>", quoted(text)), "it is always \"pre\"");
    }
    let exec = match exec {
        Some(("ping", _)) => {
            for name in OF_STORE {
                if let Some(attribute) = f.raw(name) {
                    let message = format!("attribute '{name}' with exec=\"ping\"");
                    found.error(attribute.name_span, message, "it belongs to exec=\"etcd\"");
                }
            }
            arg.and_then(|arg| witnesses(arg, found)).map(|witnesses| ArbiterKind::Ping { witnesses })
        }
        Some(("etcd", _)) => etcd(&mut f, arg, found).map(ArbiterKind::Etcd),
        Some((other, span)) => {
            let message = format!("exec={} in <splitbrain>", quoted(other));
            found.error(span, message, "write exec=\"ping\" (witnesses that answer to ping) or exec=\"etcd\"");
            return None;
        }
        None => None,
    };
    f.finish(found);
    Some(Splitbrain { ident: name?.0.to_owned(), exec: exec? })
}

fn words((text, span): (&str, Span), found: &mut Diagnostics) -> Vec<String> {
    let words: Vec<String> =
        text.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()).map(str::to_owned).collect();
    if words.len() > MOST {
        found.error(span, format!("more than {MOST} words in arg"), "name the most reliable ones");
    }
    words
}

fn witnesses(arg: (&str, Span), found: &mut Diagnostics) -> Option<Vec<String>> {
    let mut all = Vec::new();
    for word in words(arg, found) {
        if let Some(address) = host(&word) {
            all.push(address);
        } else {
            let message = format!("{} is neither an address nor a host name", quoted(&word));
            found.error(arg.1, message, "write arg=\"WITNESS WITNESS …\"");
        }
    }
    (!all.is_empty()).then_some(all)
}

fn etcd(f: &mut Fields<'_>, arg: Option<(&str, Span)>, found: &mut Diagnostics) -> Option<Etcd> {
    let lease = f.period("lease", Unit::Milliseconds, found);
    if lease.is_some_and(|l| !(SHORTEST_LEASE..=LONGEST_LEASE).contains(&l)) {
        let help =
            "write a duration from 2000ms to 600000ms; a longer one delays a takeover, a shorter one asks more often";
        found.error(f.place("lease").0, "this lease cannot be kept", help);
    }
    let mut path = |name: &'static str, f: &mut Fields<'_>| {
        let (text, span) = f.text(name, found)?;
        if !text.starts_with('/') {
            found.error(span, format!("{name}={} is not an absolute path", quoted(text)), "begin it with /");
        }
        Some(text.to_owned())
    };
    let (ca, cert, key) = (path("ca", f), path("cert", f), path("key", f));
    let password_file = path("passwordfile", f);
    let user = f.string("user", found);
    let has = |f: &Fields<'_>, name: &str| f.node.attributes.iter().any(|a| a.name == name);
    for (one, other) in [("cert", "key"), ("key", "cert"), ("user", "passwordfile"), ("passwordfile", "user")] {
        if has(f, one) && !has(f, other) {
            found.error(f.place(one).0, format!("{one}=\"…\" without {other}=\"…\""), format!("add {other}=\"…\""));
        }
    }
    let arg = arg?;
    let mut endpoints = Vec::new();
    for word in words(arg, found) {
        if let Some(endpoint) = endpoint(&word) {
            endpoints.push(endpoint);
        } else {
            let message = format!("{} is not an endpoint of etcd", quoted(&word));
            found.error(arg.1, message, "write https://HOST:PORT or http://HOST:PORT, e.g. https://10.0.0.9:2379");
        }
    }
    let secure = |e: &String| e.starts_with("https://");
    let any_secure = endpoints.iter().any(secure);
    if any_secure && !has(f, "ca") {
        let help = "add ca=\"…\": the PEM file of the authority that signed etcd's certificate";
        found.error(arg.1, "https without an authority to trust", help);
    }
    if !any_secure && !endpoints.is_empty() {
        for name in ["ca", "cert", "key"] {
            if has(f, name) {
                let help = "write https:// endpoints, or remove it";
                found.error(f.place(name).0, format!("{name}=\"…\" without an https endpoint"), help);
            }
        }
    }
    if has(f, "user") && endpoints.iter().any(|e| !secure(e)) {
        found.warning(f.place("user").0, "the password goes over http in clear", "use https:// endpoints");
    }
    (!endpoints.is_empty()).then_some(Etcd { endpoints, lease, ca, cert, key, user, password_file })
}

/// Scheme, host and port, nothing else.
fn endpoint(word: &str) -> Option<String> {
    let (scheme, rest) = word.split_once("://")?;
    if !matches!(scheme, "http" | "https") {
        return None;
    }
    let (name, port) = rest.trim_end_matches('/').rsplit_once(':')?;
    let port: u16 = port.parse().ok().filter(|p| *p > 0)?;
    let name = host(name)?;
    let name = if name.contains(':') { format!("[{name}]") } else { name };
    Some(format!("{scheme}://{name}:{port}"))
}

impl Splitbrain {
    /// The element as it stands in `safeconf.xml`.
    pub(crate) fn write(&self, w: &mut Writer) {
        let (exec, arg) = match &self.exec {
            ArbiterKind::Ping { witnesses } => ("ping", witnesses.join(" ")),
            ArbiterKind::Etcd(etcd) => ("etcd", etcd.endpoints.join(" ")),
        };
        let mut attributes =
            vec![("ident", self.ident.clone()), ("exec", exec.to_owned()), ("arg", arg), ("when", "pre".to_owned())];
        if let ArbiterKind::Etcd(etcd) = &self.exec {
            let lease = etcd.lease.map(|l| Unit::Milliseconds.write(l));
            let optional = [
                ("lease", &lease),
                ("ca", &etcd.ca),
                ("cert", &etcd.cert),
                ("key", &etcd.key),
                ("user", &etcd.user),
                ("passwordfile", &etcd.password_file),
            ];
            attributes.extend(optional.into_iter().filter_map(|(name, value)| Some((name, value.clone()?))));
        }
        w.empty("splitbrain", &attributes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse_module;

    fn read(element: &str) -> (Option<Splitbrain>, String) {
        let text = format!(
            "<safe><service mode=\"mirror\"><heart><heartbeat name=\"default\"/></heart><check>{element}</check></service></safe>"
        );
        let (module, found) = parse_module("m.xml", &text, &|_| None);
        let words = found.plain();
        if let Some(module) = &module {
            let (again, found) = parse_module("m.xml", &module.expanded_xml(), &|_| None);
            assert_eq!(again.map(|m| m.checks), Some(module.checks.clone()), "{}", found.plain());
        }
        (module.and_then(|m| m.checks.splitbrain), words)
    }

    #[test]
    fn both_kinds_are_read() {
        let (ping, _) = read(r#"<splitbrain ident="sb" exec="ping" arg="10.0.0.1 [fd00::1], gateway" when="pre"/>"#);
        let witnesses = ["10.0.0.1", "fd00::1", "gateway"].map(str::to_owned).to_vec();
        assert_eq!(ping, Some(Splitbrain { ident: "sb".into(), exec: ArbiterKind::Ping { witnesses } }));
        let (etcd, _) = read(
            r#"<splitbrain ident="w" exec="etcd" arg="https://10.0.0.9:2379/ https://[fd00::9]:2379" lease="3s" ca="/ca" cert="/c" key="/k" user="sk" passwordfile="/p"/>"#,
        );
        let text = |t: &str| Some(t.to_owned());
        let wanted = Etcd {
            endpoints: vec!["https://10.0.0.9:2379".into(), "https://[fd00::9]:2379".into()],
            lease: Some(Duration::from_secs(3)),
            ca: text("/ca"),
            cert: text("/c"),
            key: text("/k"),
            user: text("sk"),
            password_file: text("/p"),
        };
        assert_eq!(etcd.map(|s| s.exec), Some(ArbiterKind::Etcd(wanted)));
        let (plain, words) = read(r#"<splitbrain ident="w" exec="etcd" arg="http://w:2379"/>"#);
        assert!(plain.is_some() && words.is_empty(), "{words}");
    }

    #[test]
    fn mistakes_are_named() {
        for (element, wanted) in [
            (r#"<splitbrain ident="s" exec="pong" arg="a"/>"#, "exec='pong'"),
            (r#"<splitbrain ident="s" exec="ping" arg=""/>"#, "'arg' of <splitbrain> is empty"),
            (r#"<splitbrain ident="s" exec="ping"/>"#, "no attribute 'arg'"),
            (r#"<splitbrain ident="s" exec="ping" arg="10.0.0"/>"#, "neither an address"),
            (r#"<splitbrain ident="s" exec="ping" arg="a" when="prim"/>"#, "always \"pre\""),
            (r#"<splitbrain ident="s" exec="ping" arg="a" lease="3s"/>"#, "belongs to exec=\"etcd\""),
            (r#"<splitbrain ident="s" exec="etcd" arg="10.0.0.9"/>"#, "not an endpoint"),
            (r#"<splitbrain ident="s" exec="etcd" arg="http://w:0"/>"#, "not an endpoint"),
            (r#"<splitbrain ident="s" exec="etcd" arg="http://w:1/v3"/>"#, "not an endpoint"),
            (r#"<splitbrain ident="s" exec="etcd" arg="https://w:1"/>"#, "without an authority"),
            (r#"<splitbrain ident="s" exec="etcd" arg="http://w:1" ca="/x"/>"#, "without an https endpoint"),
            (r#"<splitbrain ident="s" exec="etcd" arg="https://w:1" ca="/x" cert="/y"/>"#, "without key"),
            (r#"<splitbrain ident="s" exec="etcd" arg="https://w:1" ca="/x" user="u"/>"#, "without passwordfile"),
            (r#"<splitbrain ident="s" exec="etcd" arg="https://w:1" ca="x"/>"#, "not an absolute path"),
            (r#"<splitbrain ident="s" exec="etcd" arg="http://w:1" lease="1s"/>"#, "cannot be kept"),
            (r#"<splitbrain ident="s" exec="etcd" arg="http://w:1" leese="3s"/>"#, "did you mean 'lease'"),
            (r#"<splitbrain ident="a b" exec="ping" arg="w"/>"#, "cannot be an ident"),
            (
                r#"<splitbrain ident="s" exec="ping" arg="w"/><splitbrain ident="t" exec="ping" arg="w"/>"#,
                "two <splitbrain>",
            ),
        ] {
            let (read, words) = read(element);
            assert!(read.is_none() && words.contains(wanted), "{element}: {words}");
        }
        let (read, words) = read(r#"<splitbrain ident="s" exec="etcd" arg="http://w:1" user="u" passwordfile="/p"/>"#);
        assert!(read.is_some() && words.contains("in clear"), "{words}");
    }
}
