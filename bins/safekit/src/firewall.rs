//! How are the ports of this node and its modules opened and closed in the firewall of the host? `-r firewallcfg add|del [AM]`.

use crate::cli::Failure;
use crate::modules::number;
use crate::paths::Place;
use crate::ports;
use crate::verbs::noted;
use config::Port;
use std::process::{Command, Stdio};

const USAGE: &str = "usage: safekit -r firewallcfg add|del [AM]";

/// What manages the firewall here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manager {
    Firewalld,
    Ufw,
}

/// With a module its ports, else those of the node and of all modules with an applied configuration.
pub fn run(place: &Place, arguments: &[String]) -> Result<u8, Failure> {
    let (action, module) = match arguments {
        [action] => (action.as_str(), None),
        [action, module] => (action.as_str(), Some(sys::roots::module_name(module).map_err(Failure::usage)?)),
        _ => return Err(Failure::usage(USAGE)),
    };
    let open = match action {
        "add" => true,
        "del" => false,
        other => return Err(Failure::usage(format!("firewallcfg has no action {other:?}; {USAGE}"))),
    };
    let wanted = wanted(place, module.as_deref())?;
    let Some(manager) = manager()? else {
        let list: Vec<String> = wanted.iter().map(|p| format!("{} dport {}", p.protocol.as_str(), p.number)).collect();
        return Err(Failure::new(
            1,
            format!(
                "neither firewalld nor ufw is active here; where something else drops packets, accept from the other nodes: {}",
                list.join(", ")
            ),
        ));
    };
    let mut words = vec!["firewallcfg".to_owned(), action.to_owned()];
    words.extend(module.clone());
    let logged = sys::commands::Command::start(&place.roots, "safekit", module.as_deref().unwrap_or_default(), &words);
    noted(logged, || commands(manager, open, &wanted).iter().try_for_each(|words| call(words)).map(|()| 0))
}

fn wanted(place: &Place, module: Option<&str>) -> Result<Vec<Port>, Failure> {
    let applied = |module: &str| {
        let id = number(place, module)?;
        id.map(|id| ports::of_module(place, module, id)).transpose()
    };
    if let Some(module) = module {
        return applied(module)?.ok_or_else(|| {
            Failure::new(1, format!("module {module} has no configuration applied; see: safekit config -m {module}"))
        });
    }
    let mut all = ports::of_node(place)?;
    for module in place.modules()? {
        for port in applied(&module)?.unwrap_or_default() {
            if !all.iter().any(|p| (p.protocol, p.number) == (port.protocol, port.number)) {
                all.push(port);
            }
        }
    }
    Ok(all)
}

fn manager() -> Result<Option<Manager>, Failure> {
    let says = |program: &str, argument: &str, answer: &str| {
        let output = Command::new(program).arg(argument).stdin(Stdio::null()).stderr(Stdio::null()).output();
        match output {
            Ok(output) => Ok(String::from_utf8_lossy(&output.stdout).contains(answer)),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(Failure::sys(format!("cannot run {program}"), e)),
        }
    };
    if says("firewall-cmd", "--state", "running")? {
        return Ok(Some(Manager::Firewalld));
    }
    Ok(says("ufw", "status", "Status: active")?.then_some(Manager::Ufw))
}

fn commands(manager: Manager, open: bool, ports: &[Port]) -> Vec<Vec<String>> {
    let line = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    let name = |p: &Port| format!("{}/{}", p.number, p.protocol.as_str());
    match manager {
        Manager::Firewalld => {
            let option = if open { "--add-port" } else { "--remove-port" };
            let mut change = line(&["firewall-cmd", "--quiet", "--permanent"]);
            change.extend(ports.iter().map(|p| format!("{option}={}", name(p))));
            vec![change, line(&["firewall-cmd", "--quiet", "--reload"])]
        }
        Manager::Ufw => {
            let verb: &[&str] = if open { &["ufw", "allow"] } else { &["ufw", "delete", "allow"] };
            ports.iter().map(|p| [line(verb), vec![name(p)]].concat()).collect()
        }
    }
}

fn call(words: &[String]) -> Result<(), Failure> {
    let (program, arguments) = words.split_first().map_or(("", words), |(p, a)| (p.as_str(), a));
    let status = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .map_err(|e| Failure::sys(format!("cannot run {program}"), e))?;
    if status.success() { Ok(()) } else { Err(Failure::new(1, format!("{} failed", words.join(" ")))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use config::Protocol;

    #[test]
    fn each_manager_is_told_in_its_words() {
        let ports = [
            Port { user: "heart", protocol: Protocol::Udp, number: 8888 },
            Port { user: "rfs safenfs_port", protocol: Protocol::Tcp, number: 5600 },
        ];
        let told = |manager, open| commands(manager, open, &ports).iter().map(|c| c.join(" ")).collect::<Vec<_>>();
        assert_eq!(
            told(Manager::Firewalld, true),
            [
                "firewall-cmd --quiet --permanent --add-port=8888/udp --add-port=5600/tcp",
                "firewall-cmd --quiet --reload"
            ]
        );
        assert!(told(Manager::Firewalld, false)[0].ends_with("--remove-port=8888/udp --remove-port=5600/tcp"));
        assert_eq!(told(Manager::Ufw, true), ["ufw allow 8888/udp", "ufw allow 5600/tcp"]);
        assert_eq!(told(Manager::Ufw, false), ["ufw delete allow 8888/udp", "ufw delete allow 5600/tcp"]);
    }
}
