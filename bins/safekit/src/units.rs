//! Which services of the host stand for those of SafeKit? `webserver`, `boot web…` and `notification`, by systemd.

use crate::cli::{Daemon, Failure, Switch};
use crate::paths::Place;
use crate::verbs::{noted, put};
use std::path::Path;
use std::process::{Command, Stdio};

/// Answers the health page, as SafeKit's web service does.
const WEB: &str = "sk-health.service";
const NOTIFY: &str = "sk-notify.service";

/// `webserver start|stop|restart`.
pub fn webserver(place: &Place, action: Daemon) -> Result<u8, Failure> {
    let verb = match action {
        Daemon::Start => "start",
        Daemon::Stop => "stop",
        Daemon::Restart => "restart",
    };
    change(place, &["webserver", verb], &[verb, WEB])
}

/// `boot webon|weboff|webstatus`.
pub fn boot(place: &Place, action: Switch) -> Result<u8, Failure> {
    match action {
        Switch::Enable => change(place, &["boot", "webon"], &["enable", WEB]),
        Switch::Disable => change(place, &["boot", "weboff"], &["disable", WEB]),
        Switch::Status => status(WEB),
    }
}

/// `notification enable|disable|status`: now and at each boot.
pub fn notification(place: &Place, action: Switch) -> Result<u8, Failure> {
    match action {
        Switch::Enable => change(place, &["notification", "enable"], &["enable", "--now", NOTIFY]),
        Switch::Disable => change(place, &["notification", "disable"], &["disable", "--now", NOTIFY]),
        Switch::Status => status(NOTIFY),
    }
}

fn change(place: &Place, words: &[&str], arguments: &[&str]) -> Result<u8, Failure> {
    let words: Vec<String> = words.iter().map(|w| (*w).to_owned()).collect();
    let logged = sys::commands::Command::start(&place.roots, "safekit", "", &words);
    noted(logged, || {
        let status = systemctl(arguments)?.status().map_err(|e| Failure::sys("cannot run systemctl", e))?;
        if status.success() {
            return Ok(0);
        }
        Err(Failure::new(
            1,
            format!("systemctl {} failed; see: journalctl -u {}", arguments.join(" "), unit(arguments)),
        ))
    })
}

/// Prints `on` or `off`: whether it starts with the host.
fn status(unit: &str) -> Result<u8, Failure> {
    let output = systemctl(&["is-enabled", unit])?
        .stderr(Stdio::null())
        .output()
        .map_err(|e| Failure::sys("cannot run systemctl", e))?;
    let on = output.stdout.starts_with(b"enabled");
    put(if on { "on" } else { "off" })?;
    Ok(0)
}

fn unit<'a>(arguments: &[&'a str]) -> &'a str {
    arguments.last().copied().unwrap_or_default()
}

fn systemctl(arguments: &[&str]) -> Result<Command, Failure> {
    // As sd_booted(3) finds out.
    if !Path::new("/run/systemd/system").is_dir() {
        let program = unit(arguments).trim_end_matches(".service");
        return Err(Failure::new(
            1,
            format!("this host has no systemd; run the program by whatever starts services here: {program} --help"),
        ));
    }
    let mut command = Command::new("systemctl");
    command.args(arguments).stdin(Stdio::null());
    Ok(command)
}
