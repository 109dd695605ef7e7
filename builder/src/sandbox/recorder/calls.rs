//! The system calls that the supervisor hears of, and the filter that tells it.
//!
//! It lies beside the filter of every RUN: the kernel asks both, and what either refuses is refused.

use super::super::filter::bpf::{Instruction, allow, jump, jump_if_any_bit, jump_if_equal, load};

/// What is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Call {
    /// Path, user, group; links are followed or not.
    Chown { follow: bool },
    /// Descriptor, user, group.
    ChownOpen,
    /// Folder, path, user, group, flags.
    ChownAt,
    /// What changes who a thread is.
    Set(Set),
    /// What tells who a thread is.
    Get(Get),
    /// Path, buffer; links are followed or not.
    Stat { follow: bool },
    /// Descriptor, buffer.
    StatOpen,
    /// Folder, path, buffer, flags.
    StatAt,
    /// Folder, path, flags, mask, buffer.
    StatX,
    /// Path, flags, mode.
    Open,
    /// Folder, path, flags, mode.
    OpenAt,
    /// Path, mode.
    Create,
    /// Path, mode.
    MakeFolder,
    /// Folder, path, mode.
    MakeFolderAt,
    /// Path, mode, device.
    MakeNode,
    /// Folder, path, mode, device.
    MakeNodeAt,
    /// Target, path.
    Link,
    /// Target, folder, path.
    LinkAt,
    /// Path.
    Execute,
    /// Folder, path, ..., flags.
    ExecuteAt,
    /// Path.
    ChangeRoot,
    /// Whether rights outlive a change of the user: `prctl(PR_SET_KEEPCAPS, yes or no)`.
    KeepRights,
}

/// A change of ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Set {
    /// The user or group, for good where the caller is root.
    Id(Kind),
    /// Real and effective.
    RealEffective(Kind),
    /// Real, effective, saved.
    All(Kind),
    /// That for files.
    Files(Kind),
    /// Length and list.
    Groups,
}

/// A question for ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Get {
    Real(Kind),
    Effective(Kind),
    /// Three places to write to.
    All(Kind),
    /// Room and list.
    Groups,
}

/// Which ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Group,
}

/// When the supervisor hears of a call.
#[derive(Clone, Copy)]
enum When {
    Always,
    /// When this argument has the flag that makes files.
    Creates(u32),
    /// When the first argument is this.
    Is(u32),
}

struct Row {
    call: Call,
    /// On x86_64, i386, aarch64 and arm; `NO` where the architecture has no such call, or one whose data has another
    /// form: programs of 32 bits are shown no recorded owners, but give them.
    numbers: [i32; 4],
    /// Whether ids have 16 bits on the architectures of 32.
    short: bool,
    when: When,
}

const NO: i32 = -1;

const fn row(call: Call, numbers: [i32; 4]) -> Row {
    Row { call, numbers, short: false, when: When::Always }
}

const fn short(call: Call, numbers: [i32; 4]) -> Row {
    Row { call, numbers, short: true, when: When::Always }
}

const fn creates(call: Call, argument: u32, numbers: [i32; 4]) -> Row {
    Row { call, numbers, short: false, when: When::Creates(argument) }
}

