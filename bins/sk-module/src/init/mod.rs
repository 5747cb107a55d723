//! How does an administrator come from two fresh servers to a first module: a few answers, valid files, the next command.

mod ask;
mod host;
mod template;

use crate::configure::{copy_tree, remove_tree, show};
use crate::doctor::Finding;
use crate::{Failure, exit, packages};
use ask::Ask;
use clap::Args;
use config::Cluster;
use std::fs;
use std::path::{Path, PathBuf};
use sys::failure::put;
use sys::roots::{Roots, module_name};
use template::{Settings, Template};

/// What can be said beforehand; the rest is asked for on a terminal.
#[derive(Debug, Args)]
pub(crate) struct Answers {
    /// Name of the module to make; default: that of the template
    #[arg(short = 'm', long = "module", value_name = "AM", value_parser = module_name)]
    module: Option<String>,
    /// Template of the module: sk-module list --available
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// A node and its addresses, one on each network, the same order for all nodes; repeat it for each node
    #[arg(long = "node", value_name = "NAME=ADDRESS[,ADDRESS]")]
    nodes: Vec<String>,
    /// Virtual address, which clients connect to
    #[arg(long, value_name = "ADDRESS")]
    vip: Option<String>,
    /// Directory to replicate; repeat it for more
    #[arg(long = "dir", value_name = "DIRECTORY")]
    directories: Vec<String>,
    /// systemd unit of the application; repeat it for more, in the order of their start
    #[arg(long = "service", value_name = "UNIT")]
    services: Vec<String>,
    /// Command name of the application's main process, as "ps -o comm" shows it
    #[arg(long, value_name = "NAME")]
    process: Option<String>,
    /// Another macro of the template's userconfig.xml
    #[arg(long = "set", value_name = "MACRO=VALUE")]
    macros: Vec<String>,
    /// Number of the module, the same on all nodes; default: the lowest free one
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1000))]
    id: Option<u16>,
    /// Ask nothing: what is missing is an error
    #[arg(short = 'y', long)]
    yes: bool,
    /// Print what would be written, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Only look at this host: what is missing for the module -m, or for any
    #[arg(long, conflicts_with_all = ["nodes", "vip", "directories", "services", "process", "macros", "id", "yes", "dry_run", "template"])]
    check: bool,
    /// With --check: a user must have these numbers, those of the other nodes
    #[arg(long = "owner", value_name = "USER=UID:GID", requires = "check")]
    owners: Vec<String>,
    /// JSON lines: with --check: check, level (ok, warn, error), words, remedy; else the outcome (verb, module, code, said, complaints, error, hint), and nothing is asked
    #[arg(long)]
    json: bool,
}

impl Answers {
    /// Whether files are made; else this host is only looked at.
    pub(crate) fn writes(&self) -> bool {
        !self.check && !self.dry_run
    }

    /// Whether the outcome is told as JSON.
    pub(crate) fn wants_outcome(&self) -> bool {
        self.json && !self.check
    }

    /// The module named beforehand.
    pub(crate) fn module(&self) -> Option<&str> {
        self.module.as_deref()
    }
}

