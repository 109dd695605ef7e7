//! Symbolic modes of `--chmod`, with the meaning that BSD's `chmod` gives them, as the reference builder's do. Pure.
//!
//! `[ugoa]*([-+=][rwxXstugo]*)+`, several joined by commas. What differs from GNU's `chmod`: `=` also clears the set-id
//! bits of its classes, and each permission that stands behind a copied class starts anew (`u=gw` is `u=w`); `X` asks the
//! mode before the first change; `o` alone takes neither `s` nor `t`, and without a class `t` is the only one (`+rt` is
//! `+t`); no umask counts.

/// A symbolic mode, ready to be applied.
#[derive(Clone, PartialEq, Eq)]
pub struct SymbolicMode {
    text: String,
    changes: Vec<Change>,
}

/// One change to a mode, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Add(u32),
    Remove(u32),
    /// Add or remove these where the mode was a folder's or had any execute bit before all changes.
    Execute {
        adds: bool,
        bits: u32,
    },
    /// Take the bits of the class that lies so far left, and add, remove or set them in the classes of `to`.
    Copied {
        shift: u32,
        operator: u8,
        to: u32,
    },
}

const SET_ID: u32 = 0o6000;
const STICKY: u32 = 0o1000;
const OTHERS: u32 = 0o0007;
/// What an operator without classes is about.
const EVERYTHING: u32 = 0o6777;

impl SymbolicMode {
    /// Reads a symbolic mode; none when it is malformed.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut changes = Vec::new();
        for clause in text.split(',') {
            read_clause(clause.as_bytes(), &mut changes)?;
        }
        Some(Self { text: text.to_owned(), changes })
    }

    /// As written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The mode that it makes of another.
    #[must_use]
    pub fn apply(&self, before: u32, is_folder: bool) -> u32 {
        let mut mode = before;
        for change in &self.changes {
            match *change {
                Change::Add(bits) => mode |= bits,
                Change::Remove(bits) => mode &= !bits,
                Change::Execute { .. } if !is_folder && before & 0o111 == 0 => {}
                Change::Execute { adds: true, bits } => mode |= bits,
                Change::Execute { adds: false, bits } => mode &= !bits,
                Change::Copied { shift, operator, to } => {
                    let bits = (mode >> shift) & 0o7;
                    let bits = (bits << 6 | bits << 3 | bits) & to;
                    mode = match operator {
                        b'-' => mode & !bits,
                        b'=' => mode & !(to & 0o777) | bits,
                        _ => mode | bits,
                    };
                }
            }
        }
        mode & 0o7777
    }
}

impl std::fmt::Debug for SymbolicMode {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.text.fmt(formatter)
    }
}

fn read_clause(clause: &[u8], changes: &mut Vec<Change>) -> Option<()> {
    let mut rest = clause;
    let mut classes = 0;
    while let Some((letter, after)) = rest.split_first() {
        classes |= match letter {
            b'u' => 0o4700,
            b'g' => 0o2070,
            b'o' => OTHERS,
            b'a' => EVERYTHING,
            _ => break,
        };
        rest = after;
    }
    if rest.is_empty() {
        return None;
    }
    while let Some((operator @ (b'+' | b'-' | b'='), after)) = rest.split_first() {
        rest = after;
        let mut segment = Segment { operator: *operator, classes, bits: 0, execute: false, is_done: false };
        while let Some((letter, after)) = rest.split_first() {
            if matches!(letter, b'+' | b'-' | b'=') {
                break;
            }
            segment.letter(*letter, changes)?;
            rest = after;
        }
        segment.finish(changes);
    }
    rest.is_empty().then_some(())
}

/// An operator and what was read after it.
struct Segment {
    operator: u8,
    classes: u32,
    /// Permissions that are not among the changes yet.
    bits: u32,
    /// Whether `X` is among them.
    execute: bool,
    /// Whether anything of it is among the changes.
    is_done: bool,
}

