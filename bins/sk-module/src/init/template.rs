//! What does a template want to know, and how do the answers get into its userconfig.xml? Its words and layout stay.

use crate::{Failure, exit};
use config::{Cluster, escape_attribute};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// `<macro name="…" value="…"/>` of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Macro {
    pub name: String,
    pub value: String,
    /// First sentence of the comment before it.
    pub words: String,
}

impl Macro {
    /// Whether the template leaves it to the administrator.
    pub fn is_open(&self) -> bool {
        config::is_placeholder(&self.value)
    }
}

/// What goes into the file.
#[derive(Debug, Default)]
pub(super) struct Settings {
    pub macros: BTreeMap<String, String>,
    /// Replicated directories beyond the one of the macro DIR.
    pub directories: Vec<String>,
    pub services: Vec<String>,
}

#[derive(Debug)]
pub(super) struct Template {
    directory: PathBuf,
    text: String,
    macros: Vec<Macro>,
}

impl Template {
    pub fn read(directory: &Path) -> Result<Self, Failure> {
        let file = super::template_file(directory);
        let bytes =
            sys::files::read_bounded(&file, config::MAX_FILE as u64).map_err(|e| Failure::system(file.display(), e))?;
        let text = String::from_utf8(bytes).map_err(|e| Failure::system(file.display(), e))?;
        let macros = macros(&text);
        Ok(Self { directory: directory.to_owned(), text, macros })
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub fn file(&self) -> PathBuf {
        super::template_file(&self.directory)
    }

    pub fn macros(&self) -> &[Macro] {
        &self.macros
    }

    /// Whether its scripts start systemd units that a variable names.
    pub fn takes_services(&self) -> bool {
        self.text.lines().any(is_services)
    }

    /// The template's text with the answers, and with the heartbeats of the networks that there are.
    pub fn fill(&self, settings: &Settings, cluster: &Cluster) -> Result<String, Failure> {
        let mut lines: Vec<String> = Vec::new();
        let mut heartbeats: Vec<(usize, String)> = Vec::new();
        let mut replicated = None;
        for line in self.text.lines() {
            let indent = &line[..line.len() - line.trim_start().len()];
            if let Some(name) = macro_name(line).filter(|name| settings.macros.contains_key(*name)) {
                let value = escape_attribute(&settings.macros[name]);
                lines.push(format!("{indent}<macro name=\"{name}\" value=\"{value}\"/>"));
            } else if is_services(line) {
                let value = escape_attribute(&settings.services.join(","));
                lines.push(format!("{indent}<var name=\"SERVICES\" value=\"{value}\"/>"));
            } else if let Some(lan) = heartbeat_lan(line) {
                if cluster.lan(lan).is_some() {
                    heartbeats.push((lines.len(), lan.to_owned()));
                    lines.push(line.to_owned());
                }
            } else {
                if line.trim_start().starts_with("<replicated ")
                    && line.contains("%DIR%")
                    && line.trim_end().ends_with("/>")
                {
                    replicated = Some((lines.len(), line.to_owned()));
                }
                lines.push(line.to_owned());
            }
        }
        if !settings.directories.is_empty() {
            let (at, line) = replicated.ok_or_else(|| {
                Failure::new(
                    exit::USAGE,
                    "--dir: this template replicates a directory of its own; add others in its userconfig.xml",
                )
            })?;
            for directory in settings.directories.iter().rev() {
                lines.insert(at + 1, line.replace("%DIR%", &escape_attribute(directory)));
            }
            for heartbeat in &mut heartbeats {
                heartbeat.0 += if heartbeat.0 > at { settings.directories.len() } else { 0 };
            }
        }
        // Every network of the cluster carries heartbeats; the second one the replication, as it is idle otherwise.
        if let Some((at, _)) = heartbeats.last().cloned() {
            let indent = lines[at][..lines[at].len() - lines[at].trim_start().len()].to_owned();
            let missing = cluster.lans.iter().filter(|lan| !heartbeats.iter().any(|(_, name)| *name == lan.name));
            // Comments speak of it, too.
            let flow =
                lines.iter().any(|line| heartbeat_lan(line).is_some() && attribute(line, "ident") == Some("flow"));
            let new: Vec<String> = missing
                .enumerate()
                .map(|(n, lan)| {
                    let ident = if n == 0 && !flow { " ident=\"flow\"" } else { "" };
                    format!("{indent}<heartbeat name=\"{}\"{ident}/>", escape_attribute(&lan.name))
                })
                .collect();
            for line in new.into_iter().rev() {
                lines.insert(at + 1, line);
            }
        }
        Ok(lines.join("\n") + "\n")
    }
}

/// The macros of a template, with the first sentence of the comment before each.
fn macros(text: &str) -> Vec<Macro> {
    let mut found = Vec::new();
    let mut comment = String::new();
    let mut inside = false;
    for line in text.lines() {
        let line = line.trim();
        if let Some(name) = macro_name(line) {
            let value = attribute(line, "value").unwrap_or_default();
            found.push(Macro { name: name.to_owned(), value: value.to_owned(), words: first_sentence(&comment) });
            comment.clear();
            continue;
        }
        let begins = line.starts_with("<!--");
        if begins {
            comment.clear();
        } else if !inside {
            comment.clear();
            continue;
        }
        inside = !line.ends_with("-->");
        let words = line.trim_start_matches("<!--").trim_end_matches("-->").trim();
        format!("{comment} {words}").trim().clone_into(&mut comment);
    }
    found
}

fn first_sentence(words: &str) -> String {
    words.split(". ").next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// The name in a line that is one `<macro name="…" value="…"/>`.
fn macro_name(line: &str) -> Option<&str> {
    let line = line.trim();
    (line.starts_with("<macro ") && line.ends_with("/>")).then(|| attribute(line, "name")).flatten()
}

fn heartbeat_lan(line: &str) -> Option<&str> {
    let line = line.trim();
    (line.starts_with("<heartbeat ") && line.ends_with("/>")).then(|| attribute(line, "name")).flatten()
}

fn is_services(line: &str) -> bool {
    let line = line.trim();
    line.starts_with("<var ") && line.ends_with("/>") && attribute(line, "name") == Some("SERVICES")
}

fn attribute<'l>(line: &'l str, name: &str) -> Option<&'l str> {
    let (_, rest) = line.split_once(&format!(" {name}=\""))?;
    rest.split_once('"').map(|(value, _)| value)
}

