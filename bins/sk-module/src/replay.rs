//! Would the core decide the same again? Replays a journal through the pure core.

use crate::history::Line;
use crate::{Failure, exit};
use automaton::{Action, Core};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

pub(crate) fn replay(path: &Path, quiet: bool) -> Result<u8, Failure> {
    let file = File::open(path).map_err(|e| Failure::system(path.display(), e))?;
    let mut core: Option<Core> = None;
    let (mut events, mut different) = (0_u64, 0_u64);
    for (number, line) in BufReader::new(file).split(b'\n').enumerate() {
        let line = line.map_err(|e| Failure::system(path.display(), e))?;
        let parsed: Line = match serde_json::from_slice(&line) {
            Ok(parsed) => parsed,
            Err(error) => {
                // The last line of a host that lost power may be torn.
                sys::warn!("{}:{}: not a line of a journal: {error}", path.display(), number + 1);
                continue;
            }
        };
        match parsed {
            Line::Begin { t, settings, persisted, incarnation } => {
                if !quiet {
                    println!("{t} begin: node {}, peer {}", settings.node, settings.peer);
                }
                core = Some(Core::new(settings, persisted, incarnation));
            }
            Line::Event { t, now, wall, input, actions } => {
                let Some(core) = core.as_mut() else {
                    return Err(Failure::new(
                        exit::REFUSED,
                        format!("{}:{}: an event before any begin line", path.display(), number + 1),
                    ));
                };
                events += 1;
                if !quiet {
                    println!("{t} {}", serde_json::to_string(&input).unwrap_or_default());
                }
                let again = core.handle(now, wall, input);
                if !quiet {
                    print_actions(&again);
                }
                if again != actions {
                    different += 1;
                    println!("{}:{}: decided differently; recorded:", path.display(), number + 1);
                    print_actions(&actions);
                }
            }
        }
    }
    println!("{events} events, {different} decided differently");
    Ok(if different == 0 { 0 } else { exit::REFUSED })
}

fn print_actions(actions: &[Action]) {
    for action in actions {
        println!("    -> {}", serde_json::to_string(action).unwrap_or_default());
    }
}