/// `sk-module init`.
pub(crate) fn init(roots: &Roots, answers: &Answers) -> Result<u8, Failure> {
    if answers.check {
        return check(roots, answers);
    }
    let mut ask = Ask::new(answers.yes || answers.json);
    let templates = packages::template_names(roots);
    if templates.is_empty() {
        return Err(Failure::new(
            exit::REFUSED,
            format!("there are no templates in {}", roots.safe.join("templates").display()),
        )
        .hint("install the product completely: scripts/install"));
    }
    let name = ask.choice("--template", "Kind of module", answers.template.as_deref(), &templates, "mirror")?;
    let template = Template::read(&roots.safe.join("templates").join(&name))?;
    let module = ask.text("--module", "Name of the module", answers.module.as_deref(), Some(&name), &module_name)?;
    let target = roots.module_source(&module);
    if target.exists() {
        return Err(Failure::new(exit::REFUSED, format!("there is a module {module} already: {}", target.display()))
            .hint("choose another name with -m, or take it away with sk-module uninstall"));
    }
    let (cluster_text, cluster) = cluster(roots, answers, &mut ask)?;
    let settings = settings(answers, &template, &mut ask)?;
    let text = template.fill(&settings, &cluster)?;
    let file = target.join(package::CONFIGURATION);
    let (parsed, mut found) =
        config::parse_module(&file.display().to_string(), &text, &|name| std::env::var(name).ok());
    if let Some(parsed) = &parsed {
        show(&found);
        found = config::check_module_against_cluster(parsed, &cluster);
    }
    show(&found);
    let (Some(parsed), false) = (parsed, found.has_errors()) else {
        return Err(Failure::new(exit::BAD_CONFIGURATION, "these answers make no valid module; nothing was written")
            .hint("see above; the template's own words: ".to_owned() + &template.file().display().to_string()));
    };
    let id = packages::choose_id(roots, &module, answers.id, None)?;
    crate::neighbours::check(roots, &module, id, &parsed)?;

    let findings = host::examine(roots, &parsed, &cluster, id);
    if answers.dry_run {
        if let Some(text) = &cluster_text {
            put(&format!("--- {}\n{}", roots.cluster_xml().display(), text.trim_end()))?;
        }
        put(&format!("--- {} (id {id})\n{}", file.display(), text.trim_end()))?;
    } else {
        write(roots, &module, &template, cluster_text.as_deref(), &text, id)?;
    }
    put("")?;
    report(&findings)?;
    let made = Made { module: &module, parsed: &parsed, cluster: &cluster, is_new_cluster: cluster_text.is_some() };
    next(roots, &made, &settings, answers.dry_run)?;
    Ok(0)
}

/// The cluster that is there, or the one that the answers make, with its file's text.
fn cluster(roots: &Roots, answers: &Answers, ask: &mut Ask) -> Result<(Option<String>, Cluster), Failure> {
    let file = roots.cluster_xml();
    if file.exists() {
        if !answers.nodes.is_empty() {
            return Err(Failure::new(exit::REFUSED, format!("{} names the nodes already", file.display()))
                .hint("leave --node out, or edit that file; see man 5 sk-cluster"));
        }
        let (cluster, found) = config::load_cluster(&file);
        show(&found);
        let cluster =
            cluster.ok_or_else(|| Failure::new(exit::BAD_CONFIGURATION, format!("{} has errors", file.display())))?;
        return Ok((None, cluster));
    }
    let nodes = if answers.nodes.is_empty() { ask_nodes(ask)? } else { answers.nodes.clone() };
    let nodes: Vec<(String, Vec<String>)> = nodes.iter().map(|node| parse_node(node)).collect::<Result<_, _>>()?;
    let networks = nodes.first().map_or(0, |(_, addresses)| addresses.len());
    if let Some((name, addresses)) = nodes.iter().find(|(_, addresses)| addresses.len() != networks) {
        return Err(Failure::new(
            exit::USAGE,
            format!("node {name} has {} addresses, the first node {networks}", addresses.len()),
        )
        .hint("give each node one address on each network, in the same order"));
    }
    let mut text = String::from(
        "<!-- The nodes and their networks; the same file on every node. See sk-cluster(5). -->\n<cluster>\n  <lans>\n",
    );
    for network in 0..networks {
        let name = match network {
            0 => "default".to_owned(),
            1 => "repl".to_owned(),
            more => format!("net{}", more + 1),
        };
        text += &format!("    <lan name=\"{name}\">\n");
        for (node, addresses) in &nodes {
            text +=
                &format!("      <node name=\"{node}\" addr=\"{}\"/>\n", config::escape_attribute(&addresses[network]));
        }
        text += "    </lan>\n";
    }
    text += "  </lans>\n</cluster>\n";
    let (cluster, found) = config::parse_cluster(&file.display().to_string(), &text);
    show(&found);
    let cluster = cluster.ok_or_else(|| {
        Failure::new(exit::BAD_CONFIGURATION, "these nodes make no valid cluster; nothing was written")
    })?;
    Ok((Some(text), cluster))
}

