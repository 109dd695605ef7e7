//! Whose programs this machine's kernel runs: its own, those of 32 bits where it has them, and those that an interpreter is
//! registered for (`binfmt_misc`), where it is held open: the root of a command has none.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::fs::{MemfdFlags, memfd_create};

use super::StepError;
use crate::image::Platform;
use crate::sandbox::Rung;

/// Where the kernel shows what is registered.
const REGISTERED: &str = "/proc/sys/fs/binfmt_misc";

/// Refuses a platform whose programs do not run here.
///
/// # Errors
/// [`StepError::Platform`], with what stands in the way.
pub(super) fn check(wanted: &Platform, rung: Rung) -> Result<(), StepError> {
    let machine = Platform::new("linux", std::env::consts::ARCH, None);
    if (&wanted.os, &wanted.architecture) == (&machine.os, &machine.architecture) {
        return Ok(());
    }
    let refused = |lacks| Err(StepError::Platform { machine: machine.to_string(), wanted: wanted.to_string(), lacks });
    if wanted.os != machine.os {
        return refused(Lacks::System);
    }
    // What is translated on the way are the calls of this architecture, and paths that an interpreter reads are not.
    if rung == Rung::Traced {
        return refused(Lacks::BetterRung);
    }
    if runs_32_bits(&machine.architecture, &wanted.architecture) {
        return Ok(());
    }
    match interpreter(Path::new(REGISTERED), &wanted.architecture) {
        Interpreter::Held => Ok(()),
        Interpreter::ByPath => refused(Lacks::HeldInterpreter),
        Interpreter::None => refused(Lacks::Interpreter),
    }
}

/// What is missing for a command of another platform.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lacks {
    /// Another operating system.
    System,
    /// Another way to run commands: where they are traced, none of another architecture runs.
    BetterRung,
    /// An interpreter in `binfmt_misc`.
    Interpreter,
    /// One that is held open.
    HeldInterpreter,
}

impl fmt::Display for Lacks {
    /// What follows the platforms in a message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "",
            Self::BetterRung => ": where commands are traced, none of another architecture runs",
            Self::Interpreter => ", for which no interpreter is registered in /proc/sys/fs/binfmt_misc",
            Self::HeldInterpreter => {
                ", whose interpreter is registered without the flag F and is not in the root of a command"
            }
        })
    }
}

/// What is registered for an architecture.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Interpreter {
    None,
    /// One that is opened when a program starts, wherever that is.
    ByPath,
    /// One that is open since it was registered.
    Held,
}

/// The best of what is registered and enabled in a folder as the kernel shows it.
fn interpreter(registered: &Path, architecture: &str) -> Interpreter {
    let read = |name: &Path| fs::read_to_string(registered.join(name)).unwrap_or_default();
    let Some(begin) = begin_of(architecture) else { return Interpreter::None };
    if read(Path::new("status")).trim_end() != "enabled" {
        return Interpreter::None;
    }
    let names = fs::read_dir(registered).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.map(|name| serves(&read(Path::new(&name)), &begin)).max().unwrap_or(Interpreter::None)
}

/// What the text of a registration says of programs that begin so.
fn serves(text: &str, begin: &[u8]) -> Interpreter {
    let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
    let bytes = |name: &str| field(name).and_then(|digits| hex::decode(digits).ok());
    let Some(magic) = bytes("magic ").filter(|magic| magic.len() <= begin.len()) else { return Interpreter::None };
    let mask = bytes("mask ").unwrap_or_else(|| vec![0xFF; magic.len()]);
    let is_meant = magic.iter().zip(&mask).zip(begin).all(|((magic, mask), byte)| magic & mask == byte & mask);
    if text.lines().next() != Some("enabled") || field("offset ") != Some("0") || !is_meant {
        return Interpreter::None;
    }
    match field("flags:").is_some_and(|flags| flags.contains('F')) {
        true => Interpreter::Held,
        false => Interpreter::ByPath,
    }
}

