//! Whose umask does a thread make new objects with? Each request brings its caller's, but threads of a process share one unless they ask for their own.

use rustix::fs::Mode;
use std::cell::Cell;

thread_local! {
    /// The umask of this thread, if it has one of its own.
    static OWN: Cell<Option<u32>> = const { Cell::new(None) };
}

/// Gives this thread a umask of its own, which hides nothing.
pub fn own() {
    let alone = nix::sched::unshare(nix::sched::CloneFlags::CLONE_FS).is_ok();
    if alone {
        rustix::process::umask(Mode::empty());
    }
    OWN.set(alone.then_some(0));
}

/// What this thread makes from now on is made with this umask.
pub fn set(umask: u32) {
    // A system call for each file that is made, and nearly all with the same one.
    if OWN.get() != Some(umask) {
        rustix::process::umask(Mode::from_raw_mode(umask));
        OWN.set(OWN.get().map(|_| umask));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn each_thread_has_its_own() {
        let directory = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for umask in [0, 0o22, 0o77] {
                let directory = directory.path();
                scope.spawn(move || {
                    own();
                    for turn in 0..20 {
                        let umask = if turn % 3 == 2 { 0o27 } else { umask };
                        set(umask);
                        let path = directory.join(format!("{umask}-{turn}-{:?}", std::thread::current().id()));
                        let flags = rustix::fs::OFlags::CREATE | rustix::fs::OFlags::WRONLY;
                        rustix::fs::open(&path, flags, Mode::from_raw_mode(0o666)).unwrap();
                        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
                        assert_eq!(mode, 0o666 & !umask, "{umask:o}");
                    }
                });
            }
        });
    }
}
