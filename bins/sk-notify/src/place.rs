//! Up to where was everything told? A small file that outlives the process.

use crate::follow::Mark;
use std::collections::BTreeMap;
use std::path::PathBuf;
use sys::roots::Roots;

const SIZE_MAX: u64 = 1024 * 1024;

fn path(roots: &Roots) -> PathBuf {
    roots.var.join("notify.json")
}

/// By module. `None`: it never ran on this node, or what it left cannot be read.
pub fn load(roots: &Roots) -> Option<BTreeMap<String, Mark>> {
    serde_json::from_slice(&sys::files::read_bounded(&path(roots), SIZE_MAX).ok()?).ok()
}

/// A disk that is full costs that some events may be told twice.
pub fn save(roots: &Roots, marks: &BTreeMap<String, Mark>) -> std::io::Result<()> {
    let text = serde_json::to_vec(marks)?;
    sys::files::write_atomically(&path(roots), &text, 0o600)
}

/// Whether there is one.
pub fn exists(roots: &Roots) -> bool {
    path(roots).exists()
}