/// How programs for an architecture, by Go's name, begin: an ELF header up to the machine.
fn begin_of(architecture: &str) -> Option<[u8; 20]> {
    let (bits, is_little, machine) = match architecture {
        "386" => (32, true, 3),
        "amd64" => (64, true, 62),
        "arm" => (32, true, 40),
        "arm64" => (64, true, 183),
        "loong64" => (64, true, 258),
        "mips" => (32, false, 8),
        "mipsle" => (32, true, 8),
        "mips64" => (64, false, 8),
        "mips64le" => (64, true, 8),
        "ppc64" => (64, false, 21),
        "ppc64le" => (64, true, 21),
        "riscv64" => (64, true, 243),
        "s390x" => (64, false, 22),
        _ => return None,
    };
    let half = |number: u16| if is_little { number.to_le_bytes() } else { number.to_be_bytes() };
    let mut begin = [0; 20];
    begin[..7].copy_from_slice(&[0x7F, b'E', b'L', b'F', bits / 32, if is_little { 1 } else { 2 }, 1]);
    // An executable.
    begin[16..18].copy_from_slice(&half(2));
    begin[18..].copy_from_slice(&half(machine));
    Some(begin)
}

/// Whether the kernel runs programs of 32 bits beside its own: told by one that does nothing, as it depends on the processor,
/// on how the kernel was made, and on how it was started.
fn runs_32_bits(machine: &str, wanted: &str) -> bool {
    let (flags, code): (u32, &[u8]) = match (machine, wanted) {
        // exit(0): xor ebx, ebx; xor eax, eax; inc eax; int 0x80.
        ("amd64", "386") => (0, &[0x31, 0xDB, 0x31, 0xC0, 0x40, 0xCD, 0x80]),
        // The same: mov r0, #0; mov r7, #1; svc 0.
        ("arm64", "arm") => (0x0500_0000, &[0, 0, 0xA0, 0xE3, 1, 0x70, 0xA0, 0xE3, 0, 0, 0, 0xEF]),
        _ => return false,
    };
    begin_of(wanted).is_some_and(|begin| ends_well(&program(&begin, flags, code)).unwrap_or(false))
}

/// A program of 32 bits that is nothing but this code.
fn program(begin: &[u8; 20], flags: u32, code: &[u8]) -> Vec<u8> {
    /// Where it is put: a multiple of the largest page.
    const ADDRESS: u32 = 0x0001_0000;
    /// Length of the headers before the code, in bytes: the file's and that of its only segment.
    const HEADERS: u32 = 52 + 32;
    let length = HEADERS + u32::try_from(code.len()).unwrap_or(0);
    let mut program = begin.to_vec();
    // Version; where it starts; where its segments and sections are told.
    for number in [1, ADDRESS + HEADERS, 52, 0, flags] {
        program.extend(number.to_le_bytes());
    }
    // Lengths and counts of the headers: no sections.
    for number in [52_u16, 32, 1, 40, 0, 0] {
        program.extend(number.to_le_bytes());
    }
    // To be loaded, from the file's begin, there, all of it, readable and executable.
    for number in [1, 0, ADDRESS, ADDRESS, length, length, 5, ADDRESS] {
        program.extend(number.to_le_bytes());
    }
    program.extend(code);
    program
}

