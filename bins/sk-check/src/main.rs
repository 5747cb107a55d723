//! `sk-check`: see the library.

fn main() -> std::process::ExitCode {
    sk_check::main()
}
