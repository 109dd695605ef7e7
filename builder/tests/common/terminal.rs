//! A terminal of a test's own.

use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

/// Runs a command with a terminal of 60 columns as standard error; gives its code, its standard output and what the terminal
/// got. `seen` is told what it got so far.
pub(crate) fn on_a_terminal(
    mut command: Command,
    mut seen: impl FnMut(&str) + Send + 'static,
) -> (Option<i32>, String, String) {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname(&master, Vec::new()).unwrap();
    let size = Winsize { ws_col: 60, ws_row: 12, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = std::fs::OpenOptions::new().read(true).write(true).open(Path::new(name.to_str().unwrap())).unwrap();
    tcsetwinsize(&terminal, size).unwrap();
    let child = command.stderr(OwnedFd::from(terminal)).stdout(Stdio::piped()).spawn().unwrap();
    // The command still holds the terminal's other end.
    drop(command);
    let reader = std::thread::spawn(move || {
        let (mut master, mut bytes, mut piece) = (std::fs::File::from(master), Vec::new(), [0; 4096]);
        // A terminal whose last user has gone gives an error.
        while let Ok(count) = master.read(&mut piece) {
            if count == 0 {
                break;
            }
            bytes.extend_from_slice(&piece[..count]);
            seen(&String::from_utf8_lossy(&bytes));
        }
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let output = child.wait_with_output().unwrap();
    (output.status.code(), String::from_utf8(output.stdout).unwrap(), reader.join().unwrap())
}
