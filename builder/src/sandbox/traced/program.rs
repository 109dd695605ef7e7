//! Starting a program of the root.
//!
//! The kernel would look for the interpreter of a script and for the loader that an ELF file names in its own root. So a
//! script's interpreter is started with the script as argument, as the kernel does it; and for a dynamic program the
//! root's loader is started alone. When the kernel has it in memory, the tracer has the new process map the program
//! beside it, and writes into the loader's auxiliary vector what would stand there had the kernel mapped both.

use std::cell::Cell;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::rc::Rc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::memory::{Memory, PATH_BYTES, SCRATCH_AT, SCRATCH_BYTES};
use super::owners::Owners;
use super::paths::{Found, Namer, Root};
use super::system::{self, Go, Registers, Tid};
use super::task::{Credentials, MAY_EXECUTE};

/// Scripts whose interpreters are scripts: as the kernel has it.
const SCRIPTS_MAX: usize = 5;
/// As much as the kernel reads of a script's first line.
const LINE_BYTES: usize = 256;
const PAGE: u64 = 4096;

const SEGMENT_BYTES: usize = 56;
const LOAD: u32 = 1;
const INTERPRETER: u32 = 3;
const HEADERS: u32 = 6;

/// A program that is about to be started.
#[derive(Debug)]
pub(super) struct Prepared {
    /// What the kernel is to execute.
    pub(super) started: Found,
    /// What stands instead of the first argument.
    pub(super) arguments: Option<Vec<Vec<u8>>>,
    /// The program, as the command sees it.
    pub(super) seen: Vec<u8>,
    /// The name of the process.
    name: Vec<u8>,
    /// What the tracer has to map beside the loader.
    beside: Option<Beside>,
    /// The owner of a program that changes ids.
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
}

#[derive(Debug)]
struct Beside {
    file: Found,
    program: Elf,
    /// Where the loader's code begins, in its own file's terms.
    loader_entry: u64,
}

#[derive(Debug)]
struct Elf {
    fixed: bool,
    entry: u64,
    headers_at: u64,
    header_count: u64,
    segments: Vec<Segment>,
}

#[derive(Clone, Copy, Debug)]
struct Segment {
    kind: u32,
    flags: u32,
    offset: u64,
    address: u64,
    file_bytes: u64,
    memory_bytes: u64,
    align: u64,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    let mut number = [0; N];
    if let Some(bytes) = bytes.get(at..at + N) {
        number.copy_from_slice(bytes);
    }
    number
}

fn word(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(number(bytes, at))
}

fn half(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes(number(bytes, at))
}

impl Elf {
    /// Reads the head of an ELF file for this processor.
    fn read(file: &File) -> Result<Self, Errno> {
        let mut head = [0; 64];
        file.read_exact_at(&mut head, 0).map_err(|_| Errno::NOEXEC)?;
        let (kind, machine, size) = (half(&head, 16), half(&head, 18), half(&head, 54));
        const EXECUTABLE: u16 = 2;
        const SHARED: u16 = 3;
        const X86_64: u16 = 62;
        let fits = &head[..4] == b"\x7fELF" && head[4] == 2 && machine == X86_64 && usize::from(size) == SEGMENT_BYTES;
        if !fits || !(kind == EXECUTABLE || kind == SHARED) {
            return Err(Errno::NOEXEC);
        }
        let (headers_at, header_count) = (word(&head, 32), u64::from(half(&head, 56)));
        let mut table = vec![0; usize::from(half(&head, 56)) * SEGMENT_BYTES];
        file.read_exact_at(&mut table, headers_at).map_err(|_| Errno::NOEXEC)?;
        let segments = table.chunks_exact(SEGMENT_BYTES).map(|entry| Segment {
            kind: u32::from_le_bytes(number(entry, 0)),
            flags: u32::from_le_bytes(number(entry, 4)),
            offset: word(entry, 8),
            address: word(entry, 16),
            file_bytes: word(entry, 32),
            memory_bytes: word(entry, 40),
            align: word(entry, 48),
        });
        let segments: Vec<Segment> = segments.collect();
        // Sums of these must not overflow below.
        let sane = |segment: &Segment| {
            [segment.offset, segment.address, segment.file_bytes, segment.memory_bytes, segment.align]
                .iter()
                .all(|number| *number < 1 << 47)
        };
        if segments.iter().any(|segment| segment.kind == LOAD && !sane(segment)) {
            return Err(Errno::NOEXEC);
        }
        Ok(Self { fixed: kind == EXECUTABLE, entry: word(&head, 24), headers_at, header_count, segments })
    }

