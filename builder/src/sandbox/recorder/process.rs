//! Other processes, by the `/proc` of the supervisor's own pid namespace.

use std::ffi::CString;
use std::fs::File;
use std::io::Read;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, openat};
use rustix::io::Errno;

use super::system;

/// The longest path that the kernel takes, in bytes, with its zero (`PATH_MAX`).
const PATH_MAX_BYTES: usize = 4096;

/// Bytes of memory that are there or not there as one. Larger pages only make for one more reading.
const PAGE_BYTES: u64 = 4096;

/// Most paths are shorter than this, in bytes.
const PATH_USUAL_BYTES: usize = 256;

/// A thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct About {
    /// Its process.
    pub(super) process: u32,
    /// Its process's parent.
    pub(super) parent: u32,
    /// When it was started, in ticks.
    pub(super) started: u64,
}

/// `/proc`.
#[derive(Debug)]
pub(super) struct Processes {
    folder: OwnedFd,
}

impl Processes {
    pub(super) fn new(folder: OwnedFd) -> Self {
        Self { folder }
    }

    pub(super) fn folder(&self) -> &OwnedFd {
        &self.folder
    }

    fn read(&self, path: &str) -> Option<String> {
        let fd = openat(&self.folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
        let mut text = Vec::new();
        File::from(fd).take(16 * 1024).read_to_end(&mut text).ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// What is known of a thread; nothing when it is gone.
    pub(super) fn about(&self, thread: u32) -> Option<About> {
        // `pid (name) state ppid ...`, and the start is the 22nd: the name may hold anything.
        let stat = self.read(&format!("{thread}/stat"))?;
        let mut fields = stat.rsplit_once(") ")?.1.split(' ').skip(1);
        let parent = fields.next()?.parse().ok()?;
        let started = fields.nth(17)?.parse().ok()?;
        let process = number(&self.read(&format!("{thread}/status"))?, "Tgid:", 10)?;
        Some(About { process, parent, started })
    }

    /// A thread's memory, to write to: that of the thread that has the number now.
    pub(super) fn memory(&self, thread: u32) -> Result<OwnedFd, Errno> {
        openat(&self.folder, format!("{thread}/mem"), OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())
    }

    /// The mask for the modes of new files.
    pub(super) fn umask(&self, thread: u32) -> Option<u32> {
        number(&self.read(&format!("{thread}/status"))?, "Umask:", 8)
    }
}

fn number(status: &str, name: &str, radix: u32) -> Option<u32> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    u32::from_str_radix(value.trim(), radix).ok()
}

/// Reads a text that ends with a zero byte.
pub(super) fn read_text(pid: u32, address: u64) -> Result<CString, Errno> {
    let mut text: Vec<u8> = Vec::with_capacity(PATH_USUAL_BYTES);
    while text.len() < PATH_MAX_BYTES {
        let at = address.checked_add(text.len() as u64).ok_or(Errno::FAULT)?;
        let to_the_page = PAGE_BYTES - at % PAGE_BYTES;
        let wanted = usize::try_from(to_the_page).unwrap_or(PATH_USUAL_BYTES).min(if text.is_empty() {
            PATH_USUAL_BYTES
        } else {
            PATH_MAX_BYTES - text.len()
        });
        let before = text.len();
        text.resize(before + wanted, 0);
        let count = match text.get_mut(before..) {
            Some(room) => system::read_memory(pid, at, room)?,
            None => 0,
        };
        text.truncate(before + count);
        if let Some(end) = text.iter().position(|byte| *byte == 0) {
            text.truncate(end);
            return CString::new(text).map_err(|_| Errno::INVAL);
        }
        if count == 0 {
            return Err(Errno::FAULT);
        }
    }
    Err(Errno::NAMETOOLONG)
}

/// Reads numbers of that many bytes.
pub(super) fn read_numbers(pid: u32, address: u64, count: usize, bytes: usize) -> Result<Vec<u32>, Errno> {
    let mut buffer = vec![0; count * bytes];
    if system::read_memory(pid, address, &mut buffer)? != buffer.len() {
        return Err(Errno::FAULT);
    }
    let number = |chunk: &[u8]| match *chunk {
        [a, b] => u32::from(u16::from_ne_bytes([a, b])),
        [a, b, c, d] => u32::from_ne_bytes([a, b, c, d]),
        _ => 0,
    };
    Ok(buffer.chunks_exact(bytes).map(number).collect())
}