/// What can stand in a macro at all; addresses and directories are recognised by the macro's name.
pub(super) fn valid_value(name: &str, text: &str) -> Result<String, String> {
    let text = text.trim();
    if text.is_empty() {
        return Err(format!("{name} must not be empty"));
    }
    if text.len() > 1024 || text.chars().any(char::is_control) || text.contains('%') {
        return Err(format!("{name} must be one line without %"));
    }
    match name {
        "VIP"
            if text.parse::<std::net::IpAddr>().is_err()
                && text.contains(|c: char| !c.is_ascii_alphanumeric() && c != '-' && c != '.') =>
        {
            Err(format!("{text:?} is no address"))
        }
        "DIR" if !text.starts_with('/') => Err(format!("{text:?} is no absolute path")),
        _ => Ok(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template(name: &str) -> Template {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules").join(name);
        Template::read(&directory).unwrap()
    }

    fn cluster(lans: &[&str]) -> Cluster {
        let nodes = "<node name=\"a\" addr=\"10.0.0.1\"/><node name=\"b\" addr=\"10.0.0.2\"/>";
        let lans: Vec<String> = lans.iter().map(|l| format!("<lan name=\"{l}\">{nodes}</lan>")).collect();
        let lans = lans.concat();
        config::parse_cluster("cluster.xml", &format!("<cluster><lans>{lans}</lans></cluster>")).0.unwrap()
    }

    fn settings(pairs: &[(&str, &str)]) -> Settings {
        let macros = pairs.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Settings { macros, ..Settings::default() }
    }

    #[test]
    fn the_template_says_what_it_wants_to_know() {
        let template = template("mirror");
        let open: Vec<&str> = template.macros().iter().filter(|m| m.is_open()).map(|m| m.name.as_str()).collect();
        assert_eq!(open, ["VIP", "DIR", "PROC"]);
        assert!(template.macros()[0].words.starts_with("The address clients connect to"), "{:?}", template.macros()[0]);
        assert!(template.takes_services());
    }

    /// Every template, filled in with anything that fits, is a valid module on one network and on three.
    #[test]
    fn filled_templates_are_valid_modules() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules");
        let mut seen = 0;
        for entry in std::fs::read_dir(directory).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let template = template(&name);
            for lans in [&["default"][..], &["default", "repl", "net3"]] {
                let mut settings = Settings::default();
                for item in template.macros().iter().filter(|m| m.is_open()) {
                    let value = match item.name.as_str() {
                        "VIP" => "10.0.0.50",
                        name if name.contains("DIR") => "/srv/a & \"b\"",
                        _ => "word",
                    };
                    settings.macros.insert(item.name.clone(), value.to_owned());
                }
                let cluster = cluster(lans);
                let text = template.fill(&settings, &cluster).unwrap();
                let (module, found) = config::parse_module("userconfig.xml", &text, &|_| None);
                let module = module.unwrap_or_else(|| panic!("{name}: {}\n{text}", found.plain()));
                let found = config::check_module_against_cluster(&module, &cluster);
                assert!(!found.has_errors(), "{name} on {lans:?}: {}\n{text}", found.plain());
                seen += 1;
            }
        }
        assert!(seen >= 12, "{seen}");
    }

    #[test]
    fn networks_services_and_directories_get_their_lines() {
        let template = template("mirror");
        let mut settings = settings(&[("VIP", "10.0.0.50"), ("DIR", "/srv/one"), ("PROC", "x<y")]);
        settings.directories = vec!["/srv/two".into(), "/srv/three".into()];
        settings.services = vec!["one".into(), "two@3".into()];
        let text = template.fill(&settings, &cluster(&["default", "repl", "net3"])).unwrap();
        for line in [
            r#"      <replicated dir="%DIR%" mode="read_only"/>"#,
            r#"      <replicated dir="/srv/two" mode="read_only"/>"#,
            r#"      <replicated dir="/srv/three" mode="read_only"/>"#,
            r#"      <heartbeat name="default"/>"#,
            r#"      <heartbeat name="repl" ident="flow"/>"#,
            r#"      <heartbeat name="net3"/>"#,
            r#"      <var name="SERVICES" value="one,two@3"/>"#,
            r#"  <macro name="PROC" value="x&lt;y"/>"#,
        ] {
            assert_eq!(text.lines().filter(|l| *l == line).count(), 1, "{line} in {text}");
        }
        let one = template.fill(&settings, &cluster(&["default"])).unwrap();
        assert!(!one.lines().any(|l| heartbeat_lan(l) == Some("repl")), "{one}");
    }

    #[test]
    fn values_that_could_not_be_meant_are_refused() {
        for (name, value) in
            [("DIR", "relative"), ("DIR", ""), ("VIP", "10.0.0.0/24"), ("PROC", "a\nb"), ("PROC", "%X%")]
        {
            assert!(valid_value(name, value).is_err(), "{name} {value:?}");
        }
        for (name, value) in [("VIP", "fd00::1"), ("VIP", "vip.example"), ("DIR", "/a b"), ("PROC", "x")] {
            assert!(valid_value(name, value).is_ok(), "{name} {value:?}");
        }
    }
}
