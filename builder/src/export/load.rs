//! An image into a container engine on this machine (`--load`).

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};

use oci_spec::image::Descriptor;

use super::{ExportError, docker_archive};
use crate::blob::Store;

/// The programs that load an archive from their standard input, best first.
pub const PROGRAMS: &[&str] = &["docker", "podman"];

/// Most that is kept of what the program says, in bytes: enough for an error, too little to hurt.
const SAID_MAX_BYTES: u64 = 64 * 1024;

/// Pipes `image` as a Docker archive into `PROGRAM load`, with the first of `programs` that is installed, and gives what the
/// program wrote to standard output.
///
/// # Errors
/// [`ExportError::NoProgram`], or [`ExportError::Program`] with the program's own words.
pub fn load(store: &Store, image: &Descriptor, names: &[String], programs: &[&str]) -> Result<String, ExportError> {
    let (program, mut child) = start(programs)?;
    let input = child.stdin.take();
    let output = child.stdout.take();
    let errors = child.stderr.take();
    std::thread::scope(|scope| {
        let output = scope.spawn(|| listen(output));
        let errors = scope.spawn(|| listen(errors));
        let written = match input {
            Some(input) => {
                let mut buffered = io::BufWriter::with_capacity(256 * 1024, input);
                docker_archive(store, image, names, &mut buffered)
            }
            None => Ok(()),
        };
        if let Err(error) = &written
            && !matches!(error, ExportError::Write(_))
        {
            // A cut archive must not be loaded as far as it goes.
            let _ = child.kill();
        }
        let status = child.wait().map_err(|source| failed(program, source))?;
        let (said, complained) = (output.join().unwrap_or_default(), errors.join().unwrap_or_default());
        match written {
            // A program that refuses the image often stops reading: its own words say more than our broken pipe.
            Ok(()) | Err(ExportError::Write(_)) if !status.success() => {
                let said = if complained.trim().is_empty() { said } else { complained };
                Err(ExportError::Program { program: program.to_owned(), status, said })
            }
            Err(error) => Err(error),
            Ok(()) => Ok(said),
        }
    })
}

fn start<'a>(programs: &[&'a str]) -> Result<(&'a str, Child), ExportError> {
    for program in programs {
        let child = Command::new(program)
            .arg("load")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        match child {
            Ok(child) => return Ok((program, child)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(program, error)),
        }
    }
    Err(ExportError::NoProgram { programs: programs.iter().map(|program| (*program).to_owned()).collect() })
}

fn failed(program: &str, source: io::Error) -> ExportError {
    ExportError::io("running", std::path::Path::new(program), source)
}

/// Reads to the end, so that the program is never held up, and keeps the beginning.
fn listen(stream: Option<impl Read>) -> String {
    let Some(mut stream) = stream else { return String::new() };
    let mut said = Vec::new();
    let _ = stream.by_ref().take(SAID_MAX_BYTES).read_to_end(&mut said);
    let _ = io::copy(&mut stream, &mut io::sink());
    String::from_utf8_lossy(&said).into_owned()
}
