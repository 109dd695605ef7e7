//! The few instructions of classic BPF that a system call filter needs (Linux, `Documentation/networking/filter.rst`).

/// One instruction, as the kernel's `struct sock_filter`.
pub(in crate::sandbox) type Instruction = libc::sock_filter;

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> Instruction {
    // Every code that is used here is below 256.
    Instruction { code: code as u16, jt, jf, k }
}

/// Loads a word of `struct seccomp_data` into the accumulator.
pub(in crate::sandbox) const fn load(offset_bytes: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, offset_bytes)
}

/// Skips `distance` instructions.
pub(in crate::sandbox) fn jump(distance: usize) -> Instruction {
    // A filter has 4096 instructions at most, and the kernel refuses a longer one as a whole.
    instruction(libc::BPF_JMP | libc::BPF_JA, 0, 0, u32::try_from(distance).unwrap_or(u32::MAX))
}

/// Skips `then` or `otherwise` instructions, by whether the accumulator is `value`.
pub(in crate::sandbox) const fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, then, otherwise, value)
}

/// Skips `then` or `otherwise` instructions, by whether the accumulator is `value` or more.
pub(in crate::sandbox) const fn jump_if_at_least(value: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, then, otherwise, value)
}

/// Skips `then` or `otherwise` instructions, by whether the accumulator has any of `bits`.
pub(in crate::sandbox) const fn jump_if_any_bit(bits: u32, then: u8, otherwise: u8) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, then, otherwise, bits)
}

/// Ends the filter: the call is made.
pub(in crate::sandbox) const fn allow() -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW)
}

/// Ends the filter: the call fails with this error number.
pub(in crate::sandbox) const fn refuse(errno: i32) -> Instruction {
    instruction(
        libc::BPF_RET | libc::BPF_K,
        0,
        0,
        libc::SECCOMP_RET_ERRNO | (errno.cast_unsigned() & libc::SECCOMP_RET_DATA),
    )
}