const ROWS: &[Row] = &[
    short(Call::Chown { follow: true }, [92, 182, NO, 182]),
    short(Call::Chown { follow: false }, [94, 16, NO, 16]),
    short(Call::ChownOpen, [93, 95, 55, 95]),
    row(Call::ChownAt, [260, 298, 54, 325]),
    row(Call::Chown { follow: true }, [NO, 212, NO, 212]),
    row(Call::Chown { follow: false }, [NO, 198, NO, 198]),
    row(Call::ChownOpen, [NO, 207, NO, 207]),
    short(Call::Set(Set::Id(Kind::User)), [105, 23, 146, 23]),
    short(Call::Set(Set::Id(Kind::Group)), [106, 46, 144, 46]),
    short(Call::Set(Set::RealEffective(Kind::User)), [113, 70, 145, 70]),
    short(Call::Set(Set::RealEffective(Kind::Group)), [114, 71, 143, 71]),
    short(Call::Set(Set::All(Kind::User)), [117, 164, 147, 164]),
    short(Call::Set(Set::All(Kind::Group)), [119, 170, 149, 170]),
    short(Call::Set(Set::Files(Kind::User)), [122, 138, 151, 138]),
    short(Call::Set(Set::Files(Kind::Group)), [123, 139, 152, 139]),
    short(Call::Set(Set::Groups), [116, 81, 159, 81]),
    row(Call::Set(Set::Id(Kind::User)), [NO, 213, NO, 213]),
    row(Call::Set(Set::Id(Kind::Group)), [NO, 214, NO, 214]),
    row(Call::Set(Set::RealEffective(Kind::User)), [NO, 203, NO, 203]),
    row(Call::Set(Set::RealEffective(Kind::Group)), [NO, 204, NO, 204]),
    row(Call::Set(Set::All(Kind::User)), [NO, 208, NO, 208]),
    row(Call::Set(Set::All(Kind::Group)), [NO, 210, NO, 210]),
    row(Call::Set(Set::Files(Kind::User)), [NO, 215, NO, 215]),
    row(Call::Set(Set::Files(Kind::Group)), [NO, 216, NO, 216]),
    row(Call::Set(Set::Groups), [NO, 206, NO, 206]),
    short(Call::Get(Get::Real(Kind::User)), [102, 24, 174, 24]),
    short(Call::Get(Get::Effective(Kind::User)), [107, 49, 175, 49]),
    short(Call::Get(Get::Real(Kind::Group)), [104, 47, 176, 47]),
    short(Call::Get(Get::Effective(Kind::Group)), [108, 50, 177, 50]),
    short(Call::Get(Get::All(Kind::User)), [118, 165, 148, 165]),
    short(Call::Get(Get::All(Kind::Group)), [120, 171, 150, 171]),
    short(Call::Get(Get::Groups), [115, 80, 158, 80]),
    row(Call::Get(Get::Real(Kind::User)), [NO, 199, NO, 199]),
    row(Call::Get(Get::Effective(Kind::User)), [NO, 201, NO, 201]),
    row(Call::Get(Get::Real(Kind::Group)), [NO, 200, NO, 200]),
    row(Call::Get(Get::Effective(Kind::Group)), [NO, 202, NO, 202]),
    row(Call::Get(Get::All(Kind::User)), [NO, 209, NO, 209]),
    row(Call::Get(Get::All(Kind::Group)), [NO, 211, NO, 211]),
    row(Call::Get(Get::Groups), [NO, 205, NO, 205]),
    row(Call::Stat { follow: true }, [4, NO, NO, NO]),
    row(Call::Stat { follow: false }, [6, NO, NO, NO]),
    row(Call::StatOpen, [5, NO, 80, NO]),
    row(Call::StatAt, [262, NO, 79, NO]),
    row(Call::StatX, [332, 383, 291, 397]),
    creates(Call::Open, 1, [2, 5, NO, 5]),
    creates(Call::OpenAt, 2, [257, 295, 56, 322]),
    row(Call::Create, [85, 8, NO, 8]),
    row(Call::MakeFolder, [83, 39, NO, 39]),
    row(Call::MakeFolderAt, [258, 296, 34, 323]),
    row(Call::MakeNode, [133, 14, NO, 14]),
    row(Call::MakeNodeAt, [259, 297, 33, 324]),
    row(Call::Link, [88, 83, NO, 83]),
    row(Call::LinkAt, [266, 304, 36, 331]),
    row(Call::Execute, [59, 11, 221, 11]),
    row(Call::ExecuteAt, [322, 358, 281, 387]),
    row(Call::ChangeRoot, [161, 61, 51, 61]),
    Row {
        call: Call::KeepRights,
        numbers: [157, 172, 167, 172],
        short: false,
        when: When::Is(libc::PR_SET_KEEPCAPS.cast_unsigned()),
    },
];

