//! Which modules does this node have, under which numbers, and how do they come and go?

use crate::cli::{Failure, Modules};
use crate::paths::Place;
use crate::verbs::exec;
use std::io::Read;

/// `module list`: names. `module listid`: numbers and names of those that were configured; the same on all nodes, because the ports
/// derive from the numbers. The others become `sk-module install|package|uninstall`.
pub fn run(place: &Place, what: &Modules, put: fn(&str) -> Result<(), Failure>) -> Result<u8, Failure> {
    let named = || place.named().map(str::to_owned).ok_or_else(|| Failure::usage("no module named: add -m AM"));
    let mut words = match what {
        Modules::List | Modules::Listid => return print(place, *what == Modules::Listid, put),
        Modules::Install { id, again, file } => {
            let mut words = vec!["install".to_owned()];
            words.extend(id.iter().flat_map(|id| ["--id".to_owned(), id.to_string()]));
            words.extend(again.then(|| "--reinstall".to_owned()));
            words.extend(file.clone());
            words
        }
        Modules::Getports { id } => return ports(place, *id, put),
        Modules::Genkey => {
            key(place)?;
            put(
                "what the nodes say to each other is encrypted with the cluster's key;\nsafekit cluster genkey renews it",
            )?;
            return Ok(0);
        }
        Modules::Delkey => {
            return Err(Failure::new(
                1,
                "nodes never talk in clear text: one key serves all modules of a cluster; safekit cluster genkey renews it",
            ));
        }
        Modules::Package { file } => vec!["package".to_owned(), file.clone()],
        Modules::Uninstall => vec!["uninstall".to_owned()],
    };
    words.extend(["-m".to_owned(), named()?]);
    exec(place, &words)
}

fn print(place: &Place, numbers: bool, put: fn(&str) -> Result<(), Failure>) -> Result<u8, Failure> {
    for module in place.modules()? {
        if !numbers {
            put(&module)?;
        } else if let Some(id) = number(place, &module)? {
            put(&format!("{id:<4} {module}"))?;
        }
    }
    Ok(0)
}

/// The cluster must have a key that can be used.
fn key(place: &Place) -> Result<(), Failure> {
    let path = place.roots.cluster_key();
    wire::KeyFile::open(&path)
        .map(|_| ())
        .map_err(|e| Failure::new(1, format!("{e}; safekit cluster config makes a key")))
}

fn ports(place: &Place, id: Option<u16>, put: fn(&str) -> Result<(), Failure>) -> Result<u8, Failure> {
    let (module, id) = match id {
        None => {
            let module = place.module()?.to_owned();
            let id = number(place, &module)?;
            let id = id.ok_or_else(|| {
                Failure::new(1, format!("module {module} has no number yet; apply it: safekit config -m {module}"))
            })?;
            (module, id)
        }
        Some(id) => {
            let mut named = None;
            for module in place.modules()? {
                if number(place, &module)? == Some(id) {
                    named = Some(module);
                }
            }
            let missing =
                || Failure::new(1, format!("no module of this node has the number {id}; see: safekit module listid"));
            (named.ok_or_else(missing)?, id)
        }
    };
    for line in crate::ports::lines(place, &module, id)? {
        put(&line)?;
    }
    Ok(0)
}

/// The number given at the last `config`; None before the first one.
pub fn number(place: &Place, module: &str) -> Result<Option<u16>, Failure> {
    let path = place.roots.module_active(module).join("id");
    let mut text = String::new();
    match std::fs::File::open(&path).and_then(|file| file.take(16).read_to_string(&mut text)) {
        Ok(_) => text.trim().parse().map(Some).map_err(|_| {
            Failure::new(1, format!("{} holds no number; apply the module again with sk-module config", path.display()))
        }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Failure::sys(format!("cannot read {}", path.display()), e)),
    }
}
