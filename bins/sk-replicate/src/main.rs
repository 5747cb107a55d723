//! `sk-replicate`: see the library beside it.

fn main() -> std::process::ExitCode {
    sk_replicate::main()
}
