//! How are files of any kind read and judged in one call?

use crate::agree::check_module_against_cluster;
use crate::cluster::{Cluster, parse_cluster};
use crate::diagnostic::{Diagnostics, Source, Span};
use crate::macros::Environment;
use crate::model::Module;
use crate::module::parse_module;
use crate::tree::MAX_FILE;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// The text of a file, at most [`MAX_FILE`] bytes and UTF-8. The error is a finding of its own.
fn text_of(path: &Path) -> Result<String, Diagnostics> {
    let name = path.display().to_string();
    let refuse = |text: &str, at: usize, message: String, help: &str| {
        let mut found = Diagnostics::new(Source::new(&name, text));
        found.error(Span { start: at, end: at }, message, help);
        found
    };
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|f| f.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes));
    if let Err(error) = read {
        let help = "check the path and its permissions";
        return Err(refuse("", 0, format!("cannot read the file: {error}"), help));
    }
    if bytes.len() > MAX_FILE {
        let message = format!("the file has more than {MAX_FILE} bytes");
        return Err(refuse("", 0, message, "a configuration file is a few kilobytes of XML"));
    }
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let text = String::from_utf8_lossy(error.as_bytes()).into_owned();
        refuse(&text, good, "the file is not UTF-8".to_owned(), "save it as UTF-8")
    })
}

/// Reads a cluster from a file.
pub fn load_cluster(path: &Path) -> (Option<Cluster>, Diagnostics) {
    match text_of(path) {
        Ok(text) => parse_cluster(&path.display().to_string(), &text),
        Err(found) => (None, found),
    }
}

/// Reads a module from a file.
pub fn load_module(path: &Path, environment: &Environment<'_>) -> (Option<Module>, Diagnostics) {
    match text_of(path) {
        Ok(text) => parse_module(&path.display().to_string(), &text, environment),
        Err(found) => (None, found),
    }
}

/// Everything that is wrong in a file, a cluster's or a module's; a module is also held against `cluster` when given.
pub fn check_file(path: &Path, environment: &Environment<'_>, cluster: Option<&Cluster>) -> Diagnostics {
    let text = match text_of(path) {
        Ok(text) => text,
        Err(found) => return found,
    };
    let name = path.display().to_string();
    if text.contains("<cluster") && !text.contains("<safe") {
        return parse_cluster(&name, &text).1;
    }
    let (module, mut found) = parse_module(&name, &text, environment);
    if let (Some(module), Some(cluster)) = (module, cluster) {
        found.append(check_module_against_cluster(&module, cluster));
    }
    found
}
