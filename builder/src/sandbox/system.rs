//! The few system calls that rustix has not, or offers as unsafe: the only unsafe code of the room.
#![expect(unsafe_code, reason = "fork, unshare, execve and the seccomp call have no safe wrapper")]

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::thread::UnshareFlags;

/// Which side of a fork this is.
pub(super) enum Fork {
    Child,
    Parent(Pid),
}

/// Duplicates the calling process, which must have one thread.
pub(super) fn fork() -> Result<Fork, Errno> {
    // SAFETY: the stage never starts a thread, so the child finds every lock free and may use all of the library.
    match unsafe { libc::fork() } {
        -1 => Err(last_errno()),
        0 => Ok(Fork::Child),
        pid => Pid::from_raw(pid).map(Fork::Parent).ok_or(Errno::INVAL),
    }
}

/// Leaves namespaces that were shared with the parent.
pub(super) fn unshare(flags: UnshareFlags) -> Result<(), Errno> {
    // SAFETY: unsafe for `CLONE_FILES` only, which no caller passes: descriptors stay what they are.
    unsafe { rustix::thread::unshare_unsafe(flags) }
}

/// Does something as this thread with the user and group of another, as far as files and the looks at processes go.
pub(super) fn with_file_ids<T>(uid: u32, gid: u32, work: impl FnOnce() -> T) -> T {
    // SAFETY: the calls set two numbers of this thread alone (the C libraries do not tell the others), and give those that
    // were there.
    let (uid, gid) = unsafe {
        let gid = libc::setfsgid(gid);
        (libc::setfsuid(uid), gid)
    };
    let done = work();
    // SAFETY: as above.
    unsafe {
        libc::setfsuid(uid.cast_unsigned());
        libc::setfsgid(gid.cast_unsigned());
    }
    done
}

/// The process's standard input as a descriptor of its own. To be called once, before anything reads from it.
pub(super) fn take_stdin() -> OwnedFd {
    // SAFETY: descriptor 0 is open (the runtime sees to that at the start), and the stage uses it in no other way.
    unsafe { OwnedFd::from_raw_fd(0) }
}

/// Makes `fd` descriptor 0.
pub(super) fn set_stdin(fd: BorrowedFd<'_>) -> Result<(), Errno> {
    set_stream(fd, 0)
}

/// Makes `fd` one of the three streams.
pub(super) fn set_stream(fd: BorrowedFd<'_>, number: libc::c_int) -> Result<(), Errno> {
    // SAFETY: these descriptors belong to nobody else in the processes that call this: a stage, a scout, and a child that is
    // about to `execve`.
    let done = unsafe { libc::dup2(fd.as_raw_fd(), number) };
    if done == number { Ok(()) } else { Err(last_errno()) }
}

/// Closes every descriptor above 2 when `execve` succeeds.
pub(super) fn close_on_exec() -> Result<(), Errno> {
    // SAFETY: the call only sets flags of descriptors.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3u32, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 {
        return Ok(());
    }
    // Linux before 5.11.
    let open = std::fs::read_dir("/proc/self/fd").map_err(|_| last_errno())?;
    let numbers = open.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<libc::c_int>().ok());
    for number in numbers.filter(|number| *number > 2) {
        // SAFETY: sets a flag of a descriptor; that of the listing itself may be gone by then, which is no harm.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// Gives every signal its default effect and unblocks all: ignored signals would be inherited by the command.
pub(super) fn reset_signals() {
    // SAFETY: no handler is installed, and an empty set is a valid mask; calls for signals that cannot be changed fail
    // without effect.
    unsafe {
        for signal in 1..=64 {
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
    }
}

/// Sets the host name of the process's UTS namespace.
pub(super) fn set_host_name(name: &str) -> Result<(), Errno> {
    // SAFETY: pointer and length describe `name`, which the call only reads.
    let done = unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// The host name that processes here see.
pub(super) fn host_name() -> Result<Vec<u8>, Errno> {
    let mut name = [0_u8; 256];
    // SAFETY: pointer and length describe `name`, which the call fills.
    if unsafe { libc::gethostname(name.as_mut_ptr().cast(), name.len()) } != 0 {
        return Err(last_errno());
    }
    Ok(name.split(|byte| *byte == 0).next().unwrap_or_default().to_vec())
}

/// Becomes another program; returns only when that failed.
pub(super) fn execve(program: &CStr, argv: &[CString], env: &[CString]) -> Result<Infallible, Errno> {
    let pointers = |list: &[CString]| -> Vec<*const libc::c_char> {
        list.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
    };
    let (argv, env) = (pointers(argv), pointers(env));
    // SAFETY: both lists end with a null pointer, and all they point to outlives the call.
    unsafe { libc::execve(program.as_ptr(), argv.as_ptr(), env.as_ptr()) };
    Err(last_errno())
}

/// Ends the process at once: a forked child must not run the parent's exit work.
pub(super) fn exit_now(code: i32) -> ! {
    // SAFETY: ends the process; nothing of it is used afterwards.
    unsafe { libc::_exit(code) }
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// Waits for a child and returns its raw wait status.
pub(super) fn wait_for(pid: Pid) -> Result<i32, Errno> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a local that outlives the call.
        if unsafe { libc::waitpid(pid.as_raw_nonzero().get(), &raw mut status, 0) } != -1 {
            return Ok(status);
        }
        match last_errno() {
            Errno::INTR => {}
            errno => return Err(errno),
        }
    }
}

/// Loads a system call filter, without `no_new_privs`: CAP_SYS_ADMIN is needed.
pub(super) fn load_filter(program: &[libc::sock_filter]) -> Result<(), Errno> {
    let Ok(length) = u16::try_from(program.len()) else { return Err(Errno::INVAL) };
    let description = libc::sock_fprog { len: length, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `length` instructions from `program`, which outlives the call, and changes none.
    let done = unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0u32, &raw const description) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Sets attributes of the mount at a path, or of all mounts below it too; none is taken away. Linux 5.12 and later.
pub(super) fn set_mount_attributes(path: &CStr, attributes: u64, below: bool) -> Result<(), Errno> {
    let change = libc::mount_attr { attr_set: attributes, attr_clr: 0, propagation: 0, userns_fd: 0 };
    // SAFETY: the kernel reads a string that ends with zero and `size_of_val` bytes of `change`; both outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            if below { libc::AT_RECURSIVE } else { 0 },
            &raw const change,
            size_of_val(&change),
        )
    };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}

/// Brings the loopback device of the process's network namespace up.
pub(super) fn loopback_up() -> Result<(), Errno> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all of this C structure may be zero.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (target, letter) in request.ifr_name.iter_mut().zip(b"lo") {
        *target = libc::c_char::from_ne_bytes([*letter]);
    }
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: the request is a whole `ifreq` that outlives the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) };
    if done == 0 { Ok(()) } else { Err(last_errno()) }
}
