//! Locks on single bytes of a file, which belong to the open file: rustix has only those of a whole file.
#![expect(unsafe_code, reason = "the system call has no safe wrapper")]

use std::fs::File;
use std::os::fd::AsRawFd;

use rustix::io::Errno;

/// How a byte is to be locked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    Shared,
    Alone,
    Free,
}

/// Locks or frees one byte; [`Errno::INVAL`] where the kernel has no such locks.
pub(super) fn set(file: &File, range: Range, byte: i64, wait: bool) -> Result<(), Errno> {
    let kind = match range {
        Range::Shared => libc::F_RDLCK,
        Range::Alone => libc::F_WRLCK,
        Range::Free => libc::F_UNLCK,
    };
    let lock = libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: byte,
        l_len: 1,
        l_pid: 0,
    };
    let command = if wait { libc::F_OFD_SETLKW } else { libc::F_OFD_SETLK };
    // SAFETY: the descriptor is open as long as `file` is borrowed, and the kernel only reads the structure.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, &raw const lock) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().map_or(Errno::IO, Errno::from_raw_os_error)),
        _ => Ok(()),
    }
}
