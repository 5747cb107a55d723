//! `sk-heartbeat`: see the library.

fn main() -> std::process::ExitCode {
    sk_heartbeat::main()
}
