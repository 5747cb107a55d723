//! What is probed, as types?

use super::Splitbrain;
use crate::diagnostic::At;
use std::time::Duration;

/// `<check>`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    pub tcp: Vec<TcpCheck>,
    pub ping: Vec<PingCheck>,
    pub intf: Vec<IntfCheck>,
    pub ip: Vec<IpCheck>,
    pub module: Vec<ModuleCheck>,
    pub custom: Vec<CustomCheck>,
    pub splitbrain: Option<Splitbrain>,
}

/// When a checker runs: the class that is switched around the scripts of the same name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// From `prestart` to `poststop`.
    Pre,
    Prim,
    Second,
    Both,
}

/// What the rule made of a checker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckAction {
    Wait,
    Stop,
    StopStart,
    Restart,
    /// No rule is made.
    NoAction,
}

/// `<tcp>`: a connection is accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpCheck {
    pub ident: String,
    pub when: When,
    pub action: CheckAction,
    /// Address or host name, without brackets.
    pub host: String,
    pub port: u16,
    pub interval: Duration,
    pub timeout: Duration,
}

/// `<ping>`: an ICMP echo is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingCheck {
    pub ident: String,
    pub when: When,
    pub action: CheckAction,
    pub host: String,
    pub interval: Duration,
    pub timeout: Duration,
}

/// `<intf>`: the interface that owns an address has its link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IntfCheck {
    pub ident: String,
    pub local_addr: String,
}

/// `<ip>`: an address is configured on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IpCheck {
    pub ident: String,
    pub when: When,
    pub addr: String,
    pub interval: Duration,
}

/// `<module>`: another module is ready.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModuleCheck {
    pub ident: String,
    /// The other module.
    pub name: String,
    pub host: String,
    pub port: u16,
    pub interval: Duration,
    pub timeout: Duration,
}

/// `<custom>`: an executable of the module reports by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CustomCheck {
    pub ident: String,
    pub when: When,
    pub action: CheckAction,
    /// Absolute, or relative to the module's `bin`.
    pub exec: String,
    /// Words passed behind the module's and the resource's name.
    pub arg: String,
    pub(crate) at: At,
}

impl When {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pre => "pre",
            Self::Prim => "prim",
            Self::Second => "second",
            Self::Both => "both",
        }
    }
}

impl CheckAction {
    /// The word of the file.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Wait => "wait",
            Self::Stop => "stop",
            Self::StopStart => "stopstart",
            Self::Restart => "restart",
            Self::NoAction => "noaction",
        }
    }

    pub(crate) fn rule(self) -> Option<rules::Action> {
        Some(match self {
            Self::Wait => rules::Action::Wait,
            Self::Stop => rules::Action::Stop,
            Self::StopStart => rules::Action::StopStart,
            Self::Restart => rules::Action::Restart,
            Self::NoAction => return None,
        })
    }
}

impl Checks {
    /// Every checker's resource (`tcp.web`) and when it runs; without `<splitbrain>`, which is asked for only at an isolation.
    pub fn resources(&self) -> Vec<(String, When)> {
        let mut all: Vec<(String, When)> = Vec::new();
        all.extend(self.tcp.iter().map(|c| (format!("tcp.{}", c.ident), c.when)));
        all.extend(self.ping.iter().map(|c| (format!("ping.{}", c.ident), c.when)));
        all.extend(self.intf.iter().map(|c| (format!("intf.{}", c.ident), When::Pre)));
        all.extend(self.ip.iter().map(|c| (format!("ip.{}", c.ident), c.when)));
        all.extend(self.module.iter().map(|c| (format!("module.{}", c.ident), When::Pre)));
        all.extend(self.custom.iter().map(|c| (format!("custom.{}", c.ident), c.when)));
        all
    }

    /// Whether anything runs all the time (`<splitbrain>` does not).
    pub fn any(&self) -> bool {
        !self.resources().is_empty()
    }

    /// Label, class, ident and action of the rules that `action` makes.
    pub(crate) fn rules(&self) -> Vec<rules::Rule> {
        let rule = |prefix: &str, class: &str, ident: &str, action: CheckAction| {
            Some(rules::Rule {
                label: format!("{prefix}_{ident}"),
                condition: rules::Expression::is_down(rules::Resource::local(class, rules::Id::Name(ident.to_owned()))),
                action: action.rule()?,
                origin: rules::Origin::Checker,
            })
        };
        let tcp = self.tcp.iter().filter_map(|c| rule("t", "tcp", &c.ident, c.action));
        let ping = self.ping.iter().filter_map(|c| rule("p", "ping", &c.ident, c.action));
        let custom = self.custom.iter().filter_map(|c| rule("c", "custom", &c.ident, c.action));
        tcp.chain(ping).chain(custom).collect()
    }
}
