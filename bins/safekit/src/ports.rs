//! Which ports does a module need? `module getports`, in the words that firewall scripts look for.

use crate::cli::Failure;
use crate::paths::Place;
use config::{Module, Port, Protocol};

/// The health page, see `sk-health`.
const HEALTH: Port = Port { user: "webconsole", protocol: Protocol::Tcp, number: 9010 };

/// One line a port: those of the node first, then those of the module.
pub fn lines(place: &Place, module: &str, id: u16) -> Result<Vec<String>, Failure> {
    let cluster = place.roots.cluster_xml();
    let (cluster, _) = config::load_cluster(&cluster);
    let cluster = cluster.ok_or_else(|| {
        Failure::new(
            1,
            format!("there is no valid {}; see: safekit cluster confcheck", place.roots.cluster_xml().display()),
        )
    })?;
    let channel = Port { user: "safeadmin", protocol: Protocol::Tcp, number: cluster.port };
    let mut ports = vec![channel, HEALTH];
    ports.extend(configuration(place, module)?.ports(id));
    Ok(ports.iter().map(line).collect())
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
