//! The delivered modules: refused until they are filled in, then without a fault; with every script that they name.

#![allow(clippy::unwrap_used)] // a test that cannot go on has failed

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What an administrator writes for what the templates leave open.
const FILLED: [(&str, &str); 6] = [
    ("VIRTUAL_TO_BE_DEFINED", "192.0.2.50"),
    ("DIRECTORY_TO_BE_DEFINED", "/srv/data"),
    ("PASSWORD_TO_BE_DEFINED", "a secret"),
    ("IMAGE_TO_BE_DEFINED", "registry.example/app:1"),
    ("COMMAND_TO_BE_DEFINED", "/opt/app/server --port 8080"),
    ("PROCESS_NAME", "server"),
];

/// Every delivered module, and how many things it leaves open.
const TEMPLATES: [(&str, usize); 17] = [
    ("apache_farm", 1),
    ("cloud-farm", 1),
    ("cloud-mirror", 2),
    ("docker", 2),
    ("farm", 2),
    ("firebird", 1),
    ("k3s", 1),
    ("kvm", 0),
    ("light", 1),
    ("mariadb", 1),
    ("mirror", 3),
    ("mysql", 1),
    ("nginx_farm", 1),
    ("podman", 2),
    ("postgresql", 1),
    ("redis", 2),
    ("sqlite-app", 3),
];

const CLUSTER: &str = r#"<cluster><lans>
<lan name="default"><node name="node1" addr="192.0.2.11"/><node name="node2" addr="192.0.2.12"/></lan>
<lan name="repl"><node name="node1" addr="198.51.100.11"/><node name="node2" addr="198.51.100.12"/></lan>
</lans></cluster>"#;

fn templates() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/modules")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn userconfig(name: &str) -> String {
    read(&templates().join(name).join("conf/userconfig.xml"))
}

/// `sk-module check` of a text, in a cluster of two nodes.
fn check(text: &str) -> Output {
    let etc = tempfile::tempdir().unwrap();
    fs::write(etc.path().join("cluster.xml"), CLUSTER).unwrap();
    let file = etc.path().join("userconfig.xml");
    fs::write(&file, text).unwrap();
    Command::new(env!("CARGO_BIN_EXE_sk-module")).arg("check").arg(&file).env("SK_ETC", etc.path()).output().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let mut all: Vec<String> =
        fs::read_dir(directory).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    all.sort();
    all
}

#[test]
fn the_list_is_complete() {
    assert_eq!(names(&templates()), TEMPLATES.map(|(name, _)| name));
}

#[test]
fn refused_with_every_open_place_until_filled_in_then_without_a_word() {
    for (name, open) in TEMPLATES {
        let text = userconfig(name);
        if open > 0 {
            let output = check(&text);
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(2), "{name}: {said}");
            let places = said.lines().filter(|line| line.contains("still holds the placeholder")).count();
            assert_eq!(places, open, "{name}: {said}");
            assert_eq!(said.matches(": error:").count(), open, "{name} has other faults, too: {said}");
        }
        let filled = FILLED.iter().fold(text, |text, (from, to)| text.replace(from, to));
        let output = check(&filled);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() && said.is_empty(), "{name}: {said}");
    }
}

#[test]
fn scripts_are_there_and_can_be_run() {
    for (name, _) in TEMPLATES {
        let (text, bin) = (userconfig(name), templates().join(name).join("bin"));
        let (start, stop) =
            if text.contains(r#"mode="mirror""#) { ("start_prim", "stop_prim") } else { ("start_both", "stop_both") };
        let scripts = names(&bin);
        let checker = text.split("exec=\"").nth(1).and_then(|rest| rest.split('"').next());
        for script in ["prestart", start, stop].into_iter().chain(checker) {
            assert!(scripts.iter().any(|s| s == script), "{name} has no {script}");
        }
        for script in scripts {
            let path = bin.join(&script);
            let runs = fs::metadata(&path).unwrap().permissions().mode() & 0o111 != 0;
            assert_eq!(runs, script != "common.sh", "{name}/bin/{script}");
            let first = read(&path).lines().next().unwrap().to_owned();
            assert!(first.starts_with(if runs { "#!" } else { "# shellcheck shell=" }), "{name}/bin/{script}: {first}");
        }
        for file in names(&templates().join(name).join("conf")) {
            assert!(
                file == "userconfig.xml" || read(&bin.join(start)).contains(&file),
                "{name}: {file} is read by nobody"
            );
        }
    }
}

/// A variable that a script wants set is set, and one that is set is used.
#[test]
fn variables_of_the_scripts_are_those_of_the_configuration() {
    for (name, _) in TEMPLATES {
        let text = userconfig(name);
        let set: Vec<&str> = text.split("<var name=\"").skip(1).filter_map(|rest| rest.split('"').next()).collect();
        let bin = templates().join(name).join("bin");
        let code: BTreeMap<String, String> = names(&bin).into_iter().map(|s| (s.clone(), read(&bin.join(s)))).collect();
        let all = code.values().cloned().collect::<String>();
        for variable in &set {
            let used = [format!("${variable}"), format!("${{{variable}")].iter().any(|word| all.contains(word));
            // The directory of `mirror` is for what an administrator adds.
            assert!(used || name.ends_with("mirror") && *variable == "DIR", "{name}: nobody reads {variable}");
        }
        for wanted in all.split(":?set by userconfig.xml}").filter_map(|before| before.rsplit("${").next()) {
            if wanted.chars().all(|c| c.is_ascii_uppercase() || c == '_') && !wanted.is_empty() {
                assert!(set.contains(&wanted), "{name}: {wanted} is not set");
            }
        }
    }
}

/// The same scripts under two names: what is mended in one is mended in the other.
#[test]
fn twins_are_equal() {
    for (one, other, own) in [
        ("mariadb", "mysql", &["create_database"][..]),
        ("podman", "docker", &[]),
        ("mirror", "cloud-mirror", &[]),
        ("farm", "cloud-farm", &[]),
    ] {
        let (left, right) = (templates().join(one).join("bin"), templates().join(other).join("bin"));
        for script in names(&left).iter().filter(|script| !own.contains(&script.as_str())) {
            let expected = read(&left.join(script)).replace(&format!("modules/{one}/"), &format!("modules/{other}/"));
            assert_eq!(read(&right.join(script)), expected, "{other}/bin/{script}");
        }
    }
}

#[test]
fn each_is_explained() {
    let page = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/templates.md"));
    for (name, _) in TEMPLATES {
        assert!(page.contains(&format!("| `{name}` |")), "docs/templates.md has no line for {name}");
        let readme = read(&templates().join(name).join("README.md"));
        for heading in ["## Fill in", "## Needs", "## Watched", "## What is lost when"] {
            assert!(readme.contains(heading), "{name}/README.md has no {heading:?}");
        }
        assert!(readme.lines().all(|line| line.chars().count() <= 140), "{name}/README.md has long lines");
    }
}
