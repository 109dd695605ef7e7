use std::collections::{BTreeMap, BTreeSet};

use rustix::thread::CapabilitySet;

use super::bpf::Instruction;
use super::rules::{Architecture, Rule, X32_BIT, program, segments};
use super::table::{AARCH64, ARM, I386, NEWEST, TABLE, X32, X86_64};

const AUDIT_X86_64: u32 = 0xc000_003e;
const AUDIT_I386: u32 = 0x4000_0003;
const AUDIT_AARCH64: u32 = 0xc000_00b7;
const AUDIT_ARM: u32 = 0x4000_0028;

const X86: &[Architecture] = &[
    Architecture { audit: AUDIT_X86_64, columns: &[(X86_64, 0), (X32, X32_BIT)] },
    Architecture { audit: AUDIT_I386, columns: &[(I386, 0)] },
];
const ARMS: &[Architecture] = &[
    Architecture { audit: AUDIT_AARCH64, columns: &[(AARCH64, 0)] },
    Architecture { audit: AUDIT_ARM, columns: &[(ARM, 0)] },
];

/// Every kind of program: which machine's filter meets it, its column, and where its numbers begin.
const PROGRAMS: [(&[Architecture], u32, usize, u32); 5] = [
    (X86, AUDIT_X86_64, X86_64, 0),
    (X86, AUDIT_X86_64, X32, X32_BIT),
    (X86, AUDIT_I386, I386, 0),
    (ARMS, AUDIT_AARCH64, AARCH64, 0),
    (ARMS, AUDIT_ARM, ARM, 0),
];

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const NONE: CapabilitySet = CapabilitySet::empty();

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
fn every_number_of_every_architecture_gets_the_verdict_of_the_table() {
    for held in [NONE, CapabilitySet::SYS_ADMIN, CapabilitySet::all()] {
        for (machine, audit, column, base) in PROGRAMS {
            let program = program(machine, held);
            assert!(program.len() < 4096, "{} instructions", program.len());
            let rules: BTreeMap<i32, Rule> = TABLE.iter().map(|row| (row.numbers[column], row.rule)).collect();
            for number in (0..=600u32).chain(0xf_0000..0xf_0010) {
                let expected = match rules.get(&i32::try_from(number).unwrap()) {
                    Some(Rule::Allow | Rule::Clone | Rule::Personality | Rule::Socket) => ALLOW,
                    Some(Rule::With(any)) if held.intersects(*any) => ALLOW,
                    Some(Rule::Clone3) if held.contains(CapabilitySet::SYS_ADMIN) => ALLOW,
                    Some(Rule::Missing | Rule::Clone3) => errno(libc::ENOSYS),
                    Some(Rule::Refuse | Rule::With(_)) => errno(libc::EPERM),
                    None if number > NEWEST => errno(libc::ENOSYS),
                    None => errno(libc::EPERM),
                };
                assert_eq!(verdict(&program, audit, base + number, 0), expected, "{audit:#x} {base:#x} {number}");
            }
            assert_eq!(verdict(&program, audit, u32::MAX, 0), errno(libc::ENOSYS));
        }
        // A number of the other machine means another call here.
        assert_eq!(verdict(&program(X86, held), AUDIT_AARCH64, 0, 0), errno(libc::EPERM));
        assert_eq!(verdict(&program(ARMS, held), AUDIT_X86_64, 0, 0), errno(libc::EPERM));
    }
}

#[test]
fn arguments_are_looked_at_where_docker_looks() {
    for (machine, audit, column, base) in PROGRAMS {
        let number = |name: &str| {
            let row = TABLE.iter().find(|row| row.name == name).unwrap();
            base + u32::try_from(row.numbers[column]).unwrap()
        };
        let ask = |name: &str, argument| verdict(&program(machine, NONE), audit, number(name), argument);
        let refused = errno(libc::EPERM);
        for flag in [0x2_0000, 0x200_0000, 0x400_0000, 0x800_0000, 0x1000_0000, 0x2000_0000, 0x4000_0000] {
            assert_eq!(ask("clone", flag | 17), refused, "{flag:#x}");
        }
        assert_eq!(ask("clone", 0x003d_0f00), ALLOW, "a thread");
        let refused_families = [12, 19, 20, 23, 25, 34, 37, 38, 40];
        for family in 0..=45 {
            let expected = if refused_families.contains(&family) { refused } else { ALLOW };
            assert_eq!(ask("socket", family), expected, "family {family}");
        }
        for family in [46, 64, 255, u64::from(u32::MAX)] {
            assert_eq!(ask("socket", family), refused, "family {family}");
        }
        assert_eq!(ask("socket", 0xdead_0000_0000_0028), refused, "the kernel reads 32 bits");
        for (domain, expected) in [(0, ALLOW), (8, ALLOW), (0x2_0000, ALLOW), (0x2_0008, ALLOW), (0xffff_ffff, ALLOW)] {
            assert_eq!(ask("personality", domain), expected, "{domain:#x}");
        }
        assert_eq!(ask("personality", 0x4_0000), refused, "no randomisation");
        let admin = program(machine, CapabilitySet::SYS_ADMIN);
        assert_eq!(verdict(&admin, audit, number("clone"), 0x1002_0000), ALLOW);
    }
}

