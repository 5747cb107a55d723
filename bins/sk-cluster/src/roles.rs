//! Who may do what: keys of operators are made, shown and taken away, on all nodes.

use crate::hosts::Hosts;
use crate::{Failure, bundle, exit, put};
use serde_json::json;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use sys::roots::Roots;
use wire::ClusterKey;
use wire::node::Bundle;
use wire::role::{OPERATORS_LIMIT, Operator, Role, is_operator_name, parse_operators};

fn read(roots: &Roots) -> Result<(Bundle, Vec<Operator>), Failure> {
    let bundle = bundle::read(roots)?.ok_or_else(|| {
        Failure::new(exit::REFUSED, format!("{} does not exist", roots.cluster_xml().display()))
            .hint("sk-cluster create makes it")
    })?;
    let operators = parse_operators(&bundle.operators).map_err(|line| {
        Failure::new(exit::REFUSED, format!("{}, line {line}: not NAME ROLE KEY", roots.operators().display()))
            .hint("remove the line, or bring the file from another node: sk-cluster push, there")
    })?;
    Ok((bundle, operators))
}

/// Applies it here, then brings it to the others. What this node refuses nobody gets.
fn write(hosts: &Hosts, bundle: &Bundle, operators: &[Operator]) -> Result<u8, Failure> {
    let bundle = Bundle { operators: operators.iter().map(Operator::to_line).collect(), ..bundle.clone() };
    bundle::apply(hosts.roots, &bundle)?;
    let code = bundle::send(hosts, None, &bundle)?;
    if code != 0 {
        sys::warn!("sk-cluster: not all nodes have it; when they are back: sk-cluster push");
    }
    Ok(code)
}

/// `sk-cluster role add`.
pub fn add(hosts: &Hosts, name: &str, role: Role, output: &Path) -> Result<u8, Failure> {
    if !is_operator_name(name) {
        return Err(Failure::new(exit::USAGE, format!("{name:?} is no name of an operator"))
            .hint("use letters, digits, '.', '_', '-' and '@'"));
    }
    let (bundle, mut operators) = read(hosts.roots)?;
    if operators.iter().any(|o| o.name == name) {
        return Err(Failure::new(exit::REFUSED, format!("{name} has a key already"))
            .hint(format!("sk-cluster role remove {name}")));
    }
    if operators.len() >= OPERATORS_LIMIT {
        return Err(Failure::new(exit::REFUSED, format!("there are {OPERATORS_LIMIT} operators already")));
    }
    let key = ClusterKey::generate().map_err(|e| Failure::system("the key", e))?;
    let operator = Operator { name: name.to_owned(), role, key };
    let failed = |e: std::io::Error| {
        if e.kind() == std::io::ErrorKind::AlreadyExists {
            Failure::new(exit::REFUSED, format!("{} exists already", output.display())).hint("name a new file")
        } else {
            Failure::system(output.display(), e)
        }
    };
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(output).map_err(failed)?;
    file.write_all(operator.to_line().as_bytes()).and_then(|()| file.sync_all()).map_err(failed)?;
    operators.push(operator);
    let written = write(hosts, &bundle, &operators);
    if written.is_err() {
        // A key that no node knows.
        let _ = std::fs::remove_file(output);
    }
    let code = written?;
    put(&format!("{} is written: give it to {name}, and to nobody else", output.display()))?;
    put(&format!("used as: sk-cluster --key {} on HOSTS COMMAND", output.display()))?;
    Ok(code)
}

/// `sk-cluster role list`.
pub fn list(roots: &Roots, as_json: bool) -> Result<u8, Failure> {
    let (_, operators) = read(roots)?;
    if !as_json {
        put(&format!("{:<24} {:<8} FINGERPRINT", "NAME", "ROLE"))?;
    }
    for operator in operators {
        let fingerprint = operator.key.fingerprint();
        if as_json {
            put(&json!({"name": operator.name, "role": operator.role, "fingerprint": fingerprint}).to_string())?;
        } else {
            put(&format!("{:<24} {:<8} {fingerprint}", operator.name, operator.role))?;
        }
    }
    Ok(0)
}

/// `sk-cluster role remove`.
pub fn remove(hosts: &Hosts, name: &str) -> Result<u8, Failure> {
    let (bundle, mut operators) = read(hosts.roots)?;
    let before = operators.len();
    operators.retain(|o| o.name != name);
    if operators.len() == before {
        return Err(Failure::new(exit::REFUSED, format!("there is no operator {name}")).hint("sk-cluster role list"));
    }
    write(hosts, &bundle, &operators)
}