    fn interpreter(&self, file: &File) -> Result<Option<Vec<u8>>, Errno> {
        let Some(segment) = self.segments.iter().find(|segment| segment.kind == INTERPRETER) else { return Ok(None) };
        let length = usize::try_from(segment.file_bytes).ok().filter(|length| (2..=PATH_BYTES).contains(length));
        let mut path = vec![0; length.ok_or(Errno::NOEXEC)?];
        file.read_exact_at(&mut path, segment.offset).map_err(|_| Errno::NOEXEC)?;
        path.truncate(path.iter().position(|byte| *byte == 0).unwrap_or(path.len()));
        Ok(Some(path))
    }

    fn loads(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|segment| segment.kind == LOAD && segment.memory_bytes > 0)
    }

    /// Where its program headers are in memory, without the base.
    fn headers_address(&self) -> u64 {
        if let Some(segment) = self.segments.iter().find(|segment| segment.kind == HEADERS) {
            return segment.address;
        }
        let holds = |segment: &&Segment| {
            segment.offset <= self.headers_at && self.headers_at < segment.offset + segment.file_bytes
        };
        self.loads().find(holds).map_or(0, |segment| segment.address + self.headers_at - segment.offset)
    }
}

fn open(path: &[u8]) -> Result<File, Errno> {
    use rustix::fs::{Mode, OFlags};
    Ok(rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty())?.into())
}

/// Without blanks and tabs at the ends: any other character, such as that of another system's line ends, is of a name.
fn trim_blanks(line: &[u8]) -> &[u8] {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = line.iter().position(|byte| !is_blank(byte)).unwrap_or(line.len());
    let end = line.iter().rposition(|byte| !is_blank(byte)).map_or(start, |last| last + 1);
    &line[start..end]
}

/// Looks at a program, given by an absolute path, and finds out what the kernel has to execute for it.
pub(super) fn prepare(
    root: &Root,
    owners: &Owners,
    namer: &impl Namer,
    credentials: &Credentials,
    path: &[u8],
    shown: &[u8],
) -> Result<Prepared, Errno> {
    let mut path = path.to_vec();
    let mut arguments: Option<Vec<Vec<u8>>> = None;
    let name = shown.rsplit(|byte| *byte == b'/').next().unwrap_or_default().to_vec();
    for _ in 0..=SCRIPTS_MAX {
        let found = root.find(namer, &path, true)?;
        let (_, seen) = owners.stat(&found)?;
        if seen.kind() != FileType::RegularFile {
            return Err(Errno::ACCESS);
        }
        credentials.may(seen, MAY_EXECUTE)?;
        let file = open(&found.name().into_bytes())?;
        let mut line = [0; LINE_BYTES];
        let length = file.read_at(&mut line, 0).unwrap_or(0);
        let line = &line[..length];
        if let Some(rest) = line.strip_prefix(b"#!") {
            let line = rest.split(|byte| *byte == b'\n').next().unwrap_or_default();
            let line = trim_blanks(line);
            let end = line.iter().position(|byte| matches!(byte, b' ' | b'\t' | 0)).unwrap_or(line.len());
            let (interpreter, option) = (&line[..end], trim_blanks(&line[end..]));
            if interpreter.is_empty() {
                return Err(Errno::NOEXEC);
            }
            let mut first = vec![interpreter.to_vec()];
            if !option.is_empty() {
                first.push(option.to_vec());
            }
            match arguments {
                None => first.push(shown.to_vec()),
                // The inner script takes the place of its own name.
                Some(outer) => first.extend(outer),
            }
            arguments = Some(first);
            path = if interpreter.starts_with(b"/") {
                interpreter.to_vec()
            } else {
                let folder = rustix::fs::readlink(format!("/proc/{}/cwd", namer.tid()), Vec::new())?;
                super::paths::joined(&root.seen(folder.to_bytes()), interpreter)
            };
            continue;
        }
        let program = Elf::read(&file)?;
        let changes = |bit: u32, id: u32| (seen.mode & bit != 0).then_some(id);
        let (uid, gid) = (changes(libc::S_ISUID, seen.uid), changes(libc::S_ISGID, seen.gid));
        let seen = root.seen(&found.path()?);
        let Some(interpreter) = program.interpreter(&file)? else {
            return Ok(Prepared { started: found, arguments, seen, name, beside: None, uid, gid });
        };
        let loader = root.find(namer, &interpreter, true)?;
        let loader_entry = Elf::read(&open(&loader.name().into_bytes())?)?.entry;
        let beside = Some(Beside { file: found, program, loader_entry });
        return Ok(Prepared { started: loader, arguments, seen, name, beside, uid, gid });
    }
    Err(Errno::LOOP)
}

