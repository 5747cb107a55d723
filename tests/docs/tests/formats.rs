//! Has each command and each file format its page, and do the pages say what the programs write?

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use lineage::Standing;
use std::collections::BTreeSet;
use std::fs;

fn page(name: &str) -> String {
    fs::read_to_string(docs::root().join("man").join(name)).unwrap_or_else(|e| panic!("man/{name}: {e}"))
}

#[test]
fn every_command_and_every_verb_has_a_page() {
    for verb in docs::verbs() {
        // A page of its own for the command, too.
        let command = verb.split(' ').next().unwrap().to_owned();
        for name in [verb.replace(' ', "-"), command] {
            assert!(page(&format!("{name}.1")).contains(".SH SYNOPSIS"), "{name}");
        }
    }
}

/// Files that administrators meet, and the page that explains each.
#[test]
fn every_file_format_has_a_page() {
    for (file, name) in [
        ("userconfig.xml", "sk-userconfig.5"),
        ("cluster.xml", "sk-cluster.5"),
        ("cluster.key", "sk-key.5"),
        ("operators.keys", "sk-key.5"),
        ("NAME.safe", "sk-package.5"),
        ("state.json", "sk-state.5"),
        ("events.jsonl", "sk-state.5"),
        ("resources.jsonl", "sk-state.5"),
        ("journal.jsonl", "sk-journal.5"),
        ("lineage.json", "sk-lineage.5"),
        ("cmdlog", "sk-log.5"),
    ] {
        assert!(page(name).contains(file), "{file} in man/{name}");
    }
    let overview = fs::read_to_string(docs::root().join("docs/README.md")).unwrap();
    for entry in fs::read_dir(docs::root().join("man")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let (title, section) = name.rsplit_once('.').unwrap();
        assert!(section == "1" || overview.contains(&format!("{title}({section})")), "{name} is not in docs/README.md");
    }
}

#[test]
fn the_page_of_the_lineage_names_all_that_is_in_the_file() {
    let text = page("sk-lineage.5");
    let kept = serde_json::to_value(replica::store::Remembered::default()).unwrap();
    let mut names: BTreeSet<String> = kept.as_object().unwrap().keys().cloned().collect();
    for standing in [Standing::Blank, Standing::Inconsistent, Standing::Outdated, Standing::Paired, Standing::Alone] {
        names.insert(serde_json::to_value(standing).unwrap().as_str().unwrap().to_owned());
    }
    let missing: Vec<String> = names.into_iter().filter(|n| !text.contains(&format!(".It Li {n}\n"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
    assert!(text.contains(&format!("at most {}:", lineage::EPOCHS_KEPT)));
}
