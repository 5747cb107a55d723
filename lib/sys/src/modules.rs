//! Which modules does this node know?

use crate::roots::{Roots, is_module_name};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Modules with a runner, with an applied configuration, or with an editable one. A directory that cannot be read has none.
pub fn known(roots: &Roots) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut collect = |directory: PathBuf, has: &dyn Fn(&Path) -> bool| {
        let Ok(entries) = std::fs::read_dir(directory) else { return };
        for entry in entries.flatten() {
            if let Ok(name) = entry.file_name().into_string()
                && is_module_name(&name)
                && has(&entry.path())
            {
                names.insert(name);
            }
        }
    };
    collect(roots.run.clone(), &|path| path.join("control").exists());
    collect(roots.var.join("modules"), &|path| path.is_dir());
    collect(roots.etc.join("modules"), &|path| path.is_dir());
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modules_are_found_wherever_they_left_something() {
        let dir = tempfile::tempdir().unwrap();
        let roots = Roots::from_variables(|name| {
            let root = ["SK_ETC", "SK_VAR", "SK_RUN"].contains(&name).then(|| name.trim_start_matches("SK_"))?;
            Some(dir.path().join(root))
        });
        assert!(known(&roots).is_empty());
        for path in ["ETC/modules/new", "VAR/modules/applied", "RUN/running", "RUN/.heartbeat", "RUN/left"] {
            std::fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        std::fs::write(dir.path().join("RUN/running/control"), "").unwrap();
        std::fs::write(dir.path().join("VAR/modules/file"), "").unwrap();
        assert_eq!(known(&roots).into_iter().collect::<Vec<_>>(), ["applied", "new", "running"]);
    }
}
