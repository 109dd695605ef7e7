//! The system calls of a tracer, which rustix has not: the only unsafe code of this folder.
#![expect(unsafe_code, reason = "ptrace, seccomp and the stat family as bytes have no safe wrapper")]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::io::Errno;

/// A task as the kernel numbers it.
pub(super) type Tid = libc::pid_t;

/// The registers of a stopped task.
pub(super) type Registers = libc::user_regs_struct;

/// Bytes of the kernel's `struct stat` on x86_64, `struct statx` and `struct statfs`.
pub(super) const STAT_BYTES: usize = 144;
pub(super) const STATX_BYTES: usize = 256;
pub(super) const STATFS_BYTES: usize = 120;

fn last() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// The call itself, as the C libraries differ in how they declare it.
///
/// # Safety
///
/// `data` must be what the request takes: a number, or a pointer that is good for what the kernel reads or writes there.
unsafe fn trace(request: libc::c_long, tid: Tid, data: usize) -> Result<(), Errno> {
    // SAFETY: as the caller promises.
    unsafe { trace_sized(request, tid, 0, data) }
}

/// The same for requests that are told how much is at `data`.
///
/// # Safety
///
/// As [`trace`].
unsafe fn trace_sized(request: impl Into<libc::c_long>, tid: Tid, size: usize, data: usize) -> Result<(), Errno> {
    // SAFETY: as the caller promises.
    let done = unsafe { libc::syscall(libc::SYS_ptrace, request.into(), libc::c_long::from(tid), size, data) };
    if done == -1 { Err(last()) } else { Ok(()) }
}

fn request(request: libc::c_long, tid: Tid, data: usize) -> Result<(), Errno> {
    // SAFETY: the requests made here take numbers.
    unsafe { trace(request, tid, data) }
}

/// Becomes the tracer of a child that waits to be traced.
pub(super) fn seize(tid: Tid) -> Result<(), Errno> {
    let options = libc::PTRACE_O_TRACESECCOMP
        | libc::PTRACE_O_TRACEFORK
        | libc::PTRACE_O_TRACEVFORK
        | libc::PTRACE_O_TRACECLONE
        | libc::PTRACE_O_TRACEEXEC
        | libc::PTRACE_O_TRACESYSGOOD
        | libc::PTRACE_O_EXITKILL;
    request(libc::c_long::from(libc::PTRACE_SEIZE), tid, usize::try_from(options).unwrap_or(0))
}

/// The signals that a stopped task holds back, as the bits of their numbers less one.
pub(super) fn blocked(tid: Tid) -> Result<u64, Errno> {
    let mut mask = 0_u64;
    // SAFETY: the request writes one mask of the eight bytes that are told, to a local that outlives the call.
    unsafe { trace_sized(libc::PTRACE_GETSIGMASK, tid, size_of::<u64>(), (&raw mut mask).expose_provenance()) }?;
    Ok(mask)
}

/// Sets them. SIGKILL and SIGSTOP cannot be held back.
pub(super) fn block(tid: Tid, mask: u64) -> Result<(), Errno> {
    // SAFETY: the request reads one mask of the eight bytes that are told, from a local that outlives the call.
    unsafe { trace_sized(libc::PTRACE_SETSIGMASK, tid, size_of::<u64>(), (&raw const mask).expose_provenance()) }
}

/// How a stopped task goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Go {
    /// To its next event.
    On,
    /// To the end of its system call.
    ToExit,
    /// By one instruction.
    Step,
    /// Not: it is stopped by a signal such as SIGTSTP, and waits to be continued.
    Listen,
}

/// Lets a stopped task go on, with a signal delivered to it (0: none).
pub(super) fn go(tid: Tid, how: Go, signal: i32) -> Result<(), Errno> {
    let number = match how {
        Go::On => libc::c_long::from(libc::PTRACE_CONT),
        Go::ToExit => libc::c_long::from(libc::PTRACE_SYSCALL),
        Go::Step => libc::c_long::from(libc::PTRACE_SINGLESTEP),
        Go::Listen => libc::c_long::from(libc::PTRACE_LISTEN),
    };
    request(number, tid, usize::try_from(signal).unwrap_or(0))
}

/// The number that comes with an event: the new task of a fork, the former one of an execve.
pub(super) fn event_message(tid: Tid) -> Result<Tid, Errno> {
    let mut message: libc::c_ulong = 0;
    // SAFETY: the request writes one `unsigned long`, to a local that outlives the call.
    unsafe { trace(libc::c_long::from(libc::PTRACE_GETEVENTMSG), tid, (&raw mut message).expose_provenance()) }?;
    Tid::try_from(message).map_err(|_| Errno::INVAL)
}

