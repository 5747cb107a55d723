//! How does a module read with its macros expanded and its defaults written out (`safeconf.xml`)?

mod checks;

use crate::balancing::Group;
use crate::duration::Unit;
use crate::farm::Farm;
use crate::model::{
    Async, Boot, CpuLatency, DefaultPrim, Errd, Heart, Mode, Module, Network, NotReplicated, Rfs, Sync, User, Vip,
    VirtualMac,
};
use crate::vip::{mac_text, mask_of};
use std::fmt::Write as _;
use std::time::Duration;

/// Writes one element after the other, indented.
pub(crate) struct Writer {
    out: String,
    open: Vec<&'static str>,
}

type Attributes<'a> = &'a [(&'a str, String)];

impl Writer {
    fn tag(&mut self, name: &str, attributes: Attributes<'_>, end: &str) {
        self.out.push_str(&"  ".repeat(self.open.len()));
        self.out.push('<');
        self.out.push_str(name);
        for (name, value) in attributes {
            // Writing to a String cannot fail.
            let _ = write!(self.out, " {name}=\"{}\"", escape(value));
        }
        self.out.push_str(end);
        self.out.push('\n');
    }

    /// Neither rules nor labels can hold the end of a section.
    fn section(&mut self, text: &str) {
        let _ = writeln!(self.out, "<![CDATA[\n{text}\n]]>");
    }

    pub fn empty(&mut self, name: &str, attributes: Attributes<'_>) {
        self.tag(name, attributes, "/>");
    }

    fn open(&mut self, name: &'static str, attributes: Attributes<'_>) {
        self.tag(name, attributes, ">");
        self.open.push(name);
    }

    fn close(&mut self) {
        if let Some(name) = self.open.pop() {
            self.out.push_str(&"  ".repeat(self.open.len()));
            let _ = writeln!(self.out, "</{name}>");
        }
    }
}

/// A text as the value of an attribute in double quotes.
pub fn escape(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    for c in value.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\n' | '\t' | '\r' => {
                let _ = write!(out, "&#{};", c as u32);
            }
            c => out.push(c),
        }
    }
    out
}

fn on_off(value: bool) -> String {
    if value { "on" } else { "off" }.to_owned()
}

fn seconds(value: Duration) -> String {
    Unit::Seconds.write(value)
}

fn milliseconds(value: Duration) -> String {
    Unit::Milliseconds.write(value)
}

impl Module {
    /// The content of `safeconf.xml`: reading it again gives the same module and no diagnostics but those of the old form of networks.
    pub fn expanded_xml(&self) -> String {
        let mut w = Writer { out: "<!DOCTYPE safe>\n".to_owned(), open: Vec::new() };
        w.open("safe", &[]);
        service(&mut w, self);
        match &self.mode {
            Mode::Mirror(heart) => write_heart(&mut w, heart),
            Mode::Farm(farm) => write_farm(&mut w, farm),
            Mode::Light => {}
        }
        if let Some(vip) = &self.vip {
            write_vip(&mut w, vip);
        }
        if let Some(rfs) = &self.rfs {
            write_rfs(&mut w, rfs);
        }
        if let Some(user) = &self.user {
            write_user(&mut w, user);
        }
        if let Some(errd) = &self.errd {
            write_errd(&mut w, errd);
        }
        if !self.vhost.is_empty() {
            w.open("vhost", &[]);
            for host in &self.vhost {
                let attributes = [
                    ("name", host.name.clone()),
                    ("envfile", host.env_file.clone()),
                    ("when", host.when.as_str().to_owned()),
                ];
                w.empty("virtualhostname", &attributes);
            }
            w.close();
        }
        checks::write(&mut w, &self.checks);
        checks::write_failover(&mut w, &self.failover);
        w.close();
        w.close();
        w.out
    }
}

fn service(w: &mut Writer, module: &Module) {
    let s = &module.service;
    let boot = match s.boot {
        Boot::On => "on",
        Boot::Off => "off",
        Boot::Auto => "auto",
        Boot::Ignore => "ignore",
    };
    let default_prim = match &s.default_prim {
        DefaultPrim::Alone => "alone",
        DefaultPrim::LastPrim => "lastprim",
        DefaultPrim::Node(name) => name,
    };
    let mut attributes = vec![
        ("mode", module.mode.as_str().to_owned()),
        ("boot", boot.to_owned()),
        ("boot_delay", seconds(s.boot_delay)),
    ];
    if module.heart().is_some() {
        attributes.push(("failover", on_off(s.failover)));
        attributes.push(("defaultprim", default_prim.to_owned()));
    }
    attributes.extend([
        ("maxloop", s.max_loop.to_string()),
        ("loop_interval", Unit::Hours.write(s.loop_interval)),
        ("automatic_reboot", on_off(s.automatic_reboot)),
    ]);
    w.open("service", &attributes);
}

