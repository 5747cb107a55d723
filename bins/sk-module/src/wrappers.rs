//! What does a configuration make for the module's scripts and operators: files of virtual host names, and wrappers that run the
//! application without the module.

use crate::configure::put_file as put;
use crate::instance::Instance;
use crate::{Failure, exit};
use std::fs;
use std::path::{Path, PathBuf};
use sys::roots::Roots;

/// First line of what is made, by which it is recognised.
const MADE: &str = "# Made by sk-module config; edit userconfig.xml instead.";
const LIBRARY: &str = "libvhost.so";

/// Whether a file of `bin` was made by a configuration, not by its author.
pub(crate) fn is_made(name: &str, path: &Path) -> bool {
    name.ends_with("_wrapper.sh") || fs::read(path).is_ok_and(|text| contains(&text, MADE.as_bytes()))
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).take(200).any(|w| w == part)
}

/// Writes what belongs into a staged configuration.
pub(crate) fn write(roots: &Roots, instance: &Instance, fresh: &Path) -> Result<(), Failure> {
    write_hosts(roots, instance, Some(fresh))?;
    let (start, stop) = application(instance);
    put(&fresh.join("bin").join(format!("{}_start_wrapper.sh", instance.module)), &start, 0o755)?;
    put(&fresh.join("bin").join(format!("{}_stop_wrapper.sh", instance.module)), &stop, 0o755)
}

/// Writes the files that stand elsewhere: last, when nothing can say no any more.
pub(crate) fn write_outside(roots: &Roots, instance: &Instance) -> Result<(), Failure> {
    write_hosts(roots, instance, None)
}

fn write_hosts(roots: &Roots, instance: &Instance, fresh: Option<&Path>) -> Result<(), Failure> {
    let absolute = |file: &str| file.starts_with('/');
    for host in instance.config.vhost.iter().filter(|h| absolute(&h.env_file) == fresh.is_none()) {
        let library = library(roots).ok_or_else(|| {
            Failure::new(exit::BAD_CONFIGURATION, format!("<vhost> needs the library {LIBRARY}, which is not there"))
                .hint(format!("install it as {}", roots.safe.join("private/lib").join(LIBRARY).display()))
        })?;
        let text = environment_file(&host.name, host.when.as_str(), &library);
        let path = match fresh {
            Some(fresh) => fresh.join("bin").join(&host.env_file),
            None => PathBuf::from(&host.env_file),
        };
        put(&path, &text, 0o644)?;
    }
    Ok(())
}

/// Installed, or beside this program (where it was built).
fn library(roots: &Roots) -> Option<PathBuf> {
    [Some(roots.safe.join("private/lib").join(LIBRARY)), sys::program::beside(LIBRARY)]
        .into_iter()
        .flatten()
        .find(|p| p.exists())
}

/// Shell words that give the application its name, and take it back when they are read a second time in the same shell.
fn environment_file(name: &str, when: &str, library: &Path) -> String {
    let scripts = match when {
        "prim" => "*_prim|*_both|''",
        "second" => "*_second|*_sec|*_both|''",
        _ => "*",
    };
    let library = quoted(&library.display().to_string());
    format!(
        "{MADE}\n\
         # Virtual host name {name} ({when}): `. FILE` before the application is started; once more takes it back.\n\
         case \"${{SAFESCRIPT-}}\" in\n\
         {scripts})\n  \
           if [ \"${{SK_VHOST_NAME-}}\" = {name} ]; then\n    \
             LD_PRELOAD=$SK_VHOST_BEFORE; unset SK_VHOST_NAME SK_VHOST_BEFORE\n    \
             if [ -n \"$LD_PRELOAD\" ]; then export LD_PRELOAD; else unset LD_PRELOAD; fi\n  \
           else\n    \
             SK_VHOST_BEFORE=${{LD_PRELOAD-}} SK_VHOST_NAME={name} LD_PRELOAD={library}${{LD_PRELOAD:+:$LD_PRELOAD}}\n    \
             export SK_VHOST_BEFORE SK_VHOST_NAME LD_PRELOAD\n  \
           fi ;;\n\
         esac\n"
    )
}

