//! `sk-module`: runs and commands one module.

fn main() -> std::process::ExitCode {
    sk_module::main()
}