fn write_farm(w: &mut Writer, farm: &Farm) {
    let mut attributes = vec![
        ("pulse", milliseconds(farm.pulse)),
        ("mlost_count", farm.leader_missed.to_string()),
        ("slost_count", farm.follower_missed.to_string()),
    ];
    if let Some(port) = farm.port {
        attributes.insert(0, ("port", port.to_string()));
    }
    w.open("farm", &attributes);
    for lan in &farm.lans {
        match &lan.network {
            Network::Lan(name) => w.empty("lan", &[("name", name.clone())]),
            Network::Addresses(addresses) => {
                w.open("lan", &[]);
                for address in addresses {
                    w.empty("node", &[("addr", bracketed(address))]);
                }
                w.close();
            }
        }
    }
    w.close();
}

fn write_heart(w: &mut Writer, heart: &Heart) {
    let mut attributes = vec![("pulse", milliseconds(heart.pulse)), ("timeout", milliseconds(heart.timeout))];
    if let Some(port) = heart.port {
        attributes.insert(0, ("port", port.to_string()));
    }
    w.open("heart", &attributes);
    for beat in &heart.heartbeats {
        let mut attributes = vec![
            ("ident", beat.ident.clone()),
            ("pulse", milliseconds(beat.pulse)),
            ("timeout", milliseconds(beat.timeout)),
        ];
        network(w, "heartbeat", &beat.network, &mut attributes);
    }
    w.close();
}

fn network(w: &mut Writer, element: &'static str, network: &Network, attributes: &mut Vec<(&'static str, String)>) {
    match network {
        Network::Lan(lan) => {
            attributes.insert(0, ("name", lan.clone()));
            w.empty(element, attributes);
        }
        Network::Addresses(addresses) => {
            w.open(element, attributes);
            for address in addresses {
                w.empty("server", &[("addr", bracketed(address))]);
            }
            w.close();
        }
    }
}

fn bracketed(address: &str) -> String {
    if address.contains(':') { format!("[{address}]") } else { address.to_owned() }
}

fn write_vip(w: &mut Writer, vip: &Vip) {
    let mut attributes = vec![("tcpreset", on_off(vip.tcp_reset))];
    if vip.script_control {
        attributes.push(("scriptcontrol", on_off(true)));
    }
    if !vip.early_drop {
        attributes.push(("earlydrop", "off".to_owned()));
    }
    w.open("vip", &attributes);
    w.open("interface_list", &[]);
    for interface in &vip.interfaces {
        let mut attributes = vec![
            ("check", on_off(interface.check)),
            ("arpreroute", on_off(interface.arp_reroute)),
            ("arpinterval", seconds(interface.arp_interval)),
            ("arpelapse", seconds(interface.arp_elapse)),
        ];
        if let Some(name) = &interface.name {
            attributes.insert(0, ("name", name.clone()));
        }
        w.open("interface", &attributes);
        // Addresses of one kind that stand together share an element, as they did in the file.
        for together in interface.addresses.chunk_by(|a, b| a.mac == b.mac) {
            match together.first().and_then(|a| a.mac) {
                None => w.open("real_interface", &[]),
                Some(mac) => {
                    let mut attributes = vec![("type", mac.as_str().to_owned())];
                    if let VirtualMac::Invisible(mac) = mac {
                        attributes.push(("addr", mac_text(mac)));
                    }
                    w.open("virtual_interface", &attributes);
                }
            }
            for address in together {
                let mut attributes = vec![
                    ("addr", address.addr.clone()),
                    ("where", address.place.as_str().to_owned()),
                    ("check", on_off(address.check)),
                    ("connections", on_off(address.connections)),
                ];
                if let Some(prefix) = address.prefix {
                    attributes.push(("netmask", mask_of(prefix).to_string()));
                }
                w.empty("virtual_addr", &attributes);
            }
            w.close();
        }
        w.close();
    }
    w.close();
    if !vip.groups.is_empty() {
        write_groups(w, &vip.groups);
    }
    w.close();
}

