//! The filter that tells the calls to translate from those that run at full speed.

use super::super::filter::bpf::{Instruction, allow, jump_if_any_bit, jump_if_at_least, jump_if_equal, load, refuse};
use super::memory::SCRATCH_END;

/// The call stops the task.
const TRACE: Instruction = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_TRACE };

/// Where in `struct seccomp_data` the call's number and the architecture are.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const X86_64: u32 = 0xc000_003e;
/// The bit of the numbers of x32.
const X32: u32 = 0x4000_0000;

/// The call waits for an answer.
const ASK: Instruction = libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: libc::SECCOMP_RET_USER_NOTIF };

/// Calls that the tracer answers by itself alone.
const ANSWERED: &[i64] = &[
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_uname,
    libc::SYS_truncate,
    libc::SYS_getcwd,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_symlink,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_lchown,
    libc::SYS_getuid,
    libc::SYS_getgid,
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_geteuid,
    libc::SYS_getegid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_getgroups,
    libc::SYS_setgroups,
    libc::SYS_setresuid,
    libc::SYS_getresuid,
    libc::SYS_setresgid,
    libc::SYS_getresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_capget,
    libc::SYS_capset,
    libc::SYS_utime,
    libc::SYS_mknod,
    libc::SYS_statfs,
    libc::SYS_chroot,
    libc::SYS_setxattr,
    libc::SYS_lsetxattr,
    libc::SYS_fsetxattr,
    libc::SYS_getxattr,
    libc::SYS_lgetxattr,
    libc::SYS_fgetxattr,
    libc::SYS_listxattr,
    libc::SYS_llistxattr,
    libc::SYS_flistxattr,
    libc::SYS_removexattr,
    libc::SYS_lremovexattr,
    libc::SYS_fremovexattr,
    libc::SYS_utimes,
    libc::SYS_mkdirat,
    libc::SYS_mknodat,
    libc::SYS_fchownat,
    libc::SYS_futimesat,
    libc::SYS_newfstatat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_linkat,
    libc::SYS_symlinkat,
    libc::SYS_readlinkat,
    libc::SYS_fchmodat,
    libc::SYS_faccessat,
    libc::SYS_utimensat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_faccessat2,
    FCHMODAT2,
];

/// Calls that the task makes in the end, with other arguments or as they are: each stops it.
const STOPPED: &[i64] = &[
    libc::SYS_open,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_getsockname,
    libc::SYS_getpeername,
    libc::SYS_execve,
    libc::SYS_kill,
    libc::SYS_tkill,
    libc::SYS_tgkill,
    libc::SYS_rt_sigqueueinfo,
    libc::SYS_rt_tgsigqueueinfo,
    libc::SYS_pidfd_open,
    libc::SYS_pidfd_send_signal,
    libc::SYS_setpriority,
    libc::SYS_ioprio_set,
    libc::SYS_sched_setscheduler,
    libc::SYS_sched_setparam,
    libc::SYS_sched_setattr,
    libc::SYS_sendmsg,
    libc::SYS_sendmmsg,
    libc::SYS_chdir,
    libc::SYS_creat,
    libc::SYS_umask,
    libc::SYS_prctl,
    libc::SYS_inotify_add_watch,
    libc::SYS_openat,
    libc::SYS_execveat,
];

/// `fchmodat2`, of Linux 6.6.
pub(super) const FCHMODAT2: i64 = 452;

/// Calls that would go past the tracer, and that programs do without when the kernel is said not to know them: openat2,
/// io_uring, the calls on extended attributes of Linux 6.13, keys (which are the builder's), and handles of files.
const UNKNOWN: &[i64] = &[
    libc::SYS_openat2,
    libc::SYS_io_uring_setup,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_open_tree,
    libc::SYS_uselib,
    463,
    464,
    465,
    466,
    467,
    468,
    469,
];

/// Calls that reach into other processes, which may be the builder's.
const REFUSED: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_process_madvise,
    libc::SYS_userfaultfd,
];

/// Calls whose first argument is an address: they could change what the tracer keeps in the program's memory.
const ON_MEMORY: &[i64] =
    &[libc::SYS_mprotect, libc::SYS_munmap, libc::SYS_mremap, libc::SYS_remap_file_pages, libc::SYS_pkey_mprotect];

/// Where an argument is in `struct seccomp_data`: its lower half, then its upper one.
const fn argument(place: u32) -> u32 {
    16 + 8 * place
}

/// What is done with one call; the last instruction ends it.
fn when(call: i64, rule: Vec<Instruction>) -> Vec<Instruction> {
    let number = u32::try_from(call).unwrap_or(u32::MAX);
    let skip = u8::try_from(rule.len()).unwrap_or(u8::MAX);
    [vec![jump_if_equal(number, 0, skip)], rule].concat()
}

/// Refuses an address in the tracer's memory or below, and goes on with any other. `unless_zero`: zero is none.
fn guarded(place: u32, unless_zero: bool) -> Vec<Instruction> {
    let end = u32::try_from(SCRATCH_END).unwrap_or(u32::MAX);
    let refused = refuse(libc::EPERM);
    let mut rule = vec![load(argument(place) + 4), jump_if_equal(0, 0, 3 + u8::from(unless_zero))];
    rule.push(load(argument(place)));
    if unless_zero {
        rule.push(jump_if_equal(0, 2, 0));
    }
    rule.extend([jump_if_at_least(end, 1, 0), refused]);
    rule
}

