//! The `fluyt-registry` binary: reads the settings, runs the command, and turns what came of it into an exit code.

mod commands;
mod settings;

use std::io::Write;
use std::process::ExitCode;

use settings::{Command, Given, LogFormat, Wrong};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let Given { command_line, printed } = match settings::read(std::env::args_os().collect()) {
        Ok(given) => given,
        Err(Wrong::CommandLine(error)) => {
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
        Err(Wrong::Config(told)) => {
            let _ = writeln!(std::io::stderr(), "error: {told}");
            return ExitCode::from(2);
        }
    };
    if let Some(printed) = printed {
        let _ = std::io::stdout().write_all(printed.as_bytes());
        return ExitCode::SUCCESS;
    }
    start_logging(match &command_line.command {
        Command::Serve(settings) => settings.access.log_format,
        _ => LogFormat::Text,
    });
    match commands::run(command_line.command) {
        Ok(code) => code,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "error: {failure}");
            failure.exit_code()
        }
    }
}

fn start_logging(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colours).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => lines.init(),
        LogFormat::Json => lines.json().flatten_event(true).with_span_list(false).init(),
    }
}