fn ends_well(program: &[u8]) -> io::Result<bool> {
    let mut written = File::from(memfd_create("fluyt-trial", MemfdFlags::CLOEXEC)?);
    written.write_all(program)?;
    let opened = File::open(format!("/proc/self/fd/{}", written.as_raw_fd()))?;
    // What is open for writing cannot be run; another thread's new process may have it open for a moment longer.
    drop(written);
    let mut tries = 0;
    loop {
        let mut command = Command::new(format!("/proc/self/fd/{}", opened.as_raw_fd()));
        match command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries < 20 => {
                tries += 1;
                std::thread::sleep(Duration::from_millis(5));
            }
            outcome => return Ok(outcome?.success()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As qemu's packages register it for arm64.
    const ARM64: &str = "enabled\ninterpreter /usr/libexec/qemu-binfmt/aarch64-binfmt-P\nflags: POCF\noffset 0\n\
                         magic 7f454c460201010000000000000000000200b700\n\
                         mask ffffffffffffff00fffffffffffffffffeffffff\n";

    #[test]
    fn a_registration_serves_the_programs_that_its_magic_means() {
        let best = |text: &str, architecture| serves(text, &begin_of(architecture).unwrap());
        assert_eq!(best(ARM64, "arm64"), Interpreter::Held);
        for other in ["arm", "amd64", "riscv64", "s390x"] {
            assert_eq!(best(ARM64, other), Interpreter::None, "{other}");
        }
        let s390x = "enabled\ninterpreter /usr/bin/qemu-s390x\nflags: F\noffset 0\n\
                     magic 7f454c4602020100000000000000000000020016\nmask ffffffffffffff00fffffffffffffffffffeffff\n";
        assert_eq!(best(s390x, "s390x"), Interpreter::Held);
        assert_eq!(best(s390x, "ppc64le"), Interpreter::None);
        assert_eq!(best(&ARM64.replace("POCF", "POC"), "arm64"), Interpreter::ByPath);
        for (there, instead) in [("enabled", "disabled"), ("offset 0", "offset 4"), ("7f45", "7e45"), ("7f45", "7f45x")]
        {
            assert_eq!(best(&ARM64.replacen(there, instead, 1), "arm64"), Interpreter::None, "{instead}");
        }
        let by_name = "enabled\ninterpreter /usr/bin/run-jar\nflags: F\nextension .jar\n";
        assert_eq!(best(by_name, "arm64"), Interpreter::None);
    }

    #[test]
    fn what_is_registered_counts_while_all_of_it_is_enabled() {
        let folder = tempfile::tempdir().unwrap();
        let put = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        assert_eq!(interpreter(folder.path(), "arm64"), Interpreter::None);
        put("status", "enabled\n");
        put("old", &ARM64.replace("POCF", "OC"));
        assert_eq!(interpreter(folder.path(), "arm64"), Interpreter::ByPath);
        put("qemu-aarch64", ARM64);
        assert_eq!(interpreter(folder.path(), "arm64"), Interpreter::Held);
        assert_eq!(interpreter(folder.path(), "arm"), Interpreter::None);
        put("status", "disabled\n");
        assert_eq!(interpreter(folder.path(), "arm64"), Interpreter::None);
    }

    #[test]
    fn a_platform_that_does_not_run_here_is_refused_with_the_reason() {
        let refused = |platform: &str, rung| check(&platform.parse().unwrap(), rung).unwrap_err().to_string();
        let own = std::env::consts::ARCH;
        check(&format!("linux/{own}").parse().unwrap(), Rung::Traced).unwrap();
        let text = refused("linux/mips64", Rung::Root);
        assert!(
            text.contains("and the step needs linux/mips64, for which no interpreter is registered in /proc/"),
            "{text}"
        );
        assert!(refused("linux/mips64", Rung::Traced).contains("where commands are traced"));
        assert!(refused("windows/amd64", Rung::Root).ends_with("and the step needs windows/amd64"));
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_kernel_tells_whether_it_runs_programs_of_32_bits() {
        // The setting is there where the kernel was made so; where it was started otherwise nothing tells.
        if Path::new("/proc/sys/abi/vsyscall32").exists() {
            assert!(runs_32_bits("amd64", "386"));
        }
        assert!(!runs_32_bits("amd64", "arm"));
        let none = program(&begin_of("386").unwrap(), 0, &[0x0F, 0x0B]);
        assert!(!ends_well(&none).unwrap_or(false), "what crashes does not run");
    }
}
