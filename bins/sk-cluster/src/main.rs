//! See the library target: everything but `main` lives there so that manual pages can be generated.

fn main() -> std::process::ExitCode {
    sk_cluster::main()
}
