//! How do `<check>` and `<failover>` read with everything written out?

use super::{Writer, bracketed, seconds};
use crate::check::Checks;
use crate::duration::Unit;
use crate::failover::Failover;

pub(super) fn write(w: &mut Writer, checks: &Checks) {
    if *checks == Checks::default() {
        return;
    }
    w.open("check", &[]);
    for c in &checks.tcp {
        w.open(
            "tcp",
            &[
                ("ident", c.ident.clone()),
                ("when", c.when.as_str().to_owned()),
                ("action", c.action.as_str().to_owned()),
            ],
        );
        w.empty(
            "to",
            &[
                ("addr", bracketed(&c.host)),
                ("port", c.port.to_string()),
                ("interval", seconds(c.interval)),
                ("timeout", seconds(c.timeout)),
            ],
        );
        w.close();
    }
    for c in &checks.ping {
        w.open(
            "ping",
            &[
                ("ident", c.ident.clone()),
                ("when", c.when.as_str().to_owned()),
                ("action", c.action.as_str().to_owned()),
            ],
        );
        w.empty(
            "to",
            &[("addr", bracketed(&c.host)), ("interval", seconds(c.interval)), ("timeout", seconds(c.timeout))],
        );
        w.close();
    }
    for c in &checks.intf {
        w.open("intf", &[("ident", c.ident.clone()), ("when", "pre".to_owned())]);
        w.empty("to", &[("local_addr", bracketed(&c.local_addr))]);
        w.close();
    }
    for c in &checks.ip {
        w.open("ip", &[("ident", c.ident.clone()), ("when", c.when.as_str().to_owned())]);
        w.empty("to", &[("addr", bracketed(&c.addr)), ("interval", seconds(c.interval))]);
        w.close();
    }
    for c in &checks.module {
        w.open("module", &[("name", c.name.clone()), ("ident", c.ident.clone())]);
        w.empty(
            "to",
            &[
                ("addr", bracketed(&c.host)),
                ("port", c.port.to_string()),
                ("interval", seconds(c.interval)),
                ("timeout", seconds(c.timeout)),
            ],
        );
        w.close();
    }
    for c in &checks.custom {
        let mut attributes = vec![
            ("ident", c.ident.clone()),
            ("when", c.when.as_str().to_owned()),
            ("exec", c.exec.clone()),
            ("action", c.action.as_str().to_owned()),
        ];
        if !c.arg.is_empty() {
            attributes.push(("arg", c.arg.clone()));
        }
        w.empty("custom", &attributes);
    }
    if let Some(splitbrain) = &checks.splitbrain {
        splitbrain.write(w);
    }
    w.close();
}

pub(super) fn write_failover(w: &mut Writer, failover: &Failover) {
    if *failover == Failover::default() {
        return;
    }
    w.open(
        "failover",
        &[
            ("extends", if failover.extends { "yes" } else { "no" }.to_owned()),
            ("period", Unit::Milliseconds.write(failover.period)),
            ("handle_time", Unit::Milliseconds.write(failover.handle_time)),
        ],
    );
    if !failover.rules.is_empty() {
        let rules: Vec<String> = failover.rules.iter().map(ToString::to_string).collect();
        w.section(&rules.join("\n"));
    }
    if !failover.disabled.is_empty() {
        let lines: Vec<String> = failover.disabled.iter().map(|label| format!("Rules.disable(\"{label}\")")).collect();
        w.section(&format!("--Lua Rules\n{}", lines.join("\n")));
    }
    w.close();
}
