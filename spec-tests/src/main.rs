//! The HTTP cases of the specification tests against any registry: `cargo run -p spec-tests -- --registry URL`.

use std::fs;
use std::io::{self, Write as _};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, Mutex, PoisonError};

use clap::Parser;
use serde_json::json;
use spec_tests::http::CASES;
use spec_tests::target::{Access, Target};

/// Asks a registry for all that the distribution specification wants of it.
///
/// What a registry may leave out is skipped with the reason. The last line counts what passed, failed and was skipped.
#[derive(Debug, Parser)]
#[command(name = "spec-tests")]
struct Arguments {
    /// The registry, with its scheme: `http://127.0.0.1:5000`
    #[arg(long, value_name = "URL")]
    registry: String,
    /// Whom to ask as
    #[arg(long, value_name = "USER:PASSWORD")]
    user: Option<String>,
    /// Takes any TLS certificate
    #[arg(long)]
    skip_tls_verify: bool,
    /// Writes name, outcome and message of each case as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Only the cases whose name contains this
    filter: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            let _ = writeln!(io::stderr(), "error: {error}");
            ExitCode::from(3)
        }
    }
}

fn run(arguments: &Arguments) -> io::Result<bool> {
    if !arguments.registry.starts_with("http://") && !arguments.registry.starts_with("https://") {
        return Err(io::Error::other(format!(
            "`--registry {}`: expected a URL with its scheme, such as http://127.0.0.1:5000",
            arguments.registry
        )));
    }
    let credentials = match &arguments.user {
        None => None,
        Some(user) => {
            let (name, password) = user
                .split_once(':')
                .ok_or_else(|| io::Error::other("`--user`: expected USER:PASSWORD, found no `:`"))?;
            Some((name.to_owned(), password.to_owned()))
        }
    };
    // A case fails by a panic: its message belongs into the report, not between its lines.
    let message = Arc::new(Mutex::new(String::new()));
    let heard = Arc::clone(&message);
    panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or("no message");
        *heard.lock().unwrap_or_else(PoisonError::into_inner) = text.to_owned();
    }));

    let access = Access { credentials, skip_tls_verify: arguments.skip_tls_verify, http2: false };
    let mut out = io::stdout().lock();
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let (mut passed, mut failed, mut skipped, mut rows) = (0, 0, 0, Vec::new());
    for case in CASES.iter().filter(|case| case.name.contains(filter)) {
        let target = Target::new(&arguments.registry, access.clone());
        let outcome = panic::catch_unwind(AssertUnwindSafe(|| (case.run)(&target)));
        let notes = target.notes();
        if outcome.is_err() {
            failed += 1;
            let message = message.lock().unwrap_or_else(PoisonError::into_inner).clone();
            writeln!(out, "FAILED  {}\n        {message}", case.name)?;
            rows.push(json!({"name": case.name, "passed": false, "message": message}));
        } else if notes.is_empty() {
            passed += 1;
            writeln!(out, "ok      {}", case.name)?;
            rows.push(json!({"name": case.name, "passed": true}));
        } else {
            // What a registry may leave out is said, and held against nobody.
            skipped += 1;
            writeln!(out, "skipped {}\n        not supported: {}", case.name, notes.join("; "))?;
            rows.push(json!({"name": case.name, "passed": null, "unsupported": notes}));
        }
    }
    if let Some(file) = &arguments.json {
        let text = serde_json::to_string_pretty(&rows).map_err(io::Error::other)?;
        fs::write(file, text + "\n")
            .map_err(|error| io::Error::other(format!("cannot write {}: {error}", file.display())))?;
    }
    writeln!(out, "{passed} passed, {failed} failed, {skipped} skipped")?;
    Ok(failed == 0 && passed > 0)
}
