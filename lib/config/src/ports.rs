//! Which ports must a firewall let pass between the nodes of a module?

use crate::model::{Mode, Module, rfs_port};

/// A transport protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Tcp,
    Udp,
}

impl Protocol {
    /// As firewalls write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// One port of a module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Port {
    /// What uses it, in the words of `safekit module getports`.
    pub user: &'static str,
    pub protocol: Protocol,
    pub number: u16,
}

impl Module {
    /// What its nodes say to each other; `id` is the module's number.
    pub fn ports(&self, id: u16) -> Vec<Port> {
        let mut ports = Vec::new();
        let mut add = |user, protocol, number| ports.push(Port { user, protocol, number });
        match &self.mode {
            Mode::Mirror(_) => add("heart", Protocol::Udp, self.heart_port()),
            Mode::Farm(farm) => add("farm", Protocol::Udp, farm.port(id)),
            Mode::Light => {}
        }
        if self.rfs.is_some() {
            add("rfs safenfs_port", Protocol::Tcp, rfs_port(id));
        }
        ports
    }
}

#[cfg(test)]
mod tests {
    use crate::farm_port;

    fn ports(text: &str, id: u16) -> Vec<(&'static str, &'static str, u16)> {
        let (module, found) = crate::parse_module("userconfig.xml", text, &|_| None);
        let module = module.unwrap_or_else(|| panic!("{found:?}"));
        module.ports(id).iter().map(|p| (p.user, p.protocol.as_str(), p.number)).collect()
    }

    #[test]
    fn each_kind_of_module_has_its_ports() {
        let mirror = r#"<safe><service mode="mirror"><heart><heartbeat name="default"/></heart>
            <rfs><replicated dir="/srv/data"/></rfs></service></safe>"#;
        assert_eq!(ports(mirror, 1), [("heart", "udp", 8888), ("rfs safenfs_port", "tcp", 5600)]);
        assert_eq!(ports(mirror, 3)[1], ("rfs safenfs_port", "tcp", 5608));
        let farm = r#"<safe><service mode="farm"><farm><lan name="default"/></farm></service></safe>"#;
        assert_eq!(ports(farm, 2), [("farm", "udp", farm_port(2))]);
        assert_eq!(farm_port(2), 4806);
        assert_eq!(ports(r#"<safe><service mode="light"></service></safe>"#, 2), []);
    }
}
