//! Which modules, nodes, resources and templates are there? Whatever cannot be read is not offered.

use crate::text;
use std::collections::BTreeSet;
use std::path::Path;
use sys::roots::{Roots, is_module_name};

/// Applied and editable modules.
pub(crate) fn modules(roots: &Roots) -> Vec<String> {
    sys::modules::known(roots).into_iter().collect()
}

/// Templates of modules.
pub(crate) fn templates(roots: &Roots) -> Vec<String> {
    entries(&roots.safe.join("templates"))
}

fn entries(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let mut names: Vec<String> =
        entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| is_module_name(name)).collect();
    names.sort();
    names
}

/// The nodes named in `cluster.xml`, also while it has errors: only the names are looked for.
pub(crate) fn nodes(cluster: &Path) -> Vec<String> {
    let text = text(cluster);
    let mut names = BTreeSet::new();
    for element in text.split("<node").skip(1) {
        let element = element.split('>').next().unwrap_or_default();
        let value = element.split("name=").nth(1).and_then(|rest| {
            let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
            rest[1..].split(quote).next()
        });
        names.extend(value.filter(|name| is_module_name(name)).map(str::to_owned));
    }
    names.into_iter().collect()
}

/// The resources of a module, or of all: of the runner that is there, else those kept of the last one.
pub(crate) fn resources(roots: &Roots, module: Option<&str>) -> Vec<String> {
    let modules = module.map_or_else(|| modules(roots), |m| vec![m.to_owned()]);
    let mut names = BTreeSet::new();
    for module in modules {
        let state: serde_json::Value =
            serde_json::from_str(&text(&roots.module_run(&module).join("state.json"))).unwrap_or_default();
        let listed = state["resources"].as_array().into_iter().flatten();
        names.extend(listed.filter_map(|r| r["name"].as_str().map(str::to_owned)));
        let kept = text(&roots.module_var(&module).join("resources.jsonl"));
        let kept = kept.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        names.extend(kept.filter_map(|r| r["name"].as_str().map(str::to_owned)));
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn node() -> (tempfile::TempDir, Roots) {
        let directory = tempfile::tempdir().unwrap();
        let root = directory.path().to_owned();
        let roots = Roots::from_variables(|name| Some(root.join(name)));
        (directory, roots)
    }

    #[test]
    fn nothing_is_offered_where_nothing_is() {
        let (_directory, roots) = node();
        assert!(
            modules(&roots).is_empty() && nodes(&roots.cluster_xml()).is_empty() && resources(&roots, None).is_empty()
        );
    }

    #[test]
    fn names_of_the_node_are_found() {
        let (_directory, roots) = node();
        for path in [
            roots.module_source("web"),
            roots.module_source(".web.new"),
            roots.module_var("db"),
            roots.module_run("db"),
        ] {
            fs::create_dir_all(path).unwrap();
        }
        fs::write(
            roots.cluster_xml(),
            "<cluster><lans><lan><node name=\"n2\" addr=\"x\"/><node addr='y' name='n1'/><node name=/></lan>",
        )
        .unwrap();
        fs::write(roots.module_run("db").join("state.json"), r#"{"resources":[{"name":"proc.x"},{"name":3}]}"#)
            .unwrap();
        fs::write(roots.module_var("db").join("resources.jsonl"), "{\"name\":\"rfs.uptodate\"}\ngarbage\n").unwrap();
        assert_eq!(modules(&roots), ["db", "web"]);
        assert_eq!(nodes(&roots.cluster_xml()), ["n1", "n2"]);
        assert_eq!(resources(&roots, Some("db")), ["proc.x", "rfs.uptodate"]);
        assert_eq!(resources(&roots, None), ["proc.x", "rfs.uptodate"]);
        assert!(resources(&roots, Some("web")).is_empty());
    }
}
