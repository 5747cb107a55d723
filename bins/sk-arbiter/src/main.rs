//! `sk-arbiter`: see the library.

fn main() -> std::process::ExitCode {
    sk_arbiter::main()
}