/// In single quotes of a shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

/// Start and stop of the application with its addresses, for use while the module is stopped.
fn application(instance: &Instance) -> (String, String) {
    let mut head = format!("#!/bin/sh\n{MADE}\n");
    head += &format!(
        "# For use while the module {} is stopped: nothing is replicated and nobody takes over.\n",
        instance.module
    );
    for (name, value) in instance.environment() {
        head += &format!("export {name}={}\n", quoted(&value));
    }
    head += &format!(
        "if [ \"$({} state -m {} -q >/dev/null 2>&1; echo $?)\" != 0 ]; then\n  echo 'stop the module first' >&2; exit 1\nfi\n",
        quoted(&instance.program("sk-module")),
        instance.module
    );
    let vip = quoted(&instance.program("sk-vip"));
    let (mut start, mut stop) = (head.clone(), head);
    let farm = matches!(instance.config.mode, config::Mode::Farm(_) | config::Mode::Light);
    let state = if farm { "UP" } else { "ALONE" };
    // The addresses of a farm are shared by a filter; one node alone may hold them plainly.
    for interface in instance.config.vip.iter().flat_map(|v| &v.interfaces) {
        for address in &interface.addresses {
            let target = address.prefix.map_or(address.addr.clone(), |prefix| format!("{}/{prefix}", address.addr));
            let name = interface.name.as_ref().map_or(String::new(), |name| format!(" --interface {}", quoted(name)));
            start += &format!("{vip} add {}{name} || exit 1\n", quoted(&target));
        }
    }
    for script in ["start_both", "start_prim"] {
        start +=
            &format!("[ ! -x \"$SAFEUSERBIN/{script}\" ] || \"$SAFEUSERBIN/{script}\" STOP {state} start || exit 1\n");
    }
    for script in ["stop_prim", "stop_both"] {
        for force in ["", "force "] {
            stop +=
                &format!("[ ! -x \"$SAFEUSERBIN/{script}\" ] || \"$SAFEUSERBIN/{script}\" {force}{state} STOP stop\n");
        }
    }
    for interface in instance.config.vip.iter().flat_map(|v| &v.interfaces) {
        for address in &interface.addresses {
            stop += &format!("{vip} remove {}\n", quoted(&address.addr));
        }
    }
    (start, stop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    fn shell(script: &str, called: &str) -> String {
        let output =
            Command::new("sh").args(["-euc", script]).env("SAFESCRIPT", called).env_remove("LD_PRELOAD").output();
        let output = output.map(|o| (o.status.success(), String::from_utf8_lossy(&o.stdout).into_owned()));
        output.map_or_else(|e| e.to_string(), |(good, text)| format!("{good} {}", text.trim()))
    }

    #[test]
    fn the_file_gives_the_name_and_takes_it_back() -> std::io::Result<()> {
        let directory = tempfile::tempdir()?;
        let file = directory.path().join("env");
        // A library that does not exist: the loader says so and goes on, the variables are what counts here.
        fs::write(&file, environment_file("db.example", "prim", Path::new("/it's/lib.so")))?;
        let file = file.display();
        let show = r#"printf '%s|%s' "${SK_VHOST_NAME-}" "${LD_PRELOAD-}""#;
        assert_eq!(shell(&format!(". {file}; {show}"), "start_prim"), "true db.example|/it's/lib.so");
        assert_eq!(shell(&format!(". {file}; . {file}; {show}"), "start_prim"), "true |");
        assert_eq!(shell(&format!(". {file}; {show}"), ""), "true db.example|/it's/lib.so", "by hand");
        assert_eq!(shell(&format!(". {file}; {show}"), "start_second"), "true |", "not on this role");
        let before = format!("LD_PRELOAD=/other.so; export LD_PRELOAD; . {file}; {show}; . {file}; {show}");
        assert_eq!(shell(&before, "stop_prim"), "true db.example|/it's/lib.so:/other.so|/other.so");
        Ok(())
    }
}
