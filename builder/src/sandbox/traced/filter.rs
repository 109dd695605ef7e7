//! The filter that tells the calls to translate from those that run at full speed.

/// One instruction of classic BPF.
type Instruction = libc::sock_filter;

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    // Every code that is used here is below 256.
    Instruction { code: code as u16, jt, jf, k }
}

const fn load(offset_bytes: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset_bytes)
}

const fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value)
}

const fn jump_if_any_bit(bits: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, then, otherwise, bits)
}

const fn end(action: u32) -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, action)
}

/// The call fails as one that the kernel does not know.
const UNKNOWN_CALL: Instruction = end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.cast_unsigned());

/// Where in `struct seccomp_data` the call's number and the architecture are.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

const X86_64: u32 = 0xc000_003e;
/// The bit of the numbers of x32.
const X32: u32 = 0x4000_0000;

/// Calls that name files, ids, or processes. Each stops the task, and the tracer answers it.
pub(super) const TRACED: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_fstat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_connect,
    libc::SYS_bind,
    libc::SYS_execve,
    libc::SYS_kill,
    libc::SYS_uname,
    libc::SYS_truncate,
    libc::SYS_getcwd,
    libc::SYS_chdir,
    libc::SYS_rename,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_creat,
    libc::SYS_link,
    libc::SYS_unlink,
    libc::SYS_symlink,
    libc::SYS_readlink,
    libc::SYS_chmod,
    libc::SYS_fchmod,
    libc::SYS_chown,
    libc::SYS_fchown,
    libc::SYS_lchown,
    libc::SYS_umask,
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
    libc::SYS_prctl,
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
    libc::SYS_inotify_add_watch,
    libc::SYS_openat,
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
    libc::SYS_execveat,
    libc::SYS_statx,
    libc::SYS_faccessat2,
    FCHMODAT2,
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
];

/// The whole program.
pub(super) fn program() -> Vec<Instruction> {
    let number = |call: &i64| u32::try_from(*call).unwrap_or(u32::MAX);
    let mut program = vec![
        load(ARCHITECTURE),
        jump_if_equal(X86_64, 1, 0),
        UNKNOWN_CALL,
        load(NUMBER),
        jump_if_any_bit(X32, 0, 1),
        UNKNOWN_CALL,
    ];
    for call in TRACED {
        program.extend([jump_if_equal(number(call), 0, 1), end(libc::SECCOMP_RET_TRACE)]);
    }
    for call in UNKNOWN {
        program.extend([jump_if_equal(number(call), 0, 1), UNKNOWN_CALL]);
    }
    for call in REFUSED {
        let refused = end(libc::SECCOMP_RET_ERRNO | libc::EPERM.cast_unsigned());
        program.extend([jump_if_equal(number(call), 0, 1), refused]);
    }
    program.push(end(libc::SECCOMP_RET_ALLOW));
    program
}
