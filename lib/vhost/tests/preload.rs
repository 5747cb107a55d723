//! Do ordinary programs see the virtual name, and nothing else changed?

#![allow(clippy::unwrap_used, clippy::expect_used)] // a test that cannot go on has failed

use std::path::PathBuf;
use std::process::{Command, Output};

/// Built for this test beside it, without a hash in its name.
fn library() -> PathBuf {
    let own = std::env::current_exe().unwrap();
    let deps = own.parent().unwrap();
    let found = [deps.join("libvhost.so"), deps.parent().unwrap().join("libvhost.so")].into_iter().find(|p| p.exists());
    found.expect("cargo builds the library with its tests")
}

fn run(name: Option<&str>, program: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(program);
    command.args(arguments).env("LD_PRELOAD", library());
    match name {
        Some(name) => command.env("SK_VHOST_NAME", name),
        None => command.env_remove("SK_VHOST_NAME"),
    };
    command.output().unwrap()
}

fn text(output: &Output) -> String {
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout.clone()).unwrap().trim_end().to_owned()
}

#[test]
fn uname_and_hostname_say_the_virtual_name() {
    assert_eq!(text(&run(Some("virtual"), "uname", &["-n"])), "virtual");
    let words = text(&run(Some("virtual"), "uname", &["-srm"]));
    assert_eq!(words, text(&Command::new("uname").arg("-srm").output().unwrap()), "the rest is the kernel's");
    if let Ok(output) = Command::new("hostname").output()
        && output.status.success()
    {
        assert_eq!(text(&run(Some("virtual"), "hostname", &[])), "virtual");
    }
}

#[test]
fn without_a_name_nothing_changes() {
    let truth = text(&Command::new("uname").arg("-n").output().unwrap());
    assert_eq!(text(&run(None, "uname", &["-n"])), truth);
    assert_eq!(text(&run(Some(""), "uname", &["-n"])), truth);
}

#[test]
fn long_names_are_cut_as_the_kernel_cuts_them() {
    let long = "x".repeat(500);
    assert_eq!(text(&run(Some(&long), "uname", &["-n"])), "x".repeat(64));
}

/// The functions themselves, with every size of buffer, in a program that is not ours.
#[test]
fn gethostname_respects_its_buffer() {
    let script = r##"
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for size in range(0, 12):
    buffer = ctypes.create_string_buffer(b"#" * 20, 20)
    result = libc.gethostname(buffer, ctypes.c_size_t(size))
    fits = size > len("virtual")
    assert (result == 0) == fits, (size, result)
    if not fits:
        assert ctypes.get_errno() == 36, ctypes.get_errno()
        assert buffer.raw[size:] == b"#" * (20 - size), (size, buffer.raw)
    else:
        assert buffer.value == b"virtual" and buffer.raw[8:] == b"#" * 12, buffer.raw
assert libc.uname(None) == -1
import socket
assert socket.gethostname() == "virtual"
print("fine")
"##;
    match Command::new("python3").arg("--version").output() {
        Ok(output) if output.status.success() => {
            assert_eq!(text(&run(Some("virtual"), "python3", &["-c", script])), "fine");
        }
        // Covered by uname and hostname above where there is no Python.
        _ => {}
    }
}
