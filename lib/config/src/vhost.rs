//! Which virtual host names does an application get (`<vhost>`)?

use crate::diagnostic::{Diagnostics, quoted};
use crate::fields::{Fields, no_children, unknown_child};
use crate::tree::Node;

/// `<virtualhostname>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VirtualHostName {
    pub name: String,
    /// File for the scripts to source; relative: in the module's `bin`.
    pub env_file: String,
    pub when: HostWhen,
}

/// On which role a virtual host name is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostWhen {
    Prim,
    Second,
    Both,
}

impl HostWhen {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Prim => "prim",
            Self::Second => "second",
            Self::Both => "both",
        }
    }
}

const WHEN: [(&str, HostWhen); 3] = [("prim", HostWhen::Prim), ("second", HostWhen::Second), ("both", HostWhen::Both)];

pub(crate) fn read(element: &Node, found: &mut Diagnostics) -> Vec<VirtualHostName> {
    Fields::new(element).finish(found);
    let mut names: Vec<VirtualHostName> = Vec::new();
    for child in &element.children {
        if child.name != "virtualhostname" {
            unknown_child(element, child, &["virtualhostname"], found);
            continue;
        }
        no_children(child, found);
        let mut f = Fields::new(child);
        let name = f.mandatory("name", found);
        let env_file = f.mandatory("envfile", found);
        let when = f.choice("when", &WHEN, found).unwrap_or(HostWhen::Prim);
        f.finish(found);
        let (Some((name, name_span)), Some((env_file, file_span))) = (name, env_file) else { continue };
        if !is_host_name(name) {
            let message = format!("{} is not a host name", quoted(name));
            found.error(name_span, message, "use letters, digits, '-' and '.', at most 64 of them");
            continue;
        }
        if env_file.split('/').any(|part| part == "..") || env_file.ends_with('/') {
            let message = format!("{} is not the name of a file", quoted(env_file));
            found.error(
                file_span,
                message,
                "write the name of a file, which is then in the module's bin, or an absolute path",
            );
            continue;
        }
        if names.iter().any(|n| n.env_file == env_file) {
            let message = format!("envfile {} stands twice", quoted(env_file));
            found.error(file_span, message, "each virtual host name has a file of its own");
            continue;
        }
        names.push(VirtualHostName { name: name.to_owned(), env_file: env_file.to_owned(), when });
    }
    if element.children.is_empty() {
        let help = "add <virtualhostname name=\"…\" envfile=\"…\"/>, or remove <vhost>";
        found.error(element.span, "<vhost> holds no <virtualhostname>", help);
    }
    names
}

/// Also harmless between quotes of a shell.
fn is_host_name(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
        && !name.starts_with(['-', '.'])
}