/// The whole program. `asks`: calls that the tracer answers alone wait for that (Linux 5.19), as others do, but are no stop,
/// which takes twice as long.
pub(super) fn program(asks: bool) -> Vec<Instruction> {
    let mut program = vec![
        load(ARCHITECTURE),
        jump_if_equal(X86_64, 1, 0),
        refuse(libc::ENOSYS),
        load(NUMBER),
        jump_if_any_bit(X32, 0, 1),
        refuse(libc::ENOSYS),
    ];
    let flag = |place: u32, bits: i32, then: Vec<Instruction>| {
        let skip = u8::try_from(then.len()).unwrap_or(u8::MAX);
        [vec![load(argument(place)), jump_if_any_bit(bits.cast_unsigned(), 0, skip)], then].concat()
    };
    let value = |place: u32, value: u32, then: Vec<Instruction>| {
        let skip = u8::try_from(then.len()).unwrap_or(u8::MAX);
        [vec![load(argument(place)), jump_if_equal(value, 0, skip)], then].concat()
    };
    // A pointer: both halves, as there may be something at four gigabytes.
    let null = |place: u32, then: Vec<Instruction>| {
        let skip = u8::try_from(then.len()).unwrap_or(u8::MAX);
        let halves = [
            load(argument(place) + 4),
            jump_if_equal(0, 0, skip.saturating_add(2)),
            load(argument(place)),
            jump_if_equal(0, 0, skip),
        ];
        [halves.to_vec(), then].concat()
    };
    let traced_with = |place: u32| [null(place, vec![allow()]), vec![TRACE]].concat();
    let refused = || vec![refuse(libc::EPERM)];
    let special: [(i64, Vec<Instruction>); 17] = [
        // Over what is there; where nothing is, it may.
        (
            libc::SYS_mmap,
            flag(
                3,
                libc::MAP_FIXED,
                [
                    vec![load(argument(3)), jump_if_any_bit(libc::MAP_FIXED_NOREPLACE.cast_unsigned(), 5, 0)],
                    guarded(0, false),
                ]
                .concat(),
            ),
        ),
        (libc::SYS_madvise, value(2, libc::MADV_DONTFORK.cast_unsigned(), guarded(0, false))),
        (libc::SYS_shmat, guarded(1, true)),
        // Out of the tracer's sight.
        (libc::SYS_clone, flag(0, libc::CLONE_UNTRACED, refused())),
        (libc::SYS_clone3, vec![refuse(libc::ENOSYS)]),
        // A filter that asks another process: its answer would be heard before the tracer's.
        (libc::SYS_seccomp, flag(1, 1 << 3, refused())),
        // Signals of a descriptor's own.
        (
            libc::SYS_fcntl,
            [value(1, libc::F_SETOWN.cast_unsigned(), vec![TRACE]), value(1, F_SETOWN_EX, refused())].concat(),
        ),
        (libc::SYS_ioctl, [value(1, FIOSETOWN, refused()), value(1, SIOCSPGRP, refused())].concat()),
        // Of others than the caller.
        (libc::SYS_prlimit64, [value(0, 0, vec![allow()]), vec![TRACE]].concat()),
        (libc::SYS_sched_setaffinity, [value(0, 0, vec![allow()]), vec![TRACE]].concat()),
        // The kernel's audit would refuse each message, and `sudo` complain: as if it had none.
        (
            libc::SYS_socket,
            value(0, libc::AF_NETLINK.cast_unsigned(), value(2, NETLINK_AUDIT, vec![refuse(libc::EPROTONOSUPPORT)])),
        ),
        // Who is at the other end; not as something to send signals to, which may be one of the machine's, as on kernels
        // before 6.5.
        (
            libc::SYS_getsockopt,
            value(
                1,
                SOL_SOCKET,
                [value(2, SO_PEERCRED, vec![TRACE]), value(2, SO_PEERPIDFD, vec![refuse(libc::ENOPROTOOPT)])].concat(),
            ),
        ),
        (libc::SYS_setsockopt, value(1, SOL_SOCKET, value(2, SO_PASSPIDFD, vec![refuse(libc::ENOPROTOOPT)]))),
        // To an address.
        (libc::SYS_sendto, [value(5, 0, vec![allow()]), vec![TRACE]].concat()),
        // Whose address is told.
        (libc::SYS_recvfrom, traced_with(4)),
        (libc::SYS_accept, traced_with(1)),
        (libc::SYS_accept4, traced_with(1)),
    ];
    for call in ON_MEMORY {
        let also = if *call == libc::SYS_mremap { guarded(4, true) } else { Vec::new() };
        program.extend(when(*call, [guarded(0, false), also, vec![allow()]].concat()));
    }
    for (call, rule) in special {
        program.extend(when(call, [rule, vec![allow()]].concat()));
    }
    for call in STOPPED {
        program.extend(when(*call, vec![TRACE]));
    }
    for call in ANSWERED {
        program.extend(when(*call, vec![if asks { ASK } else { TRACE }]));
    }
    for call in UNKNOWN {
        program.extend(when(*call, vec![refuse(libc::ENOSYS)]));
    }
    for call in REFUSED {
        program.extend(when(*call, vec![refuse(libc::EPERM)]));
    }
    program.push(allow());
    program
}

const NETLINK_AUDIT: u32 = 9;
const SOL_SOCKET: u32 = 1;
const SO_PEERCRED: u32 = 17;
const SO_PASSPIDFD: u32 = 76;
const SO_PEERPIDFD: u32 = 77;
const F_SETOWN_EX: u32 = 15;
const FIOSETOWN: u32 = 0x8901;
const SIOCSPGRP: u32 = 0x8902;
