//! The `fluyt` binary: becomes a sandbox's stage where it was started as one, else runs the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before any thread exists: a stage changes namespaces, which the kernel allows to single-threaded processes only.
    if let Some(code) = fluyt::sandbox::stage() {
        return code;
    }
    fluyt::cli::run()
}
