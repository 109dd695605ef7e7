//! The calls to the kernel that have no safe wrapper: the only unsafe code of the recorder.
#![expect(
    unsafe_code,
    reason = "the interface of seccomp's notifications and other processes' memory have no safe wrapper"
)]

use std::ffi::CStr;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::io::Errno;

/// The kernel's `struct seccomp_data`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sandbox) struct Data {
    pub(in crate::sandbox) number: i32,
    pub(in crate::sandbox) architecture: u32,
    instruction_pointer: u64,
    pub(in crate::sandbox) arguments: [u64; 6],
}

/// The kernel's `struct seccomp_notif`.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::sandbox) struct Notice {
    pub(in crate::sandbox) id: u64,
    pub(in crate::sandbox) pid: u32,
    flags: u32,
    pub(in crate::sandbox) data: Data,
}

/// The kernel's `struct seccomp_notif_resp`.
#[repr(C)]
struct Response {
    id: u64,
    value: i64,
    error: i32,
    flags: u32,
}

/// The kernel's `struct seccomp_notif_addfd`.
#[repr(C)]
struct AddDescriptor {
    id: u64,
    flags: u32,
    source: u32,
    target: u32,
    target_flags: u32,
}

/// `ioctl` numbers as `asm-generic/ioctl.h` makes them: direction, size, letter, number.
const fn request(direction: u64, size: usize, number: u64) -> u64 {
    (direction << 30) | ((size as u64) << 16) | ((b'!' as u64) << 8) | number
}

const WRITE: u64 = 1;
const READ_WRITE: u64 = 3;
const RECEIVE: u64 = request(READ_WRITE, size_of::<Notice>(), 0);
const SEND: u64 = request(READ_WRITE, size_of::<Response>(), 1);
const ID_VALID: u64 = request(WRITE, size_of::<u64>(), 2);
const ADD_DESCRIPTOR: u64 = request(WRITE, size_of::<AddDescriptor>(), 3);
const SET_FLAGS: u64 = request(WRITE, size_of::<u64>(), 4);

/// `SECCOMP_USER_NOTIF_FLAG_CONTINUE`: the call is made after all.
const CONTINUE: u32 = 1;
/// `SECCOMP_ADDFD_FLAG_SEND`: the new descriptor is the call's result.
const ADD_AND_SEND: u32 = 2;
/// `SECCOMP_FILTER_FLAG_NEW_LISTENER`.
const NEW_LISTENER: u32 = 1 << 3;
/// `SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV` (Linux 5.19): a call that is being answered is not made twice for a signal.
const WAIT_KILLABLE: u32 = 1 << 5;
/// `SECCOMP_USER_NOTIF_FD_SYNC_WAKE_UP` (Linux 6.6): the two processes take turns on one processor.
const SYNCHRONOUS: u64 = 1;

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Loads a filter without `no_new_privs` (CAP_SYS_ADMIN is needed), and returns what hears of its calls.
pub(super) fn load_listening_filter(program: &[libc::sock_filter]) -> Result<OwnedFd, Errno> {
    match load_killable_filter(program) {
        Err(Errno::INVAL) => load(program, NEW_LISTENER),
        loaded => loaded,
    }
}

/// The same, where only a signal that kills ends a call that is being answered (Linux 5.19).
pub(in crate::sandbox) fn load_killable_filter(program: &[libc::sock_filter]) -> Result<OwnedFd, Errno> {
    load(program, NEW_LISTENER | WAIT_KILLABLE)
}

fn load(program: &[libc::sock_filter], flags: u32) -> Result<OwnedFd, Errno> {
    let Ok(length) = u16::try_from(program.len()) else { return Err(Errno::INVAL) };
    let description = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `length` instructions from `program`, which outlives the call, and changes none.
    let fd = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const description) };
    match i32::try_from(fd) {
        // SAFETY: the kernel made this descriptor just now, for us.
        Ok(fd) if fd >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(fd) }),
        _ => Err(last_errno()),
    }
}

fn control<T>(fd: BorrowedFd<'_>, request: u64, value: &mut T) -> Result<i32, Errno> {
    // SAFETY: each request is called with the structure that its number names by size; `value` outlives the call.
    let done = unsafe { libc::ioctl(fd.as_raw_fd(), request as _, std::ptr::from_mut(value)) };
    if done >= 0 { Ok(done) } else { Err(last_errno()) }
}

/// The next call that waits; blocks while there is none.
pub(in crate::sandbox) fn receive(listener: BorrowedFd<'_>) -> Result<Notice, Errno> {
    // The kernel wants it zeroed.
    let mut notice = Notice::default();
    control(listener, RECEIVE, &mut notice).map(|_| notice)
}

