//! Where do tests of one package get the programs of the others from, and what is too wide of what they print?

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;

/// Builds every program of the workspace into the directory that `own`, a program of this build, is in. Once a process.
///
/// # Panics
/// When `own` is not in a build's directory, or the build fails.
#[allow(clippy::panic)] // only tests call it, and they cannot go on
pub fn build(own: &str) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let places = Path::new(own).parent().and_then(|place| Some((place.file_name()?.to_str()?, place.parent()?)));
        let Some((name, target)) = places else { panic!("{own} is not in the directory of a build") };
        // The same profile as the test's own: its directory is named after it.
        let profile = if name == "debug" { "dev" } else { name };
        // All of them: a part would be built with other features of what they share.
        let mut command = cargo();
        command.args(["build", "--quiet", "--profile", profile, "--workspace", "--bins", "--target-dir"]).arg(target);
        match command.status() {
            Ok(status) if status.success() => {}
            other => panic!("cargo build: {other:?}"),
        }
    });
}

/// Width of a line on a terminal. A path is one word, and no wider than its name: directories of a test are not those of the product.
pub fn columns(line: &str) -> usize {
    let words = line.split(' ').map(|word| 1 + word.rsplit('/').next().unwrap_or_default().chars().count());
    // The blank before the first word is none.
    words.sum::<usize>().saturating_sub(1)
}

/// A program that was built with the workspace, beside the directory of the running test.
///
/// # Panics
/// When it is not there.
#[allow(clippy::panic)] // only tests call it, and they cannot go on
pub fn built(name: &str) -> PathBuf {
    let path = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.parent()?.join(name)));
    match path {
        Some(path) if path.exists() => path,
        other => panic!("{name} is missing ({other:?}): cargo build --workspace --bins"),
    }
}

/// A cargo that sees what a cargo at a terminal sees. A test is given words about its own package, and build scripts (ring's) that watch these
/// would make the same build in every package's tests another one.
pub fn cargo() -> Command {
    let mut command = Command::new(env!("CARGO"));
    for (name, _) in std::env::vars_os().filter(|(name, _)| of_a_package(name)) {
        command.env_remove(name);
    }
    command.current_dir(env!("CARGO_MANIFEST_DIR"));
    command
}

fn of_a_package(name: &OsString) -> bool {
    let prefixes = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "NEXTEST"];
    let name = name.to_string_lossy();
    name == "OUT_DIR" || prefixes.iter().any(|prefix| name.starts_with(prefix))
}