/// An architecture: the kernel's number for it, its column, and whether its programs have 32 bits.
#[cfg(target_arch = "x86_64")]
const ARCHITECTURES: [(u32, usize, bool); 2] = [(0xc000_003e, 0, false), (0x4000_0003, 1, true)];
#[cfg(target_arch = "aarch64")]
const ARCHITECTURES: [(u32, usize, bool); 2] = [(0xc000_00b7, 2, false), (0x4000_0028, 3, true)];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
const ARCHITECTURES: [(u32, usize, bool); 0] = [];

/// A call as the kernel tells of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) call: Call,
    /// Whether ids have 16 bits.
    pub(super) short: bool,
    /// Whether the caller is a program of 32 bits.
    pub(super) narrow: bool,
}

/// What a number means on an architecture.
pub(super) fn told(architecture: u32, number: i32) -> Option<Told> {
    let (_, column, narrow) = ARCHITECTURES.iter().find(|(audit, ..)| *audit == architecture)?;
    let row = ROWS.iter().find(|row| number >= 0 && row.numbers.get(*column) == Some(&number))?;
    Some(Told { call: row.call, short: row.short && *narrow, narrow: *narrow })
}

/// Offsets in the kernel's `struct seccomp_data`, in bytes.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// `O_CREAT`.
const CREATES: u32 = libc::O_CREAT.cast_unsigned();

/// The filter: all calls are made, but those of the table are told of before.
pub(super) fn program() -> Vec<Instruction> {
    let tell = Instruction {
        code: u16::try_from(libc::BPF_RET | libc::BPF_K).unwrap_or_default(),
        jt: 0,
        jf: 0,
        k: libc::SECCOMP_RET_USER_NOTIF,
    };
    let mut program = vec![load(ARCHITECTURE)];
    for (audit, column, _) in ARCHITECTURES {
        let mut part = vec![load(NUMBER)];
        for row in ROWS {
            let Some(number) = row.numbers.get(column).and_then(|number| u32::try_from(*number).ok()) else { continue };
            match row.when {
                When::Always => part.extend([jump_if_equal(number, 0, 1), tell]),
                When::Is(value) => part.extend([
                    jump_if_equal(number, 0, 4),
                    load(ARGUMENTS),
                    jump_if_equal(value, 0, 1),
                    tell,
                    allow(),
                ]),
                When::Creates(argument) => part.extend([
                    jump_if_equal(number, 0, 4),
                    load(ARGUMENTS + 8 * argument),
                    jump_if_any_bit(CREATES, 0, 1),
                    tell,
                    allow(),
                ]),
            }
        }
        part.push(allow());
        program.push(jump_if_equal(audit, 1, 0));
        program.push(jump(part.len()));
        program.extend(part);
    }
    program.push(allow());
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_number_means_one_call() {
        for column in 0..4 {
            let mut numbers: Vec<i32> =
                ROWS.iter().map(|row| row.numbers[column]).filter(|number| *number >= 0).collect();
            let count = numbers.len();
            numbers.sort_unstable();
            numbers.dedup();
            assert_eq!(numbers.len(), count, "column {column}");
        }
    }

    #[test]
    fn the_numbers_are_those_of_the_large_table() {
        // The filter of every RUN names the same calls; those with another meaning would be seen here.
        let known: Vec<[i32; 4]> = super::super::super::filter::numbers().map(|[a, b, _, c, d]| [a, b, c, d]).collect();
        for row in ROWS {
            let same = |other: &[i32; 4]| row.numbers.iter().zip(other).all(|(a, b)| *a == NO || a == b);
            assert!(known.iter().any(same), "{:?}", row.numbers);
        }
    }

    #[test]
    fn the_filter_fits() {
        let program = program();
        assert!(program.len() < 4096);
        #[cfg(target_arch = "x86_64")]
        {
            assert_eq!(told(0xc000_003e, 260).map(|told| told.call), Some(Call::ChownAt));
            assert_eq!(told(0x4000_0003, 95).map(|told| (told.call, told.short)), Some((Call::ChownOpen, true)));
            assert_eq!(told(0xc000_003e, 0), None);
        }
    }
}
