//! How does a process that must be in time stay so on a host that swaps or is overloaded?

/// The lowest real-time priority: above all ordinary work, below what an administrator sets higher.
const PRIORITY: i32 = 1;
/// Where real time is not allowed.
const NICE: i32 = -15;

/// What of its memory a process keeps from being swapped out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// All of it, from the start.
    All,
    /// What it has touched once: where many processes of a program run.
    Touched,
}

/// Whether what this process starts is in a hurry, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Children {
    Inherit,
    Ordinary,
}

/// Locks memory and asks for round-robin real-time scheduling. What is not permitted is returned, in words: `who` may be late then.
pub fn enter(who: &str, memory: Memory, children: Children) -> Vec<String> {
    let mut words = Vec::new();
    let on_fault = if memory == Memory::Touched { libc::MCL_ONFAULT } else { 0 };
    // SAFETY: concerns the pages of this process only.
    if unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE | on_fault) } != 0 {
        let error = std::io::Error::last_os_error();
        words.push(format!("memory is not locked ({error}); {who} may be late when this host swaps"));
    }
    let reset = if children == Children::Ordinary { libc::SCHED_RESET_ON_FORK } else { 0 };
    // SAFETY: all-zero bytes are a valid sched_param.
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = PRIORITY;
    // SAFETY: the pointer is valid during the call; 0 is this process.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | reset, &raw const param) } != 0 {
        let error = std::io::Error::last_os_error();
        // SAFETY: plain numbers; 0 is this process.
        let nice = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) } == 0;
        let instead = if nice {
            "a low nice value must do".to_owned()
        } else {
            format!("{who} may be late when this host is overloaded")
        };
        words.push(format!("no real-time scheduling ({error}); {instead}"));
    }
    words
}
