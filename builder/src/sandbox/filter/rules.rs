//! From the table to the program: a binary search over system call numbers, one per architecture.

use rustix::thread::CapabilitySet;

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
    /// Let through to a command that has one of these capabilities.
    With(CapabilitySet),
    /// Let through when it makes no namespace, or to a command with CAP_SYS_ADMIN.
    Clone,
    /// Let through to a command with CAP_SYS_ADMIN. For others the call does not exist: its flags lie in memory, where a
    /// filter cannot look, and libraries that hear so use `clone`.
    Clone3,
    /// Let through for the execution domains that programs really use.
    Personality,
    /// Let through for the [`DOMAINS`].
    Socket,
}

impl Rule {
    /// The rule for a command with these capabilities: never [`Rule::With`] or [`Rule::Clone3`].
    fn for_command(self, held: CapabilitySet) -> Self {
        let admin = held.contains(CapabilitySet::SYS_ADMIN);
        match self {
            Self::With(any) if held.intersects(any) => Self::Allow,
            Self::With(_) => Self::Refuse,
            Self::Clone | Self::Clone3 if admin => Self::Allow,
            Self::Clone3 => Self::Missing,
            other => other,
        }
    }
}

/// Offsets in the kernel's `struct seccomp_data`, in bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
/// The lower half of the first argument: all that the kernel reads of the arguments we look at.
const FIRST_ARGUMENT: u32 = 16;

/// `x32` calls carry this bit in their number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

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

/// The families of sockets, first and last of each stretch, with a gap after each. Not among them: those that the kernel no longer has (12, 19, 20,
/// 23, 25, 34, 37), `AF_ALG` (38), the kernel's cryptography for programs, which had holes and which nobody needs, and
/// `AF_VSOCK` (40), which leads to the host of a virtual machine whatever the network namespace.
///
/// `socketcall` of i386 hides its arguments from any filter: through it all families are open, as with Docker.
const DOMAINS: [(u32, u32); 8] = [(0, 11), (13, 18), (21, 22), (24, 24), (26, 33), (35, 36), (39, 39), (41, 45)];

/// An architecture whose programs the kernel executes.
#[derive(Debug)]
pub(super) struct Architecture {
    /// The kernel's `AUDIT_ARCH_*`.
    pub(super) audit: u32,
    /// Its columns in the table, each with the number at which its calls begin, in ascending order.
    pub(super) columns: &'static [(usize, u32)],
}

/// The whole filter for these architectures, for a command with these capabilities.
pub(super) fn program(architectures: &[Architecture], held: CapabilitySet) -> Vec<Instruction> {
    let mut program = vec![load(ARCHITECTURE)];
    for architecture in architectures {
        let search = search(architecture, held);
        program.push(jump_if_equal(architecture.audit, 1, 0));
        program.push(jump(search.len()));
        program.extend(search);
    }
    // No other architecture can reach a kernel of this one; if it could, its numbers would mean other calls.
    program.push(refuse(libc::EPERM));
    program
}

/// Finds the number in the columns and ends the filter.
fn search(architecture: &Architecture, held: CapabilitySet) -> Vec<Instruction> {
    let mut all: Vec<(u32, Rule)> = Vec::new();
    for (column, base) in architecture.columns {
        let segments = segments(*column, held).into_iter().map(|(start, rule)| (base + start, rule));
        all.extend(segments);
    }
    all.dedup_by(|next, previous| next.1 == previous.1);
    let mut program = vec![load(NUMBER)];
    program.extend(tree(&all, &leaf));
    program
}

/// The numbers as stretches with one rule each: where a stretch begins, and its rule.
pub(super) fn segments(column: usize, held: CapabilitySet) -> Vec<(u32, Rule)> {
    let number = |row: &Row| row.numbers.get(column).and_then(|number| u32::try_from(*number).ok());
    let mut known: Vec<(u32, Rule)> =
        TABLE.iter().filter_map(|row| Some((number(row)?, row.rule.for_command(held)))).collect();
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

/// A search tree over the accumulator whose leaves end the filter. Never empty.
fn tree<T: Copy>(segments: &[(u32, T)], leaf: &dyn Fn(T) -> Vec<Instruction>) -> Vec<Instruction> {
    match segments {
        [] => vec![refuse(libc::EPERM)],
        [(_, value)] => leaf(*value),
        _ => {
            let (low, high) = segments.split_at(segments.len() / 2);
            let pivot = high.first().map_or(0, |(start, _)| *start);
            let (low, high) = (tree(low, leaf), tree(high, leaf));
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
        Rule::Refuse | Rule::With(_) => vec![refuse(libc::EPERM)],
        Rule::Missing | Rule::Clone3 => vec![refuse(libc::ENOSYS)],
        Rule::Clone => {
            vec![load(FIRST_ARGUMENT), jump_if_any_bit(NAMESPACE_FLAGS, 0, 1), refuse(libc::EPERM), allow()]
        }
        Rule::Socket => {
            let mut segments = Vec::new();
            for (first, last) in DOMAINS {
                segments.extend([(first, true), (last + 1, false)]);
            }
            let mut program = vec![load(FIRST_ARGUMENT)];
            program.extend(tree(&segments, &|open| vec![if open { allow() } else { refuse(libc::EPERM) }]));
            program
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
