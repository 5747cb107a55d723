//! Are the man pages and completions of the tree those of the commands, and fit to be read?

use std::fs;
use std::path::PathBuf;
use std::process::Command;

#[test]
fn the_tree_is_current() {
    let stale = docs::stale(&docs::root()).unwrap();
    assert!(stale.is_empty(), "write these with `cargo run -p docs -- generate`: {stale:#?}");
}

#[test]
fn writing_makes_current_and_removes_left_overs() {
    let root = tempfile::tempdir().unwrap();
    assert!(!docs::write(root.path()).unwrap().is_empty());
    assert_eq!(docs::stale(root.path()).unwrap(), Vec::<PathBuf>::new());
    let kept = root.path().join("man/by-hand.5");
    fs::write(&kept, "").unwrap();
    let old = root.path().join("man/no-such-command.1");
    fs::write(&old, "").unwrap();
    fs::remove_file(root.path().join("completions/fish/sk-top.fish")).unwrap();
    let expected = ["man/no-such-command.1", "completions/fish/sk-top.fish"].map(PathBuf::from);
    assert_eq!(docs::stale(root.path()).unwrap(), expected);
    docs::write(root.path()).unwrap();
    assert!(!old.exists() && kept.exists());
}

/// Every argument has a help text: it is all a man page can say of it.
#[test]
fn every_argument_is_explained() {
    fn look(command: &clap::Command, path: &str, silent: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        if command.get_about().is_none() && command.get_long_about().is_none() {
            silent.push(path.clone());
        }
        for argument in command.get_arguments().filter(|a| !a.is_hide_set()) {
            if argument.get_help().is_none() && argument.get_long_help().is_none() {
                silent.push(format!("{path}: {}", argument.get_id()));
            }
        }
        for sub in command.get_subcommands().filter(|s| !s.is_hide_set()) {
            look(sub, &path, silent);
        }
    }
    let mut silent = Vec::new();
    for mut command in docs::commands() {
        command.build();
        command.clone().debug_assert();
        look(&command, "", &mut silent);
        let help = command.render_long_help().to_string().to_lowercase();
        if !help.contains("exit") {
            silent.push(format!("{}: exit codes", command.get_name()));
        }
    }
    assert!(silent.is_empty(), "without an explanation: {silent:#?}");
}

/// Help fits a terminal of 80 columns, whatever a line in the source is long.
#[test]
fn help_fits_80_columns() {
    fn look(command: &mut clap::Command, path: &str, wide: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        for help in [command.render_help(), command.render_long_help()] {
            let help = help.to_string();
            // A synopsis is one line.
            let lines = help.lines().filter(|l| !l.starts_with("Usage: ") && l.chars().count() > 80);
            wide.extend(lines.map(|line| format!("{path}: {line}")));
        }
        for sub in command.get_subcommands_mut() {
            look(sub, &path, wide);
        }
    }
    let mut wide = Vec::new();
    for mut command in docs::commands() {
        command.build();
        look(&mut command, "", &mut wide);
    }
    assert!(wide.is_empty(), "{wide:#?}");
}

#[test]
fn pages_written_by_hand_are_clean() {
    let mut pages = 0;
    for entry in fs::read_dir(docs::root().join("man")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|e| e == "1") {
            continue;
        }
        pages += 1;
        let lint = Command::new("mandoc").args(["-T", "lint"]).arg(&path).output();
        let lint = lint.unwrap_or_else(|e| panic!("mandoc cannot be run ({e}); install the package mandoc"));
        // Our pages are installed together, so references among them cannot be found here.
        let said = String::from_utf8_lossy(&lint.stdout).into_owned();
        let said: Vec<&str> = said.lines().filter(|l| !l.contains("referenced manual not found")).collect();
        assert!(said.is_empty(), "{said:#?}");
    }
    assert!(pages > 0);
}
