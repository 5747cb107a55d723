//! Which man pages, completions and lists follow from the code, and do the files kept in the tree agree with them?

use clap::Command;
use clap_mangen::Man;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::{fs, io};

/// Directories that hold nothing but generated files with this ending.
const GENERATED: [(&str, &str); 4] =
    [("man", ".1"), ("completions/bash", ""), ("completions/zsh", ""), ("completions/fish", "")];

/// Date of the pages: that of the version, so that the same source always gives the same pages.
const DATE: &str = "2026-11-21";

/// The commands of the product.
pub fn commands() -> Vec<Command> {
    vec![
        safekit::command(),
        sk_check::command(),
        sk_cluster::command(),
        sk_errd::command(),
        sk_health::command(),
        sk_farmfilter::command(),
        sk_heartbeat::command(),
        sk_module::command(),
        sk_notify::command(),
        sk_replicate::command(),
        sk_top::command(),
        sk_arbiter::command(),
        sk_vip::command(),
    ]
}

/// Whether the verb of this path has `--json`, and whether that is its outcome and not a form of what it prints. `None`: no such verb.
pub fn form_of(path: &str) -> Option<(bool, bool)> {
    let mut words = path.split(' ');
    let name = words.next()?;
    let mut command = commands().into_iter().find(|command| command.get_name() == name)?;
    let mut is_global = false;
    let has = |command: &Command, global: bool| {
        command.get_arguments().any(|a| a.get_long() == Some("json") && (!global || a.is_global_set()))
    };
    for word in words {
        is_global |= has(&command, true);
        command = command.find_subcommand(word)?.clone();
    }
    let is_outcome = command.get_arguments().any(complete::outcome::is_outcome);
    Some((is_global || has(&command, false), is_outcome))
}

/// The verbs of all commands, each with its whole path: `sk-cluster key renew`. A command without verbs is one itself.
pub fn verbs() -> Vec<String> {
    fn walk(command: &Command, before: &str, found: &mut Vec<String>) {
        let path = format!("{before}{}", command.get_name());
        let mut children = command.get_subcommands().filter(|c| c.get_name() != "help").peekable();
        if children.peek().is_none() {
            found.push(path);
            return;
        }
        for child in children {
            walk(child, &format!("{path} "), found);
        }
    }
    let mut found = Vec::new();
    for command in commands() {
        walk(&command, "", &mut found);
    }
    found
}

/// Every generated file by its path from the root of the tree.
pub fn files() -> io::Result<BTreeMap<PathBuf, Vec<u8>>> {
    let mut files = BTreeMap::new();
    for command in commands() {
        let name = command.get_name().to_owned();
        let mut built = command.clone().disable_help_subcommand(true);
        built.build();
        pages(&built, &mut files)?;

        for (shell, file, text) in complete::registrations(&name)? {
            files.insert(Path::new("completions").join(shell).join(file), text);
        }
    }
    files.insert(PathBuf::from("docs/metrics.md"), sk_health::metrics::page().into_bytes());
    Ok(files)
}

/// The page of a command and those of its subcommands.
fn pages(command: &Command, files: &mut BTreeMap<PathBuf, Vec<u8>>) -> io::Result<()> {
    for subcommand in command.get_subcommands().filter(|s| !s.is_hide_set()) {
        pages(subcommand, files)?;
    }
    let man = Man::new(command.clone()).date(DATE).source(concat!("sk ", env!("CARGO_PKG_VERSION")));
    let mut page = Vec::new();
    man.render(&mut page)?;
    files.insert(Path::new("man").join(man.get_filename()), page);
    Ok(())
}

/// Files of the tree that nothing generates any more.
fn left_over(root: &Path, files: &BTreeMap<PathBuf, Vec<u8>>) -> io::Result<BTreeSet<PathBuf>> {
    let mut old = BTreeSet::new();
    for (directory, ending) in GENERATED {
        let entries = match fs::read_dir(root.join(directory)) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        for entry in entries {
            let name = entry?.file_name();
            let path = Path::new(directory).join(&name);
            if name.to_string_lossy().ends_with(ending) && !files.contains_key(&path) {
                old.insert(path);
            }
        }
    }
    Ok(old)
}

/// Writes what differs and removes what is left over; returns the paths concerned.
pub fn write(root: &Path) -> io::Result<Vec<PathBuf>> {
    let files = files()?;
    let mut changed = stale(root)?;
    for path in &changed {
        let target = root.join(path);
        match files.get(path) {
            Some(content) => {
                if let Some(parent) = target.parent() {
                    fs::create_dir_all(parent)?;
                }
                fs::write(target, content)?;
            }
            None => fs::remove_file(target)?,
        }
    }
    changed.sort();
    Ok(changed)
}

/// Paths from the root of files that are missing, differ, or should not be there.
pub fn stale(root: &Path) -> io::Result<Vec<PathBuf>> {
    let files = files()?;
    let mut stale: Vec<PathBuf> = left_over(root, &files)?.into_iter().collect();
    for (path, content) in &files {
        match fs::read(root.join(path)) {
            Ok(present) if present == *content => {}
            Ok(_) => stale.push(path.clone()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => stale.push(path.clone()),
            Err(error) => return Err(error),
        }
    }
    Ok(stale)
}

/// The root of the source tree.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}