impl Segment {
    fn letter(&mut self, letter: u8, changes: &mut Vec<Change>) -> Option<()> {
        let only_others = self.classes != 0 && self.classes & !OTHERS == 0;
        match letter {
            b'r' => self.bits |= 0o444,
            b'w' => self.bits |= 0o222,
            b'x' => self.bits |= 0o111,
            b'X' => self.execute = true,
            b's' if only_others => {}
            b's' => self.bits |= SET_ID,
            b't' if only_others => {}
            b't' => {
                self.bits |= STICKY;
                self.classes |= STICKY;
            }
            b'u' | b'g' | b'o' => {
                self.flush(changes);
                self.is_done = true;
                let shift = match letter {
                    b'u' => 6,
                    b'g' => 3,
                    _ => 0,
                };
                changes.push(Change::Copied { shift, operator: self.operator, to: self.reach() });
            }
            _ => return None,
        }
        Some(())
    }

    /// The bits that the classes may have.
    fn reach(&self) -> u32 {
        if self.classes == 0 { 0o7777 } else { self.classes }
    }

    /// Turns what was read so far into changes.
    fn flush(&mut self, changes: &mut Vec<Change>) {
        let bits = std::mem::take(&mut self.bits) & self.reach();
        if bits != 0 {
            self.is_done = true;
            if self.operator == b'=' {
                self.clear(changes);
            }
            changes.push(if self.operator == b'-' { Change::Remove(bits) } else { Change::Add(bits) });
        }
        if std::mem::take(&mut self.execute) {
            changes.push(Change::Execute { adds: self.operator != b'-', bits: 0o111 & self.reach() });
        }
    }

    fn clear(&self, changes: &mut Vec<Change>) {
        changes.push(Change::Remove(if self.classes == 0 { EVERYTHING } else { self.classes }));
    }

    fn finish(mut self, changes: &mut Vec<Change>) {
        if self.operator == b'=' && self.bits & self.reach() == 0 && !self.is_done {
            self.clear(changes);
        }
        self.flush(changes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_change_as_in_the_reference_builder() {
        for (text, before, is_folder, after) in [
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o600, true, 0o755),
            ("u=rwX,go=rX", 0o700, false, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w", 0o666, false, 0o444),
            ("g=u", 0o750, false, 0o770),
            ("u+s", 0o755, false, 0o4755),
            ("g+s,u+t", 0o755, true, 0o3755),
            ("o=", 0o777, false, 0o770),
            ("u+r-w", 0o200, false, 0o400),
            ("u+t", 0o640, false, 0o1640),
            ("o+t", 0o640, false, 0o640),
            ("o=t", 0o6754, false, 0o6750),
            ("o+s", 0o640, false, 0o640),
            ("u=", 0o6754, false, 0o2054),
            ("=", 0o3777, true, 0o1000),
            ("a=rwX", 0o6754, false, 0o777),
            ("-x+X", 0o6754, false, 0o6755),
            ("a=,u=rw,+X", 0o3777, true, 0o1711),
            ("u=rwx,g+u", 0o6754, false, 0o2774),
            ("a-X", 0o421, false, 0o420),
            ("a-X", 0o3777, true, 0o3666),
            ("u=gw", 0o751, false, 0o251),
            ("u=wg", 0o751, false, 0o551),
            ("u=Xg", 0o421, false, 0o221),
            ("u=Xg", 0o6754, false, 0o6554),
            ("a=X", 0o6754, false, 0o111),
            ("o=gX", 0o421, false, 0o423),
            ("u+t=r", 0o421, false, 0o1421),
            ("+rt", 0o421, false, 0o1421),
            ("=st-u", 0o421, false, 0o1021),
            ("go=os,a-ox", 0o3777, true, 0o3600),
            ("uo==wgt,go=ur+twu", 0o6754, false, 0o1066),
            ("u=uw-ro", 0o6754, false, 0o2254),
        ] {
            let changed = SymbolicMode::parse(text).unwrap().apply(before, is_folder);
            assert_eq!(format!("{changed:o}"), format!("{after:o}"), "{text} on {before:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in ["", "u", "x", "z+x", "u=q", "u+x,", ",u+x", "+755", "-1", " u+x", "u+x ", "u+é"] {
            assert_eq!(SymbolicMode::parse(text), None, "{text}");
        }
    }
}
