//! Which files of a module's directory go into its package?

use crate::error::Error;
use crate::name::{self, Place};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// A file to pack.
#[derive(Debug)]
pub(crate) struct Source {
    /// Path from the module's directory.
    pub name: String,
    /// Where its content is: elsewhere in the module where it is a link.
    pub content: PathBuf,
    pub executable: bool,
}

/// All files of the module, in the order of their names.
pub(crate) fn files(module: &Path) -> Result<Vec<Source>, Error> {
    let root = fs::canonicalize(module).map_err(|e| Error::file(module, e))?;
    let mut found = Vec::new();
    for part in ["README.md", "bin", "conf"] {
        if root.join(part).symlink_metadata().is_ok() {
            add(&root, part, &mut found)?;
        }
    }
    Ok(found)
}

fn add(root: &Path, name: &str, found: &mut Vec<Source>) -> Result<(), Error> {
    match name::place(name.as_bytes()) {
        Ok(Place::Part(_)) => {}
        Ok(_) => return Ok(()),
        Err((_, reason)) => return Err(Error::entry(name, reason)),
    }
    let path = root.join(name);
    let metadata = path.symlink_metadata().map_err(|e| Error::file(&path, e))?;
    if metadata.is_dir() {
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|e| Error::file(&path, e))? {
            let entry = entry.map_err(|e| Error::file(&path, e))?.file_name();
            let entry = entry
                .into_string()
                .map_err(|raw| Error::entry(&raw.to_string_lossy(), "has a name that is not UTF-8"))?;
            names.push(format!("{name}/{entry}"));
        }
        names.sort();
        return names.iter().try_for_each(|name| add(root, name, found));
    }
    // A package has no links: what one inside the module points to is packed twice.
    let content = fs::canonicalize(&path).map_err(|e| Error::file(&path, e))?;
    if !content.starts_with(root) {
        return Err(Error::entry(name, format!("is a link that leads out of the module, to {}", content.display())));
    }
    let metadata = fs::metadata(&content).map_err(|e| Error::file(&content, e))?;
    if !metadata.is_file() {
        return Err(Error::entry(name, "is neither a file nor a directory"));
    }
    if found.len() >= crate::ENTRIES_MAX {
        return Err(Error::TooBig(format!("more than {} files", crate::ENTRIES_MAX)));
    }
    found.push(Source { name: name.to_owned(), content, executable: metadata.permissions().mode() & 0o111 != 0 });
    Ok(())
}