/// `NAME=ADDRESS[,ADDRESS]`.
fn parse_node(text: &str) -> Result<(String, Vec<String>), Failure> {
    let wrong = |what: &str| {
        Failure::new(exit::USAGE, format!("--node {text}: {what}")).hint("such as --node node1=10.0.0.11,10.0.1.11")
    };
    let (name, addresses) = text.split_once('=').ok_or_else(|| wrong("a name, =, and addresses are needed"))?;
    if !sys::roots::is_module_name(name) {
        return Err(wrong("the name has letters, digits, '_', '-' and '.' only"));
    }
    let addresses: Vec<String> = addresses.split(',').map(|a| a.trim().to_owned()).collect();
    for address in &addresses {
        if config::host(address).is_none() {
            return Err(wrong(&format!("{address:?} is no address")));
        }
    }
    Ok((name.to_owned(), addresses))
}

fn ask_nodes(ask: &mut Ask) -> Result<Vec<String>, Failure> {
    let own = host::name();
    let addresses: Vec<String> = host::addresses().into_iter().map(|a| a.address.to_string()).collect();
    ask.needs_terminal("--node", "the nodes and their addresses")?;
    Ask::say(&format!("Addresses of this host: {}", addresses.join(" ")))?;
    let any = |text: &str| Ok::<_, String>(text.trim().to_owned());
    let mut nodes = Vec::new();
    loop {
        let (which, default) = match nodes.len() {
            0 => ("Name of this node".to_owned(), Some(own.clone())),
            1 => ("Name of the other node".to_owned(), None),
            n => (format!("Name of node {} (empty: no more)", n + 1), Some(String::new())),
        };
        let enough = nodes.len() >= 2;
        let name = ask.text("--node", &which, None, default.as_deref(), &move |name: &str| {
            if enough && name.is_empty() { Ok(String::new()) } else { module_name(name) }
        })?;
        if name.is_empty() {
            return Ok(nodes);
        }
        let suggestion = if nodes.is_empty() { addresses.first().cloned() } else { None };
        let question = format!("Addresses of {name}, one on each network, with commas between");
        let given = ask.text("--node", &question, None, suggestion.as_deref(), &any)?;
        match parse_node(&format!("{name}={given}")) {
            Ok(_) => nodes.push(format!("{name}={given}")),
            Err(failure) => Ask::say(&failure.message)?,
        }
    }
}