#[test]
fn calls_follow_the_capabilities_that_a_command_has() {
    let answer = |name: &str, held| {
        let row = TABLE.iter().find(|row| row.name == name).unwrap();
        let number = u32::try_from(row.numbers[X86_64]).unwrap();
        verdict(&program(X86, held), AUDIT_X86_64, number, 0) == ALLOW
    };
    for (capability, names) in [
        (CapabilitySet::SYS_ADMIN, "mount umount2 unshare setns bpf perf_event_open fsopen open_tree clone3 syslog"),
        (CapabilitySet::SYS_CHROOT, "chroot"),
        (CapabilitySet::SYS_PTRACE, "kcmp pidfd_getfd process_madvise"),
        (CapabilitySet::SYS_MODULE, "init_module finit_module delete_module"),
        (CapabilitySet::SYS_BOOT, "reboot"),
        (CapabilitySet::SYS_RAWIO, "iopl ioperm"),
        (CapabilitySet::SYS_TIME, "settimeofday clock_settime"),
        (CapabilitySet::SYS_NICE, "mbind set_mempolicy get_mempolicy set_mempolicy_home_node"),
        (CapabilitySet::SYS_PACCT, "acct"),
        (CapabilitySet::SYS_TTY_CONFIG, "vhangup"),
        (CapabilitySet::DAC_READ_SEARCH, "open_by_handle_at"),
        (CapabilitySet::SYSLOG, "syslog"),
        (CapabilitySet::BPF, "bpf"),
        (CapabilitySet::PERFMON, "perf_event_open"),
    ] {
        for name in names.split(' ') {
            assert!(answer(name, capability), "{name}");
            assert!(!answer(name, NONE), "{name}");
        }
    }
    // No capability opens these, here as with Docker.
    for name in
        ["keyctl", "add_key", "request_key", "kexec_load", "swapon", "pivot_root", "io_uring_setup", "userfaultfd"]
    {
        assert!(TABLE.iter().all(|row| row.name != name), "{name}");
    }
}

#[test]
fn no_number_stands_for_two_calls() {
    for column in [X86_64, I386, X32, AARCH64, ARM] {
        let numbers: Vec<i32> = TABLE.iter().map(|row| row.numbers[column]).filter(|number| *number >= 0).collect();
        let distinct: BTreeSet<i32> = numbers.iter().copied().collect();
        assert_eq!(numbers.len(), distinct.len(), "column {column}");
        let segments = segments(column, NONE);
        assert!(segments.windows(2).all(|pair| pair[0].0 < pair[1].0 && pair[0].1 != pair[1].1));
    }
    let names: BTreeSet<&str> = TABLE.iter().map(|row| row.name).collect();
    assert_eq!(names.len(), TABLE.len());
}

/// The numbers against the kernel's headers, where they are installed.
#[test]
fn the_numbers_are_those_of_the_kernels_headers() {
    let asm = "/usr/include/x86_64-linux-gnu/asm";
    for (column, file, prefix) in [
        (X86_64, format!("{asm}/unistd_64.h"), ""),
        (I386, format!("{asm}/unistd_32.h"), ""),
        (X32, format!("{asm}/unistd_x32.h"), "(__X32_SYSCALL_BIT + "),
        (AARCH64, "/usr/include/asm-generic/unistd.h".to_owned(), ""),
    ] {
        let Ok(text) = std::fs::read_to_string(&file) else {
            eprintln!("skipped: this test needs {file}, of the package linux-libc-dev");
            continue;
        };
        let mut numbers: BTreeMap<&str, i32> = BTreeMap::new();
        for line in text.lines() {
            let Some((name, number)) = line.strip_prefix("#define __NR").and_then(|rest| rest.split_once(' ')) else {
                continue;
            };
            let Some(name) = name.strip_prefix("3264_").or_else(|| name.strip_prefix('_')) else { continue };
            let number = number.trim().trim_start_matches(prefix).trim_end_matches(')');
            // The generic list has the calls of 32-bit machines for 64-bit times too.
            let other = |number: i32| column == AARCH64 && (403..=423).contains(&number);
            if let Some(number) = number.parse().ok().filter(|number| !other(*number)) {
                numbers.insert(name, number);
            }
        }
        assert!(numbers.len() > 250, "{file}: {}", numbers.len());
        let newest = numbers.values().copied().filter(|number| *number < 512).max().unwrap();
        for row in TABLE {
            // What this machine's headers do not know yet.
            if let Some(number) = numbers.get(row.name) {
                assert_eq!(row.numbers[column], *number, "{} in {file}", row.name);
            } else if column != AARCH64 && row.name != "uretprobe" {
                assert!(row.numbers[column] < 0 || row.numbers[column] > newest, "{} is not in {file}", row.name);
            }
        }
    }
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
}