fn write_groups(w: &mut Writer, groups: &[Group]) {
    w.open("loadbalancing_list", &[]);
    for group in groups {
        w.open("group", &[("name", group.name.clone())]);
        if let Some(hosts) = &group.hosts {
            w.open("cluster", &[]);
            for host in hosts {
                w.empty("host", &[("name", host.name.clone()), ("power", host.power.to_string())]);
            }
            w.close();
        }
        for rule in &group.rules {
            let any = || "*".to_owned();
            w.empty(
                "rule",
                &[
                    ("virtual_addr", rule.addr.clone().unwrap_or_else(any)),
                    ("port", rule.port.map_or_else(any, |p| p.to_string())),
                    ("proto", rule.proto.as_str().to_owned()),
                    ("filter", rule.filter.as_str().to_owned()),
                ],
            );
        }
        w.close();
    }
    w.close();
}

fn write_rfs(w: &mut Writer, rfs: &Rfs) {
    let asynchronous = match rfs.asynchronous {
        Async::Second => "second",
        Async::None => "none",
    };
    let sync = match rfs.sync {
        Sync::Fsync => "fsync",
        Sync::Write => "write",
    };
    let mut attributes =
        vec![("async", asynchronous.to_owned()), ("sync", sync.to_owned()), ("sendtimeout", seconds(rfs.send_timeout))];
    if rfs.cpu_latency == CpuLatency::Off {
        attributes.push(("cpulatency", "off".to_owned()));
    }
    if let Some(limit) = rfs.rei_allowed_bandwidth_kbs {
        attributes.push(("reiallowedbw", limit.to_string()));
    }
    if let Some(delta) = rfs.sync_delta {
        attributes.push(("syncdelta", Unit::Minutes.write(delta)));
    }
    if let Some(dates) = &rfs.sync_at {
        attributes.push(("syncat", dates.to_string()));
    }
    for (name, on) in [("reidetail", rfs.rei_detail), ("scripts", rfs.scripts)] {
        if on {
            attributes.push((name, "on".to_owned()));
        }
    }
    w.open("rfs", &attributes);
    if let Some(flow) = &rfs.flow {
        network(w, "flow", &flow.network, &mut Vec::new());
    }
    for directory in &rfs.replicated {
        let mut attributes = vec![("dir", directory.dir.clone())];
        if directory.read_only {
            attributes.push(("mode", "read_only".to_owned()));
        }
        w.open("replicated", &attributes);
        for path in &directory.to_check {
            w.empty("tocheck", &[("path", path.clone())]);
        }
        for exclusion in &directory.not_replicated {
            let attribute = match exclusion {
                NotReplicated::Path(path) => ("path", path.clone()),
                NotReplicated::Regex(regex) => ("regexpath", regex.clone()),
            };
            w.empty("notreplicated", &[attribute]);
        }
        w.close();
    }
    w.close();
}

fn write_user(w: &mut Writer, user: &User) {
    let logging = if user.logging { "userlog" } else { "none" };
    w.open(
        "user",
        &[
            ("nicestoptimeout", seconds(user.nice_stop_timeout)),
            ("forcestoptimeout", seconds(user.force_stop_timeout)),
            ("logging", logging.to_owned()),
            ("userlogsize", user.userlog_size_kb.to_string()),
        ],
    );
    for var in &user.vars {
        w.empty("var", &[("name", var.name.clone()), ("value", var.value.clone())]);
    }
    w.close();
}

fn write_errd(w: &mut Writer, errd: &Errd) {
    w.open("errd", &[("polltimer", seconds(errd.poll_timer))]);
    for process in &errd.procs {
        let mut attributes = vec![("name", process.name.clone())];
        if process.service {
            attributes.push(("service", "yes".to_owned()));
        }
        if !process.restart_services.is_empty() {
            attributes.push(("restart_services", process.restart_services.join(", ")));
        }
        if let Some(regex) = &process.name_regex {
            attributes.push(("nameregex", regex.clone()));
        }
        if let Some(regex) = &process.arg_regex {
            attributes.push(("argregex", regex.clone()));
        }
        attributes.extend([
            ("atleast", process.at_least.to_string()),
            ("atmax", process.at_max.to_string()),
            ("action", process.action.as_str().to_owned()),
            ("class", process.class.clone()),
            ("start_after", process.start_after.to_string()),
        ]);
        w.empty("proc", &attributes);
    }
    w.close();
}
