//! `sk-errd`: see the library.

fn main() -> std::process::ExitCode {
    sk_errd::main()
}
