//! From the table to the program: a binary search over system call numbers, one per architecture.

use super::bpf::{Instruction, allow, jump, jump_if_any_bit, jump_if_at_least, jump_if_equal, load, refuse};
use super::table::{NEWEST, Row, TABLE};

/// What is done with a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Let through.
    Allow,
    /// `EPERM`.
    Refuse,
    /// `ENOSYS`: as on a kernel without this call.
    Missing,
    /// Let through when it makes no namespace.
    Clone,
    /// Let through for the execution domains that programs really use.
    Personality,
    /// Let through but for `AF_VSOCK`, which leads to the host of a virtual machine.
    Socket,
}

/// Offsets in the kernel's `struct seccomp_data`, in bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower half of the first argument: all that the kernel reads of the arguments we look at.
const FIRST_ARGUMENT: u32 = 16;

/// `x32` calls carry this bit in their number.
const X32_BIT: u32 = 0x4000_0000;

/// Every `CLONE_NEW*` flag that `clone` takes.
const NAMESPACE_FLAGS: u32 = (libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET)
    .cast_unsigned();

/// `PER_LINUX`, `PER_LINUX32`, both with `UNAME26`, and the question for the current one.
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// An architecture whose programs the kernel executes.
#[derive(Debug)]
pub(super) struct Architecture {
    /// The kernel's `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// Its column in the table.
    pub(super) column: usize,
    /// Whether its numbers may carry the bit of `x32`.
    pub(super) x32: bool,
}

/// The whole filter for these architectures.
pub(super) fn program(architectures: &[Architecture]) -> Vec<Instruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for architecture in architectures {
        let search = search(architecture);
        program.push(jump_if_equal(architecture.audit, 1, 0));
        program.push(jump(search.len()));
        program.extend(search);
    }
    // No other architecture can reach a kernel of this one; if it could, its numbers would mean other calls.
    program.push(refuse(libc::EPERM));
    program
}

/// Finds the number in a column and ends the filter.
fn search(architecture: &Architecture) -> Vec<Instruction> {
    let segments = segments(architecture.column);
    let mut program = vec![load(NUMBER)];
    if architecture.x32 {
        // Our kernels are built without x32, or nearly all; a program that tries is told so.
        program.push(jump_if_at_least(X32_BIT, 0, 1));
        program.push(refuse(libc::ENOSYS));
    }
    program.extend(tree(&segments));
    program
}

/// The numbers as stretches with one rule each: where a stretch begins, and its rule.
pub(super) fn segments(column: usize) -> Vec<(u32, Rule)> {
    let number = |row: &Row| row.numbers.get(column).and_then(|number| u32::try_from(*number).ok());
    let mut known: Vec<(u32, Rule)> = TABLE.iter().filter_map(|row| Some((number(row)?, row.rule))).collect();
    known.sort_by_key(|(number, _)| *number);
    let unknown = |number: u32| if number > NEWEST { Rule::Missing } else { Rule::Refuse };
    let mut segments: Vec<(u32, Rule)> = Vec::new();
    let mut push = |start: u32, rule: Rule| {
        if segments.last().is_none_or(|(_, last)| *last != rule) {
            segments.push((start, rule));
        }
    };
    let mut next = 0;
    for (number, rule) in known {
        if number > next {
            push(next, unknown(next));
            if next <= NEWEST && number > NEWEST + 1 {
                push(NEWEST + 1, Rule::Missing);
            }
        }
        push(number, rule);
        next = number + 1;
    }
    if next <= NEWEST {
        push(next, Rule::Refuse);
    }
    push(next.max(NEWEST + 1), Rule::Missing);
    segments
}

/// A search tree whose leaves end the filter. Never empty.
fn tree(segments: &[(u32, Rule)]) -> Vec<Instruction> {
    match segments {
        [] => vec![refuse(libc::EPERM)],
        [(_, rule)] => leaf(*rule),
        _ => {
            let (low, high) = segments.split_at(segments.len() / 2);
            let pivot = high.first().map_or(0, |(start, _)| *start);
            let (low, high) = (tree(low), tree(high));
            let mut program = match u8::try_from(low.len()) {
                Ok(distance) => vec![jump_if_at_least(pivot, distance, 0)],
                Err(_) => vec![jump_if_at_least(pivot, 0, 1), jump(low.len())],
            };
            program.extend(low);
            program.extend(high);
            program
        }
    }
}

fn leaf(rule: Rule) -> Vec<Instruction> {
    match rule {
        Rule::Allow => vec![allow()],
        Rule::Refuse => vec![refuse(libc::EPERM)],
        Rule::Missing => vec![refuse(libc::ENOSYS)],
        Rule::Clone => {
            vec![load(FIRST_ARGUMENT), jump_if_any_bit(NAMESPACE_FLAGS, 0, 1), refuse(libc::EPERM), allow()]
        }
        Rule::Socket => {
            let vsock = libc::AF_VSOCK.cast_unsigned();
            vec![load(FIRST_ARGUMENT), jump_if_equal(vsock, 0, 1), refuse(libc::EPERM), allow()]
        }
        Rule::Personality => {
            let mut program = vec![load(FIRST_ARGUMENT)];
            for value in PERSONALITIES {
                program.extend([jump_if_equal(value, 0, 1), allow()]);
            }
            program.push(refuse(libc::EPERM));
            program
        }
    }
}