/// Calls made by a stopped process in the tracer's place.
struct Puppet {
    tid: Tid,
    memory: Rc<Memory>,
    before: Registers,
    code: [u8; 2],
    /// The signals that the process holds back by itself.
    blocked: u64,
    /// A signal came that nothing holds back, and is to come again.
    stops: Cell<bool>,
}

impl Puppet {
    /// Puts a call instruction where the process is. Until it is let go it gets no signal, but that of a step.
    fn take(tid: Tid, memory: Rc<Memory>, before: Registers) -> Result<Self, Errno> {
        const SYSCALL: [u8; 2] = [0x0f, 0x05];
        let mut code = [0; 2];
        memory.read(before.rip, &mut code)?;
        memory.write(before.rip, &SYSCALL)?;
        let blocked = system::blocked(tid)?;
        system::block(tid, !(1 << (libc::SIGTRAP - 1)))?;
        Ok(Self { tid, memory, before, code, blocked, stops: Cell::new(false) })
    }

    fn call(&self, number: i64, arguments: [u64; 6]) -> Result<u64, Errno> {
        let mut registers = self.before;
        registers.rax = number.cast_unsigned();
        registers.orig_rax = u64::MAX;
        [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
        system::set_registers(self.tid, &registers)?;
        loop {
            system::go(self.tid, Go::Step, 0)?;
            let (_, status) = system::wait(self.tid)?;
            if !libc::WIFSTOPPED(status) {
                return Err(Errno::SRCH);
            }
            if status >> 8 == libc::SIGTRAP {
                break;
            }
            if status >> 8 == libc::SIGSTOP {
                self.stops.set(true);
            }
        }
        let result = system::registers(self.tid)?.rax.cast_signed();
        if (-4095..0).contains(&result) {
            return Err(Errno::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EIO)));
        }
        Ok(result.cast_unsigned())
    }

    fn map(
        &self,
        address: u64,
        length: u64,
        protection: i32,
        flags: i32,
        file: Option<(u64, u64)>,
    ) -> Result<u64, Errno> {
        let (fd, offset) = file.unwrap_or((u64::MAX, 0));
        let flags = flags | if file.is_none() { libc::MAP_ANONYMOUS } else { 0 };
        let number = |value: i32| u64::from(value.cast_unsigned());
        self.call(libc::SYS_mmap, [address, length, number(protection), number(flags), fd, offset])
    }

    fn release(self) -> Result<(), Errno> {
        self.memory.write(self.before.rip, &self.code)?;
        system::set_registers(self.tid, &self.before)?;
        system::block(self.tid, self.blocked)?;
        if self.stops.get() { system::kill(self.tid, libc::SIGSTOP) } else { Ok(()) }
    }
}

const fn down(address: u64) -> u64 {
    address & !(PAGE - 1)
}

const fn up(address: u64) -> u64 {
    down(address + PAGE - 1)
}

/// Finishes what the kernel has begun: called when a process has got its new program and has not run yet.
pub(super) fn load(tid: Tid, prepared: &Prepared) -> Result<Rc<Memory>, Errno> {
    let memory = Rc::new(Memory::of(tid, 0)?);
    let registers = system::registers(tid)?;
    let puppet = Puppet::take(tid, Rc::clone(&memory), registers)?;
    // Where something else is, it lies elsewhere, and other threads of the program could change what is there.
    let (private, only_free) = (libc::MAP_PRIVATE, libc::MAP_FIXED_NOREPLACE);
    let scratch = puppet
        .map(SCRATCH_AT, SCRATCH_BYTES, libc::PROT_READ, private | only_free, None)
        .or_else(|_| puppet.map(0, SCRATCH_BYTES, libc::PROT_READ, private, None))?;
    memory.set_scratch(scratch);
    let string = |bytes: &[u8]| [bytes, b"\0"].concat();
    memory.write(scratch, &string(&prepared.name[..prepared.name.len().min(15)]))?;
    let set_name = u64::from(libc::PR_SET_NAME.cast_unsigned());
    puppet.call(libc::SYS_prctl, [set_name, scratch, 0, 0, 0, 0])?;
    // The program's name for itself, at the end of the scratch space, where no call looks.
    let shown = string(&prepared.seen);
    let shown_at = scratch + SCRATCH_BYTES - shown.len() as u64;
    memory.write(shown_at, &shown)?;
    match &prepared.beside {
        Some(beside) => map_beside(&puppet, &memory, scratch, shown_at, beside)?,
        None => rewrite_vector(&memory, registers.rsp, |kind, value, _| {
            Some(if kind == libc::AT_EXECFN { shown_at } else { value })
        })?,
    }
    puppet.release()?;
    Ok(memory)
}

