use std::collections::BTreeSet;

use super::bpf::Instruction;
use super::rules::{Architecture, Rule, program, segments};
use super::table::{AARCH64, ARM, I386, NEWEST, TABLE, X86_64};

const BOTH: &[Architecture] = &[
    Architecture { audit: 0xc000_003e, column: X86_64, x32: true },
    Architecture { audit: 0x4000_0003, column: I386, x32: false },
];
const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;

fn errno(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
}

/// What the filter says, by a machine that knows only the instructions we emit.
fn verdict(program: &[Instruction], audit: u32, number: u32, argument: u64) -> u32 {
    let mut accumulator = 0;
    let mut at = 0;
    loop {
        let Instruction { code, jt, jf, k } = program[at];
        at += 1;
        let branch = |taken: bool| usize::from(if taken { jt } else { jf });
        match code {
            0x20 => {
                accumulator = match k {
                    0 => number,
                    4 => audit,
                    16 => u32::try_from(argument & 0xffff_ffff).unwrap(),
                    _ => panic!("offset {k}"),
                }
            }
            0x05 => at += usize::try_from(k).unwrap(),
            0x15 => at += branch(accumulator == k),
            0x35 => at += branch(accumulator >= k),
            0x45 => at += branch(accumulator & k != 0),
            0x06 => return k,
            _ => panic!("code {code:#x}"),
        }
    }
}

#[test]
fn every_number_of_both_architectures_gets_the_verdict_of_the_table() {
    let program = program(BOTH);
    assert!(program.len() < 4096, "{} instructions", program.len());
    for Architecture { audit, column, .. } in BOTH {
        for number in 0..=600u32 {
            let row = TABLE.iter().find(|row| row.numbers[*column] == i32::try_from(number).unwrap());
            let expected = match row.map(|row| row.rule) {
                Some(Rule::Allow | Rule::Clone | Rule::Personality | Rule::Socket) => ALLOW,
                Some(Rule::Missing) => errno(libc::ENOSYS),
                Some(Rule::Refuse) => errno(libc::EPERM),
                None if number > NEWEST => errno(libc::ENOSYS),
                None => errno(libc::EPERM),
            };
            assert_eq!(verdict(&program, *audit, number, 0), expected, "{audit:#x} {number}");
        }
        assert_eq!(verdict(&program, *audit, u32::MAX, 0), errno(libc::ENOSYS));
    }
    assert_eq!(verdict(&program, 0xc000_00b7, 0, 0), errno(libc::EPERM), "another architecture");
    assert_eq!(verdict(&program, 0xc000_003e, 0x4000_0000, 0), errno(libc::ENOSYS), "x32");
}

#[test]
fn arguments_are_looked_at_where_docker_looks() {
    let program = program(BOTH);
    for (column, audit) in [(X86_64, 0xc000_003e), (I386, 0x4000_0003)] {
        let number = |name: &str| {
            let row = TABLE.iter().find(|row| row.name == name).unwrap();
            u32::try_from(row.numbers[column]).unwrap()
        };
        let ask = |name: &str, argument| verdict(&program, audit, number(name), argument);
        let refused = errno(libc::EPERM);
        for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(ask("clone", flag | 17), refused, "{flag:#x}");
        }
        assert_eq!(ask("clone", 0x003d_0f00), ALLOW, "a thread");
        assert_eq!(ask("socket", 40), refused);
        assert_eq!(ask("socket", 0xdead_0000_0000_0028), refused, "the kernel reads 32 bits");
        assert_eq!(ask("socket", 2), ALLOW);
        assert_eq!(ask("personality", 0x4_0000), refused, "no randomisation");
        assert_eq!(ask("personality", 0xffff_ffff), ALLOW);
    }
}

#[test]
fn no_number_stands_for_two_calls() {
    for column in [X86_64, I386, AARCH64, ARM] {
        let numbers: Vec<i32> = TABLE.iter().map(|row| row.numbers[column]).filter(|number| *number >= 0).collect();
        let distinct: BTreeSet<i32> = numbers.iter().copied().collect();
        assert_eq!(numbers.len(), distinct.len(), "column {column}");
        assert!(segments(column).windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
    }
    let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), TABLE.len());
}

/// A few calls of every kind against the numbers of the C library's bindings.
#[test]
#[cfg(target_arch = "x86_64")]
fn the_numbers_are_the_kernels() {
    for (name, number) in [
        ("read", libc::SYS_read),
        ("execve", libc::SYS_execve),
        ("clone", libc::SYS_clone),
        ("clone3", libc::SYS_clone3),
        ("openat2", libc::SYS_openat2),
        ("futex_waitv", libc::SYS_futex_waitv),
        ("newfstatat", libc::SYS_newfstatat),
        ("personality", libc::SYS_personality),
        ("socket", libc::SYS_socket),
        ("mseal", libc::SYS_mseal),
    ] {
        let row = TABLE.iter().find(|row| row.name == name).unwrap();
        assert_eq!(i64::from(row.numbers[X86_64]), number, "{name}");
    }
    for name in ["mount", "unshare", "setns", "bpf", "init_module", "keyctl", "reboot", "ioperm", "io_uring_setup"] {
        assert!(TABLE.iter().all(|row| row.name != name), "{name}");
    }
}