/// Values of the template's macros: from flags, from answers, or as the template has them.
fn settings(answers: &Answers, template: &Template, ask: &mut Ask) -> Result<Settings, Failure> {
    let mut settings = Settings::default();
    for text in &answers.macros {
        let Some((name, value)) = text.split_once('=') else {
            return Err(Failure::new(exit::USAGE, format!("--set {text}: MACRO=VALUE is needed")));
        };
        if !template.macros().iter().any(|m| m.name == name) {
            let names: Vec<&str> = template.macros().iter().map(|m| m.name.as_str()).collect();
            return Err(Failure::new(exit::USAGE, format!("--set {name}: the template has no such macro"))
                .hint(format!("it has {}", names.join(" "))));
        }
        settings.macros.insert(name.to_owned(), value.to_owned());
    }
    // What has a flag of its own is called the same in all templates.
    let flags = [
        ("VIP", "--vip", answers.vip.clone()),
        ("DIR", "--dir", answers.directories.first().cloned()),
        ("PROC", "--process", answers.process.clone()),
    ];
    for (name, flag, value) in flags {
        let Some(value) = value else { continue };
        if !template.macros().iter().any(|m| m.name == name) {
            return Err(Failure::new(exit::USAGE, format!("{flag}: the template has no macro {name}"))
                .hint("see its userconfig.xml"));
        }
        settings.macros.insert(name.to_owned(), value);
    }
    settings.directories = answers.directories.iter().skip(1).cloned().collect();
    for item in template.macros() {
        if settings.macros.contains_key(&item.name) || !item.is_open() {
            continue;
        }
        let flag = match item.name.as_str() {
            "VIP" => "--vip".to_owned(),
            "DIR" => "--dir".to_owned(),
            "PROC" => "--process".to_owned(),
            other => format!("--set {other}="),
        };
        let question =
            if item.words.is_empty() { item.name.clone() } else { format!("{} ({})", item.words, item.name) };
        let name = item.name.clone();
        let check = move |text: &str| template::valid_value(&name, text);
        let value = ask.text(&flag, &question, None, None, &check)?;
        settings.macros.insert(item.name.clone(), value);
    }
    settings.services.clone_from(&answers.services);
    if template.takes_services() && settings.services.is_empty() && ask.is_interactive() {
        let any = |text: &str| Ok(text.trim().to_owned());
        let units = ask.text(
            "--service",
            "systemd units of the application, in the order of their start (empty: none)",
            None,
            Some(""),
            &any,
        )?;
        settings.services = units.split([',', ' ']).filter(|u| !u.is_empty()).map(str::to_owned).collect();
    }
    if !settings.services.is_empty() && !template.takes_services() {
        return Err(Failure::new(
            exit::USAGE,
            "--service: the scripts of this template start the application themselves",
        ));
    }
    for (name, value) in &settings.macros {
        template::valid_value(name, value).map_err(|message| Failure::new(exit::USAGE, message))?;
    }
    for unit in &settings.services {
        let good = !unit.is_empty() && unit.bytes().all(|b| b.is_ascii_alphanumeric() || b":_.@-\\".contains(&b));
        if !good {
            return Err(Failure::new(exit::USAGE, format!("--service {unit:?} is no name of a systemd unit")));
        }
    }
    if let Some(directory) = answers.directories.iter().find(|d| !d.starts_with('/')) {
        return Err(Failure::new(exit::USAGE, format!("--dir {directory}: an absolute path is needed")));
    }
    Ok(settings)
}

/// All of it or nothing: the module is placed last, in one step.
fn write(
    roots: &Roots,
    module: &str,
    template: &Template,
    cluster: Option<&str>,
    text: &str,
    id: u16,
) -> Result<(), Failure> {
    let modules = roots.etc.join("modules");
    fs::create_dir_all(&modules).map_err(|e| Failure::system(modules.display(), e))?;
    let staged = modules.join(format!(".{module}.init-{}", std::process::id()));
    remove_tree(&staged)?;
    let placed = stage(template, &staged, text, id).and_then(|()| {
        if let Some(cluster) = cluster {
            sys::files::write_durably(&roots.cluster_xml(), cluster.as_bytes(), 0o644)
                .map_err(|e| Failure::system(roots.cluster_xml().display(), e))?;
            put(&format!("written: {}", roots.cluster_xml().display()))?;
        }
        if !roots.cluster_key().exists() {
            crate::configure::make_cluster_key(&roots.cluster_key())?;
            put(&format!("written: {} (a new key)", roots.cluster_key().display()))?;
        }
        packages::place(&staged, &roots.module_source(module))
    });
    remove_tree(&staged)?;
    placed?;
    put(&format!("written: {} (id {id})", roots.module_source(module).display()))
}

fn stage(template: &Template, staged: &Path, text: &str, id: u16) -> Result<(), Failure> {
    copy_tree(template.directory(), staged)?;
    for (path, content) in [(staged.join(package::CONFIGURATION), text), (staged.join("id"), &format!("{id}\n"))] {
        fs::write(&path, content).map_err(|e| Failure::system(path.display(), e))?;
    }
    sys::files::sync_file_system(staged).map_err(|e| Failure::system(staged.display(), e))
}

/// What this host lacks, and what was found to be right.
fn report(findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings {
        put(&finding.line())?;
    }
    Ok(())
}

/// What the answers made.
struct Made<'a> {
    module: &'a str,
    parsed: &'a config::Module,
    cluster: &'a Cluster,
    is_new_cluster: bool,
}

