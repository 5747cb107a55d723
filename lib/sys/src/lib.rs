//! What does the kernel offer: processes, signals, clocks, small durable files, locks, descriptors that outlive a process.

/// Like `eprintln!`, but words that nobody can read (full disk, reader gone) do not end the process that keeps a service up.
#[macro_export]
macro_rules! warn {
    ($($word:tt)*) => {{
        use ::std::io::Write as _;
        let words = ::std::format!($($word)*);
        $crate::outcome::complain(&words);
        let _ = ::std::writeln!(::std::io::stderr(), "{words}");
    }};
}

pub mod bounded;
pub mod clock;
pub mod commands;
pub mod cpu_latency;
pub mod failure;
pub mod files;
pub mod lines;
pub mod lock;
pub mod modules;
pub mod node;
pub mod outcome;
pub mod pidfd;
pub mod program;
pub mod progress;
pub mod realtime;
pub mod roots;
pub mod signals;
pub mod store;
pub mod syslog;
pub mod table;
pub mod words;
