//! How is a program of somebody else run for its output, without waiting for ever?

use crate::pidfd::PidFd;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// What a program did.
#[derive(Debug)]
pub struct Outcome {
    /// None when it was killed at the end of its time.
    pub status: Option<ExitStatus>,
    /// Its stdout, cut at the limit.
    pub output: Vec<u8>,
}

/// Runs a program without stdin, its stderr being ours. At the end of `time` its process group is killed. At most `limit` bytes
/// of its stdout are kept; more is read and dropped, so that the program does not block.
pub fn run(command: &mut Command, time: Duration, limit: u64) -> io::Result<Outcome> {
    watch(command.stdin(Stdio::null()), None, time, limit)
}

/// The same with `input` on its stdin. A program that does not read all of it is not at fault.
pub fn run_with(command: &mut Command, input: Vec<u8>, time: Duration, limit: u64) -> io::Result<Outcome> {
    watch(command.stdin(Stdio::piped()), Some(input), time, limit)
}

fn watch(command: &mut Command, input: Option<Vec<u8>>, time: Duration, limit: u64) -> io::Result<Outcome> {
    let mut child = command.stdout(Stdio::piped()).process_group(0).spawn()?;
    let pid = child.id().cast_signed();
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        // Ends when all is read, or with the last process that could read it.
        std::thread::spawn(move || {
            let _ = stdin.write_all(&input);
        });
    }
    let stdout = child.stdout.take();
    let reader = std::thread::spawn(move || {
        let mut output = Vec::new();
        if let Some(mut stdout) = stdout {
            // A pipe of our own child: an error is its end.
            let _ = stdout.by_ref().take(limit).read_to_end(&mut output);
            let _ = io::copy(&mut stdout, &mut io::sink());
        }
        output
    });
    let ended = match PidFd::open(pid)? {
        Some(handle) => handle.wait(time)?,
        None => true,
    };
    if !ended {
        // ESRCH: it ended at the same moment.
        let _ = killpg(Pid::from_raw(pid), Signal::SIGKILL);
    }
    let status = child.wait()?;
    // A grandchild that left the group may keep the pipe: what was said until now is not waited for any longer than the program.
    let begun = std::time::Instant::now();
    while !reader.is_finished() && begun.elapsed() < Duration::from_secs(1) {
        std::thread::sleep(Duration::from_millis(5));
    }
    let output = if reader.is_finished() { reader.join().unwrap_or_default() } else { Vec::new() };
    Ok(Outcome { status: ended.then_some(status), output })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, time: Duration) -> Outcome {
        run(Command::new("sh").args(["-c", script]), time, 10).unwrap()
    }

    #[test]
    fn input_is_given_and_need_not_be_read() {
        let given = |script: &str, input: &[u8]| {
            let mut command = Command::new("sh");
            run_with(command.args(["-c", script]), input.to_vec(), Duration::from_secs(30), 100).unwrap()
        };
        assert_eq!(given("cat", b"words").output, b"words");
        assert_eq!(given("wc -c", &vec![b'x'; 1 << 20]).output, b"1048576\n");
        assert!(given("exit 0", &vec![b'x'; 1 << 20]).status.is_some_and(|s| s.success()));
    }

    #[test]
    fn output_is_bounded_and_so_is_time() {
        let outcome = shell("seq 100000; exit 3", Duration::from_secs(30));
        assert_eq!(outcome.status.and_then(|s| s.code()), Some(3));
        assert_eq!(outcome.output, b"1\n2\n3\n4\n5\n");
        let outcome = shell("echo begun; sleep 100", Duration::from_millis(300));
        assert!(outcome.status.is_none());
        assert_eq!(outcome.output, b"begun\n");
    }
}