/// Lets the call be made.
pub(super) fn let_through(listener: BorrowedFd<'_>, id: u64) -> Result<(), Errno> {
    control(listener, SEND, &mut Response { id, value: 0, error: 0, flags: CONTINUE }).map(|_| ())
}

/// Answers in the kernel's place.
pub(in crate::sandbox) fn answer(listener: BorrowedFd<'_>, id: u64, result: Result<i64, Errno>) -> Result<(), Errno> {
    let (value, error) = match result {
        Ok(value) => (value, 0),
        Err(errno) => (0, -errno.raw_os_error()),
    };
    control(listener, SEND, &mut Response { id, value, error, flags: 0 }).map(|_| ())
}

/// Whether the caller still waits: what was read by its number was its own.
pub(super) fn still_waits(listener: BorrowedFd<'_>, id: u64) -> bool {
    control(listener, ID_VALID, &mut { id }).is_ok()
}

/// Answers with an open file.
pub(in crate::sandbox) fn answer_with(
    listener: BorrowedFd<'_>,
    id: u64,
    file: BorrowedFd<'_>,
    close_on_exec: bool,
) -> Result<(), Errno> {
    let source = file.as_raw_fd().cast_unsigned();
    let target_flags = if close_on_exec { libc::O_CLOEXEC.cast_unsigned() } else { 0 };
    let mut add = AddDescriptor { id, flags: ADD_AND_SEND, source, target: 0, target_flags };
    control(listener, ADD_DESCRIPTOR, &mut add).map(|_| ())
}

/// Has the two processes take turns; a kernel that cannot is only slower.
pub(in crate::sandbox) fn take_turns(listener: BorrowedFd<'_>) {
    // SAFETY: the request takes its flags by value.
    let _ = unsafe { libc::ioctl(listener.as_raw_fd(), SET_FLAGS as _, SYNCHRONOUS) };
}

/// Reads from a process's memory; fewer bytes than wanted where the rest is not there.
pub(super) fn read_memory(pid: u32, address: u64, buffer: &mut [u8]) -> Result<usize, Errno> {
    let local = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    let remote = libc::iovec { iov_base: address as *mut libc::c_void, iov_len: buffer.len() };
    // SAFETY: the local part is `buffer`, whole and ours alone; the remote one is the kernel's to check.
    let read = unsafe { libc::process_vm_readv(pid.cast_signed(), &raw const local, 1, &raw const remote, 1, 0) };
    usize::try_from(read).map_err(|_| last_errno())
}

/// Where the kernel's `struct stat` has user and group, and its size, in bytes.
#[cfg(target_arch = "x86_64")]
const STAT: (usize, usize, usize) = (28, 32, 144);
#[cfg(not(target_arch = "x86_64"))]
const STAT: (usize, usize, usize) = (24, 28, 128);

/// The same of `struct statx`.
const STATX: (usize, usize, usize) = (20, 24, 256);

/// What a call of the family of `stat` writes, as it writes it, with these ids.
pub(super) fn stat(path: &CStr, flags: u32, uid: u32, gid: u32) -> Result<Vec<u8>, Errno> {
    let (user, group, size) = STAT;
    let mut buffer = vec![0; size.next_multiple_of(16)];
    // SAFETY: the path ends with a zero byte, and the buffer has room for the kernel's structure.
    let done = unsafe {
        #[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
        let number = libc::SYS_newfstatat;
        #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
        let number = -1;
        libc::syscall(number, libc::AT_FDCWD, path.as_ptr(), buffer.as_mut_ptr(), flags)
    };
    if done != 0 {
        return Err(last_errno());
    }
    buffer.truncate(size);
    patch(&mut buffer, user, uid);
    patch(&mut buffer, group, gid);
    Ok(buffer)
}

/// What `statx` writes, with these ids.
pub(super) fn statx(path: &CStr, flags: u32, mask: u32, uid: u32, gid: u32) -> Result<Vec<u8>, Errno> {
    let (user, group, size) = STATX;
    let mut buffer = vec![0; size];
    // SAFETY: as above.
    let done =
        unsafe { libc::syscall(libc::SYS_statx, libc::AT_FDCWD, path.as_ptr(), flags, mask, buffer.as_mut_ptr()) };
    if done != 0 {
        return Err(last_errno());
    }
    patch(&mut buffer, user, uid);
    patch(&mut buffer, group, gid);
    Ok(buffer)
}

fn patch(buffer: &mut [u8], at: usize, value: u32) {
    if let Some(place) = buffer.get_mut(at..at + 4) {
        place.copy_from_slice(&value.to_ne_bytes());
    }
}
