//! See the library target: everything but `main` lives there so that manual pages can be generated.

use std::process::ExitCode;

fn main() -> ExitCode {
    sk_farmfilter::main()
}