/// The commands that follow, to be copied.
fn next(roots: &Roots, made: &Made, settings: &Settings, dry: bool) -> Result<(), Failure> {
    let Made { module, parsed, cluster, .. } = *made;
    let own = sys::node::own(roots, cluster.own_addresses()).ok();
    let alone = matches!(parsed.mode, config::Mode::Light);
    let others: Vec<&str> = cluster.nodes().into_iter().filter(|n| !alone && Some(*n) != own.as_deref()).collect();
    put(if dry { "\nNothing was written. Without --dry-run, the next commands would be:" } else { "\nNext:" })?;
    let mut number = 0;
    let mut step = |words: &str, commands: &[String]| -> Result<(), Failure> {
        number += 1;
        put(&format!("{number}. {words}"))?;
        commands.iter().try_for_each(|command| put(&format!("     {command}")))
    };
    let readme = roots.module_source(module).join("README.md");
    if readme.exists() {
        step("read what this kind of module needs:", &[format!("less {}", readme.display())])?;
    }
    if made.is_new_cluster && !others.is_empty() {
        let import = |node: &&str| format!("sk-cluster export | ssh {node} sk-cluster import");
        let commands: Vec<String> = std::iter::once("sk-cluster up".into()).chain(others.iter().map(import)).collect();
        step("bring the cluster's configuration and key to the other nodes:", &commands)?;
    }
    if !others.is_empty() {
        let owners = host::owner_options(parsed);
        let look = |node: &&str| format!("ssh {node} sk-module init --check -m {module}{owners}");
        let push = format!("sk-module push -m {module} --only-files");
        let commands: Vec<String> = std::iter::once(push).chain(others.iter().map(look)).collect();
        step("bring them the module's files, and look at them:", &commands)?;
    }
    if !settings.services.is_empty() {
        let units = settings.services.join(" ");
        step(
            "on every node: from now on the module starts the application:",
            &[format!("systemctl disable --now {units}")],
        )?;
    }
    let mut commands = vec![format!("sk-module config -m {module}")];
    if others.is_empty() {
        step("apply the configuration:", &commands)?;
    } else {
        commands.push(format!("sk-module push -m {module}"));
        step("apply the configuration here, and there:", &commands)?;
    }
    match (&parsed.mode, others.first()) {
        (config::Mode::Mirror(_), other) => {
            let first = own.as_deref().unwrap_or("the node with the good data");
            step(
                &format!("on {first}, if its data are the good ones:"),
                &[format!("sk-module prim -m {module} --wait")],
            )?;
            let second = other.copied().unwrap_or("the other node");
            step("then the other node copies them:", &[format!("sk-module -H {second} second -m {module} --wait")])?;
        }
        (_, Some(_)) => step("start it on all nodes:", &[format!("sk-module -H '*' start -m {module} --wait")])?,
        (_, None) => step("start it:", &[format!("sk-module start -m {module} --wait")])?,
    }
    step("watch it:", &[format!("sk-module state -m {module} --watch"), "sk-top".to_owned()])
}

/// `sk-module init --check`.
fn check(roots: &Roots, answers: &Answers) -> Result<u8, Failure> {
    let mut findings = Vec::new();
    for owner in &answers.owners {
        findings.push(host::owner(owner)?);
    }
    if let Some(module) = &answers.module {
        let (parsed, cluster) =
            crate::configure::read(roots, &roots.module_source(module).join(package::CONFIGURATION))?;
        let id = packages::known_id(roots, module).unwrap_or(1);
        findings.extend(host::examine(roots, &parsed, &cluster, id));
    } else {
        findings.extend(host::general());
    }
    if answers.json {
        findings.iter().try_for_each(|finding| put(&finding.json().to_string()))?;
    } else {
        report(&findings)?;
    }
    Ok(if findings.iter().any(Finding::is_error) { exit::REFUSED } else { 0 })
}

/// Where a template's file is, for words.
pub(crate) fn template_file(directory: &Path) -> PathBuf {
    directory.join(package::CONFIGURATION)
}