/// The registers of a stopped task.
pub(super) fn registers(tid: Tid) -> Result<Registers, Errno> {
    // SAFETY: a structure of integers may be zero.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    // SAFETY: the request fills one such structure, a local that outlives the call.
    unsafe { trace(libc::c_long::from(libc::PTRACE_GETREGS), tid, (&raw mut registers).expose_provenance()) }?;
    Ok(registers)
}

/// Those of a task that waits in a call, as far as they are known.
pub(super) fn registers_of_call(number: i32, arguments: [u64; 6]) -> Registers {
    // SAFETY: as above.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    registers.orig_rax = i64::from(number).cast_unsigned();
    [registers.rdi, registers.rsi, registers.rdx, registers.r10, registers.r8, registers.r9] = arguments;
    registers
}

/// What two threads use in turn.
#[derive(Debug)]
pub(super) struct InTurn<T>(Mutex<T>);

// SAFETY: `T` may count references without a lock of its own, but nothing that it holds is reached but by `lock`, and
// what a caller takes out of it are values that share nothing with it (the callers of `lock` are two, in `tracer`).
unsafe impl<T> Send for InTurn<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for InTurn<T> {}

impl<T> InTurn<T> {
    pub(super) fn new(value: T) -> Self {
        Self(Mutex::new(value))
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sets the registers of a stopped task.
pub(super) fn set_registers(tid: Tid, registers: &Registers) -> Result<(), Errno> {
    let registers: *const Registers = registers;
    // SAFETY: the request reads one such structure, which outlives the call.
    unsafe { trace(libc::c_long::from(libc::PTRACE_SETREGS), tid, registers.expose_provenance()) }
}

/// Waits for a change of any child or traced task (-1), or of one of them.
pub(super) fn wait(tid: Tid) -> Result<(Tid, i32), Errno> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a local that outlives the call.
        let changed = unsafe { libc::waitpid(tid, &raw mut status, libc::__WALL) };
        if changed != -1 {
            return Ok((changed, status));
        }
        match last() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

/// Sends a signal to a process.
pub(super) fn kill(tid: Tid, signal: i32) -> Result<(), Errno> {
    // SAFETY: takes two numbers.
    if unsafe { libc::kill(tid, signal) } == -1 { Err(last()) } else { Ok(()) }
}

/// The process group of a process.
pub(super) fn group(tid: Tid) -> Result<Tid, Errno> {
    // SAFETY: takes a number.
    match unsafe { libc::getpgid(tid) } {
        -1 => Err(last()),
        group => Ok(group),
    }
}

fn filled<const N: usize>(call: impl FnOnce(*mut u8) -> libc::c_long) -> Result<[u8; N], Errno> {
    let mut bytes = [0; N];
    if call(bytes.as_mut_ptr()) == -1 { Err(last()) } else { Ok(bytes) }
}

/// `struct stat` of a path relative to a descriptor, or of the descriptor itself with an empty path.
pub(super) fn stat(at: BorrowedFd<'_>, path: &CStr, flags: i32) -> Result<[u8; STAT_BYTES], Errno> {
    // SAFETY: the kernel writes one `struct stat`, of STAT_BYTES bytes, and reads a string that ends with zero.
    filled(|to| unsafe { libc::syscall(libc::SYS_newfstatat, at.as_raw_fd(), path.as_ptr(), to, flags) })
}

/// `struct statx`, as [`stat`].
pub(super) fn statx(at: BorrowedFd<'_>, path: &CStr, flags: i32, mask: u32) -> Result<[u8; STATX_BYTES], Errno> {
    // SAFETY: the kernel writes one `struct statx`, of STATX_BYTES bytes, and reads a string that ends with zero.
    filled(|to| unsafe { libc::syscall(libc::SYS_statx, at.as_raw_fd(), path.as_ptr(), flags, mask, to) })
}

/// `struct statfs` of what a path leads to.
pub(super) fn statfs(path: &CStr) -> Result<[u8; STATFS_BYTES], Errno> {
    // SAFETY: the kernel writes one `struct statfs`, of STATFS_BYTES bytes, and reads a string that ends with zero.
    filled(|to| unsafe { libc::syscall(libc::SYS_statfs, path.as_ptr(), to) })
}

/// `struct utsname`: six names of 65 bytes.
pub(super) fn uname() -> Result<[u8; 390], Errno> {
    // SAFETY: the kernel writes one `struct new_utsname`, of 390 bytes.
    filled(|to| unsafe { libc::syscall(libc::SYS_uname, to) })
}
