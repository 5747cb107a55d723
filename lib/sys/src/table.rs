//! Which processes are there, under which names and command lines? Those of our own process namespace.

use procfs::process::Process as Entry;
use std::io::Read;

/// Longest command line that is read, in bytes; the rest is cut.
const COMMAND_LINE_LIMIT: u64 = 128 * 1024;

/// More than the kernel ever writes for a name.
const COMM_LIMIT: u64 = 64;

/// One running process. `pid` and `start` together name it for ever (until a reboot).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    pub pid: i32,
    pub parent: i32,
    /// The kernel's name of the process, at most 15 bytes.
    pub comm: String,
    /// Executable and arguments separated by blanks; empty for kernel threads.
    pub command_line: String,
    /// Clock ticks since boot.
    pub start: u64,
}

/// All running processes except zombies, by pid. Processes that end meanwhile are left out.
pub fn scan() -> std::io::Result<Vec<Process>> {
    scan_named(|_| true)
}

/// Those whose `comm` is wanted. Of the others nothing else is read: the kernel lets readers wait for a process that stands
/// still on its way through exec, as one does whose file system does not answer.
pub fn scan_named(wanted: impl Fn(&str) -> bool) -> std::io::Result<Vec<Process>> {
    let read = |entry: Entry| {
        let mut comm = Vec::new();
        entry.open_relative("comm").ok()?.take(COMM_LIMIT).read_to_end(&mut comm).ok()?;
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        wanted(&String::from_utf8_lossy(comm)).then(|| read_entry(&entry)).flatten()
    };
    let mut all: Vec<Process> =
        procfs::process::all_processes().map_err(io_error)?.filter_map(|p| read(p.ok()?)).collect();
    all.sort_by_key(|p| p.pid);
    Ok(all)
}

/// A process and everything that descends from it, parents first. As in [`scan_named`], no process that stands still is waited for.
pub fn descendants(pid: i32) -> Vec<i32> {
    let parents: Vec<(i32, i32)> = procfs::process::all_processes()
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.status().ok())
        .map(|status| (status.pid, status.ppid))
        .collect();
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        family.extend(parents.iter().filter(|(_, p)| *p == parent).map(|(child, _)| child));
        next += 1;
    }
    family
}

/// One process; `None` when there is none, or only a zombie.
pub fn read(pid: i32) -> Option<Process> {
    read_entry(&Entry::new(pid).ok()?)
}

/// Whether a signal stopped the process (SIGSTOP, job control): it does nothing until another one lets it go on.
pub fn is_stopped(pid: i32) -> bool {
    Entry::new(pid).and_then(|entry| entry.stat()).is_ok_and(|stat| stat.state == 'T')
}

fn read_entry(entry: &Entry) -> Option<Process> {
    let stat = entry.stat().ok()?;
    if matches!(stat.state, 'Z' | 'X' | 'x') {
        return None;
    }
    // Read as bytes: arguments need not be UTF-8.
    let mut raw = Vec::new();
    entry.open_relative("cmdline").ok()?.take(COMMAND_LINE_LIMIT).read_to_end(&mut raw).ok()?;
    while raw.last() == Some(&0) {
        raw.pop();
    }
    for byte in &mut raw {
        if *byte == 0 {
            *byte = b' ';
        }
    }
    Some(Process {
        pid: stat.pid,
        parent: stat.ppid,
        comm: stat.comm,
        command_line: String::from_utf8_lossy(&raw).into_owned(),
        start: stat.starttime,
    })
}

fn io_error(error: procfs::ProcError) -> std::io::Error {
    match error {
        procfs::ProcError::Io(e, _) => e,
        other => std::io::Error::other(other.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    use std::process::{Command, Stdio};

    #[test]
    fn a_child_is_found_with_arguments_that_are_not_utf8() {
        let mut child = Command::new("cat")
            .arg("-")
            .arg(OsStr::from_bytes(b"/proc/self/\xff"))
            .stdin(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        // spawn returns after exec, so the name is the program's.
        let found = scan().unwrap().into_iter().find(|p| p.pid == pid).unwrap();
        assert_eq!(found.comm, "cat");
        assert_eq!(found.command_line, "cat - /proc/self/\u{fffd}");
        assert_eq!(found.parent, std::process::id() as i32);
        assert_eq!(read(pid).as_ref(), Some(&found));
        assert!(scan_named(|comm| comm == "cat").unwrap().contains(&found));
        assert!(scan_named(|comm| comm != "cat").unwrap().iter().all(|p| p.pid != pid));
        child.kill().unwrap();
        let fd = crate::pidfd::PidFd::open(pid).unwrap().unwrap();
        assert!(fd.wait(std::time::Duration::from_secs(10)).unwrap());
        assert_eq!(read(pid), None, "a zombie does not run");
        child.wait().unwrap();
    }
}