fn map_beside(puppet: &Puppet, memory: &Memory, scratch: u64, shown_at: u64, beside: &Beside) -> Result<(), Errno> {
    let private = libc::MAP_PRIVATE;
    let program = &beside.program;
    memory.write(scratch, &[&beside.file.shared_name(), b"\0".as_slice()].concat())?;
    let read_only = u64::from((libc::O_RDONLY | libc::O_CLOEXEC).cast_unsigned());
    let fd = puppet.call(libc::SYS_open, [scratch, read_only, 0, 0, 0, 0])?;
    let start = program.loads().map(|segment| down(segment.address)).min().ok_or(Errno::NOEXEC)?;
    let end = program.loads().map(|segment| up(segment.address + segment.memory_bytes)).max().ok_or(Errno::NOEXEC)?;
    let base = if program.fixed {
        0
    } else {
        let align = program.loads().map(|segment| segment.align).max().unwrap_or(PAGE).max(PAGE).next_power_of_two();
        let room = puppet.map(0, end - start + align - PAGE, libc::PROT_NONE, private | libc::MAP_NORESERVE, None)?;
        room.div_ceil(align) * align - start
    };
    for segment in program.loads() {
        let bit = |flag: u32, protection: i32| if segment.flags & flag != 0 { protection } else { 0 };
        let protection = bit(4, libc::PROT_READ) | bit(2, libc::PROT_WRITE) | bit(1, libc::PROT_EXEC);
        let fixed = private | libc::MAP_FIXED;
        let (address, ahead) = (base + down(segment.address), segment.address % PAGE);
        let file_end = base + segment.address + segment.file_bytes;
        if segment.file_bytes > 0 {
            let offset = segment.offset.checked_sub(ahead).ok_or(Errno::NOEXEC)?;
            puppet.map(address, up(ahead + segment.file_bytes), protection, fixed, Some((fd, offset)))?;
        }
        let memory_end = up(base + segment.address + segment.memory_bytes);
        if segment.memory_bytes > segment.file_bytes {
            let from = if segment.file_bytes > 0 { up(file_end) } else { address };
            if memory_end > from {
                puppet.map(from, memory_end - from, protection, fixed, None)?;
            }
            if segment.file_bytes > 0 && segment.flags & 2 != 0 && from > file_end {
                memory.write(file_end, &vec![0; usize::try_from(from - file_end).unwrap_or(0)])?;
            }
        }
    }
    puppet.call(libc::SYS_close, [fd, 0, 0, 0, 0, 0])?;
    rewrite_vector(memory, puppet.before.rsp, |kind, value, loader_entry| match kind {
        libc::AT_PHDR => Some(base + program.headers_address()),
        libc::AT_PHENT => Some(SEGMENT_BYTES as u64),
        libc::AT_PHNUM => Some(program.header_count),
        libc::AT_BASE => Some(loader_entry - beside.loader_entry),
        libc::AT_ENTRY => Some(base + program.entry),
        libc::AT_EXECFN => Some(shown_at),
        _ => Some(value),
    })
}

/// Changes values of the auxiliary vector above the arguments and the environment.
fn rewrite_vector(memory: &Memory, stack: u64, change: impl Fn(u64, u64, u64) -> Option<u64>) -> Result<(), Errno> {
    let count = memory.word(stack)?;
    let environment = stack + 8 * (count + 2);
    let vector = environment + 8 * (memory.list(environment)?.len() as u64 + 1);
    let mut entries = Vec::new();
    loop {
        let mut pair = [0; 16];
        memory.read(vector + 16 * entries.len() as u64, &mut pair)?;
        let (kind, value) = (word(&pair, 0), word(&pair, 8));
        if kind == libc::AT_NULL || entries.len() > 64 {
            break;
        }
        entries.push((kind, value));
    }
    let entry = entries.iter().find(|(kind, _)| *kind == libc::AT_ENTRY).map_or(0, |(_, value)| *value);
    let mut bytes = Vec::new();
    for (kind, value) in entries {
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(change(kind, value, entry).unwrap_or(value).to_ne_bytes());
    }
    memory.write(vector, &bytes)
}
