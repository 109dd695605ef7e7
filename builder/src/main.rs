//! The `fluyt` binary.

fn main() -> std::process::ExitCode {
    // First of all, while there is one thread: this process may have been started to be the stage of a RUN.
    if let Some(code) = fluyt::sandbox::stage() {
        return code;
    }
    std::process::ExitCode::SUCCESS
}
