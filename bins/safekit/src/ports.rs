//! Which ports does a module need? `module getports`, in the words that firewall scripts look for.

use crate::cli::Failure;
use crate::paths::Place;
use config::{Module, Port, Protocol};

/// The health page, see `sk-health`.
const HEALTH: Port = Port { user: "webconsole", protocol: Protocol::Tcp, number: 9010 };

/// One line a port: those of the node first, then those of the module.
pub fn lines(place: &Place, module: &str, id: u16) -> Result<Vec<String>, Failure> {
    Ok(of_node(place)?.iter().chain(&of_module(place, module, id)?).map(line).collect())
}

/// What all modules use together.
pub fn of_node(place: &Place) -> Result<Vec<Port>, Failure> {
    let file = place.roots.cluster_xml();
    let (cluster, _) = config::load_cluster(&file);
    let cluster = cluster.ok_or_else(|| {
        Failure::new(1, format!("there is no valid {0}; see: safekit cluster confcheck {0}", file.display()))
    })?;
    Ok(vec![Port { user: "safeadmin", protocol: Protocol::Tcp, number: cluster.port }, HEALTH])
}

/// Those of a module, as its applied configuration says.
pub fn of_module(place: &Place, module: &str, id: u16) -> Result<Vec<Port>, Failure> {
    Ok(configuration(place, module)?.ports(id))
}

fn line(port: &Port) -> String {
    let separator = if port.user.ends_with("_port") { "" } else { " port" };
    format!("{}{separator} {} {}", port.user, port.protocol.as_str().to_uppercase(), port.number)
}

/// What is applied.
fn configuration(place: &Place, module: &str) -> Result<Module, Failure> {
    let file = place.roots.module_active(module).join("conf/userconfig.xml");
    let (parsed, _) = config::load_module(&file, &|name| std::env::var(name).ok());
    parsed.ok_or_else(|| {
        Failure::new(
            1,
            format!("module {module} has no valid configuration applied; see: safekit confcheck -m {module}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_those_that_scripts_know() {
        assert_eq!(line(&HEALTH), "webconsole port TCP 9010");
        let rfs = Port { user: "rfs safenfs_port", protocol: Protocol::Tcp, number: 5600 };
        assert_eq!(line(&rfs), "rfs safenfs_port TCP 5600");
        let heart = Port { user: "heart", protocol: Protocol::Udp, number: 8888 };
        assert_eq!(line(&heart), "heart port UDP 8888");
    }
}
