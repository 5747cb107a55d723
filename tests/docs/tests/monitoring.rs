//! Do the dashboard and the alerts speak of metrics that exist, and do the alerts work?

#![allow(clippy::unwrap_used)] // a test may panic

use sk_health::metrics::FAMILIES;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

fn monitoring(name: &str) -> PathBuf {
    docs::root().join("docs/monitoring").join(name)
}

fn text(name: &str) -> String {
    std::fs::read_to_string(monitoring(name)).unwrap()
}

/// Words that begin like a metric of ours.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').filter(|word| word.starts_with("sk_")).collect()
}

#[test]
fn every_metric_that_is_used_exists() {
    let known: BTreeSet<&str> = FAMILIES.iter().map(|f| f.name).collect();
    for name in ["alerts.yml", "alerts_test.yml", "grafana.json"] {
        let text = text(name);
        let used = metrics_in(&text);
        assert!(used.len() > 3, "{name}: {used:?}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{name} uses metrics that are not exposed: {unknown:?}");
    }
}

#[test]
fn the_dashboard_is_complete() {
    let board: serde_json::Value = serde_json::from_str(&text("grafana.json")).unwrap();
    let panels = board["panels"].as_array().unwrap();
    let mut numbers = BTreeSet::new();
    for panel in panels {
        assert!(numbers.insert(panel["id"].as_u64().unwrap()), "{panel}");
        let place = &panel["gridPos"];
        assert!(place["x"].as_u64().unwrap() + place["w"].as_u64().unwrap() <= 24, "{panel}");
        for target in panel["targets"].as_array().unwrap() {
            assert!(target["expr"].as_str().unwrap().contains("$module"), "{target}");
        }
    }
    assert!(panels.len() >= 10);
}

fn promtool(arguments: &[&str]) {
    let mut command = Command::new("promtool");
    let output = command.args(arguments).current_dir(docs::root().join("docs/monitoring")).output();
    let output = output.unwrap_or_else(|e| panic!("promtool cannot be run ({e}); install the package prometheus"));
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{arguments:?}: {}{}", said(&output.stdout), said(&output.stderr));
}

#[test]
fn prometheus_takes_the_files_and_the_alerts_fire_when_they_should() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml"]);
}

/// The exposition itself, as Prometheus reads it.
#[test]
fn prometheus_reads_what_is_exposed() {
    use std::io::Write;
    let mut out = sk_health::metrics::Exposition::default();
    for family in FAMILIES {
        let labels: Vec<(&str, &str)> = family.labels.iter().map(|l| (*l, "a\"b\\c\nd é")).collect();
        out.add(family.name, &labels, 1.5);
    }
    let mut child = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("promtool cannot be run ({e}); install the package prometheus"));
    child.stdin.take().unwrap().write_all(out.text().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}");
}
