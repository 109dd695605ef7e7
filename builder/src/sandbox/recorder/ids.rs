//! Who each thread is taken for: what it would be had its changes of ids been possible.
//!
//! The kernel tells of no birth of a thread, so that one which is met for the first time is what its process is, or else
//! its parent. One whose parent is gone is taken for the command.

use std::collections::HashMap;
use std::rc::Rc;

use rustix::io::Errno;

use super::calls::{Get, Kind, Set};
use super::process::Processes;
use crate::owners::Owner;

/// How many threads are remembered before those that are gone are forgotten.
const THREADS_MAX: usize = 512;

/// The number that leaves an id as it is.
pub(super) const SAME: u32 = u32::MAX;

/// The most groups that the kernel takes (`NGROUPS_MAX`).
const GROUPS_MAX: usize = 65536;

/// One kind of id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Four {
    real: u32,
    effective: u32,
    saved: u32,
    files: u32,
}

impl Four {
    fn all(id: u32) -> Self {
        Self { real: id, effective: id, saved: id, files: id }
    }

    fn has(self, id: u32) -> bool {
        [self.real, self.effective, self.saved].contains(&id)
    }
}

/// Who a thread is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Ids {
    user: Four,
    group: Four,
    groups: Vec<u32>,
    /// Whether it keeps what root may do when it becomes another user.
    keeps_rights: bool,
    /// Whether it has kept that.
    has_rights: bool,
}

impl Ids {
    pub(super) fn new(uid: u32, gid: u32, groups: Vec<u32>) -> Self {
        Self { user: Four::all(uid), group: Four::all(gid), groups, keeps_rights: false, has_rights: false }
    }

    /// Whether it may do what root may.
    pub(super) fn is_root(&self) -> bool {
        self.user.effective == 0 || self.has_rights
    }

    /// `prctl(PR_SET_KEEPCAPS)`.
    pub(super) fn keep_rights(&mut self, keeps: bool) {
        self.keeps_rights = keeps;
    }

    /// Whether executing a program takes something away.
    pub(super) fn loses_by_execution(&self) -> bool {
        self.keeps_rights || self.has_rights
    }

    /// Whose are the files that it makes.
    pub(super) fn makes(&self) -> Owner {
        Owner { uid: self.user.files, gid: self.group.files }
    }

    /// Whether it may give a file of `owner` to that user and group; what is [`SAME`] stays.
    pub(super) fn may_give(&self, owner: Owner, uid: u32, gid: u32) -> bool {
        let is_own = owner.uid == self.user.files;
        let in_group = |gid| gid == self.group.files || self.groups.contains(&gid);
        self.is_root()
            || is_own && (uid == SAME || uid == owner.uid) && (gid == SAME || gid == owner.gid || in_group(gid))
            || !is_own && uid == SAME && gid == SAME
    }

    /// What becomes of it when it executes a file, which may be set-user-id or set-group-id.
    pub(super) fn after_execution(&self, owner: Owner, mode: u32) -> Self {
        let mut ids = Self { keeps_rights: false, has_rights: false, ..self.clone() };
        if mode & libc::S_ISUID != 0 {
            ids.user = Four { effective: owner.uid, saved: owner.uid, files: owner.uid, ..ids.user };
        }
        if mode & libc::S_ISGID != 0 && mode & libc::S_IXGRP != 0 {
            ids.group = Four { effective: owner.gid, saved: owner.gid, files: owner.gid, ..ids.group };
        }
        ids
    }

    /// A change, as the kernel has it (credentials(7)). Returns the call's result.
    pub(super) fn set(&mut self, set: Set, arguments: [u32; 3], groups: Option<Vec<u32>>) -> Result<i64, Errno> {
        let is_root = self.is_root();
        let of = |kind, ids: &Self| match kind {
            Kind::User => ids.user,
            Kind::Group => ids.group,
        };
        let [first, second, third] = arguments;
        let (kind, four, result) = match set {
            Set::Id(kind) => {
                let old = of(kind, self);
                if is_root {
                    (kind, Four::all(first), 0)
                } else if first == old.real || first == old.saved {
                    (kind, Four { effective: first, files: first, ..old }, 0)
                } else {
                    return Err(Errno::PERM);
                }
            }
            Set::RealEffective(kind) => {
                let old = of(kind, self);
                let may_real = first == SAME || first == old.real || first == old.effective;
                if !is_root && !(may_real && (second == SAME || old.has(second))) {
                    return Err(Errno::PERM);
                }
                let real = if first == SAME { old.real } else { first };
                let effective = if second == SAME { old.effective } else { second };
                let anew = first != SAME || second != SAME && second != old.real;
                let saved = if anew { effective } else { old.saved };
                (kind, Four { real, effective, saved, files: effective }, 0)
            }
            Set::All(kind) => {
                let old = of(kind, self);
                if !is_root && ![first, second, third].iter().all(|id| *id == SAME || old.has(*id)) {
                    return Err(Errno::PERM);
                }
                let or = |id, old| if id == SAME { old } else { id };
                let effective = or(second, old.effective);
                (kind, Four { real: or(first, old.real), effective, saved: or(third, old.saved), files: effective }, 0)
            }
            Set::Files(kind) => {
                let old = of(kind, self);
                let may = is_root || old.has(first) || first == old.files;
                let files = if may && first != SAME { first } else { old.files };
                (kind, Four { files, ..old }, i64::from(old.files))
            }
            Set::Groups => {
                let Some(groups) = groups.filter(|groups| groups.len() <= GROUPS_MAX) else { return Err(Errno::INVAL) };
                if !is_root {
                    return Err(Errno::PERM);
                }
                self.groups = groups;
                self.groups.sort_unstable();
                return Ok(0);
            }
        };
        if matches!(set, Set::Id(_)) && first == SAME {
            return Err(Errno::INVAL);
        }
        match kind {
            Kind::User => {
                self.user = four;
                // capabilities(7), "Effect of user ID changes": kept on the way from root to nobody of root, back by root.
                let is_still = [four.real, four.effective, four.saved].contains(&0);
                self.has_rights = four.effective != 0 && (self.has_rights || is_root && self.keeps_rights && !is_still);
            }
            Kind::Group => self.group = four,
        }
        Ok(result)
    }

    /// The numbers that a question asks for.
    pub(super) fn get(&self, get: Get) -> Vec<u32> {
        let of = |kind| match kind {
            Kind::User => self.user,
            Kind::Group => self.group,
        };
        match get {
            Get::Real(kind) => vec![of(kind).real],
            Get::Effective(kind) => vec![of(kind).effective],
            Get::All(kind) => {
                let four = of(kind);
                vec![four.real, four.effective, four.saved]
            }
            Get::Groups => self.groups.clone(),
        }
    }
}

/// A thread that is known.
#[derive(Debug)]
struct Known {
    ids: Rc<Ids>,
    /// When it was started, for numbers are used again.
    started: u64,
}

/// Who every thread is.
#[derive(Debug)]
pub(super) struct Threads {
    command: Rc<Ids>,
    known: HashMap<u32, Known>,
}

impl Threads {
    /// All are what the command is.
    pub(super) fn new(command: Ids) -> Self {
        Self { command: Rc::new(command), known: HashMap::new() }
    }

    /// Whether no thread is another than root.
    pub(super) fn are_all_root(&self) -> bool {
        self.known.is_empty() && self.command.makes() == Owner::ROOT && self.command.is_root()
    }

    /// Who a thread is.
    pub(super) fn of(&mut self, processes: &Processes, thread: u32) -> Rc<Ids> {
        if self.known.is_empty() {
            return Rc::clone(&self.command);
        }
        let mut met = Vec::new();
        let mut at = thread;
        let ids = loop {
            let Some(about) = processes.about(at) else { break Rc::clone(&self.command) };
            if let Some(known) = self.known.get(&at).filter(|known| known.started == about.started) {
                break Rc::clone(&known.ids);
            }
            met.push((at, about.started));
            let next = if about.process == at { about.parent } else { about.process };
            if next == at || next == 0 || met.len() > 64 {
                break Rc::clone(&self.command);
            }
            at = next;
        };
        for (thread, started) in met.into_iter().take(1) {
            self.know(processes, thread, Known { ids: Rc::clone(&ids), started });
        }
        ids
    }

    /// What a thread has become.
    pub(super) fn set(&mut self, processes: &Processes, thread: u32, ids: Ids) {
        let Some(about) = processes.about(thread) else { return };
        self.know(processes, thread, Known { ids: Rc::new(ids), started: about.started });
    }

    fn know(&mut self, processes: &Processes, thread: u32, known: Known) {
        if self.known.len() >= THREADS_MAX {
            self.known
                .retain(|thread, known| processes.about(*thread).is_some_and(|about| about.started == known.started));
        }
        self.known.insert(thread, known);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ids: &mut Ids, set: Set, arguments: [u32; 3]) -> Result<i64, Errno> {
        ids.set(set, arguments, None)
    }

    #[test]
    fn root_goes_for_good_by_setuid_and_comes_back_by_the_saved_id() {
        let mut ids = Ids::new(0, 0, vec![]);
        assert_eq!(set(&mut ids, Set::All(Kind::User), [42, 42, 0]), Ok(0));
        assert_eq!(set(&mut ids, Set::Id(Kind::User), [0, 0, 0]), Ok(0));
        assert_eq!(ids.get(Get::All(Kind::User)), [42, 0, 0]);
        assert_eq!(set(&mut ids, Set::Id(Kind::User), [42, 0, 0]), Ok(0));
        assert_eq!(ids.get(Get::All(Kind::User)), [42, 42, 42]);
        for way in [Set::Id(Kind::User), Set::All(Kind::User), Set::RealEffective(Kind::User)] {
            assert_eq!(set(&mut ids, way, [0, 0, 0]), Err(Errno::PERM));
        }
        assert_eq!(set(&mut ids, Set::Files(Kind::User), [0, 0, 0]), Ok(42));
        assert_eq!(ids.makes().uid, 42);
    }

    #[test]
    fn what_is_left_out_stays() {
        let mut ids = Ids::new(1, 2, vec![7]);
        assert_eq!(set(&mut ids, Set::All(Kind::Group), [SAME, 2, SAME]), Ok(0));
        assert_eq!(set(&mut ids, Set::RealEffective(Kind::User), [SAME, SAME, 0]), Ok(0));
        assert_eq!(ids, Ids::new(1, 2, vec![7]));
        assert_eq!(ids.set(Set::Groups, [0; 3], Some(vec![1])), Err(Errno::PERM));
    }

    #[test]
    fn rights_are_kept_until_a_program_is_executed() {
        // As `setpriv --reuid=42 --regid=43` does it.
        let mut ids = Ids::new(0, 0, vec![]);
        ids.keep_rights(true);
        assert_eq!(set(&mut ids, Set::All(Kind::User), [42, 42, 42]), Ok(0));
        assert_eq!(set(&mut ids, Set::All(Kind::Group), [43, 43, 43]), Ok(0));
        assert_eq!(ids.set(Set::Groups, [0; 3], Some(vec![43])), Ok(0));
        let mut program = ids.after_execution(Owner::ROOT, 0o755);
        assert_eq!(program, Ids::new(42, 43, vec![43]));
        assert_eq!(set(&mut program, Set::All(Kind::User), [0, 0, 0]), Err(Errno::PERM));
    }

    #[test]
    fn only_root_gives_files_away() {
        let (root, user) = (Ids::new(0, 0, vec![]), Ids::new(5, 6, vec![7]));
        let own = Owner { uid: 5, gid: 6 };
        assert!(root.may_give(own, 9, 9));
        assert!(user.may_give(own, SAME, 7) && user.may_give(own, 5, 6));
        assert!(!user.may_give(own, 0, SAME) && !user.may_give(own, SAME, 8) && !user.may_give(Owner::ROOT, 5, SAME));
    }

    #[test]
    fn a_file_that_is_set_user_id_makes_root() {
        let user = Ids::new(5, 6, vec![]);
        let sudo = user.after_execution(Owner::ROOT, 0o4755);
        assert_eq!((sudo.get(Get::All(Kind::User)), sudo.get(Get::All(Kind::Group))), (vec![5, 0, 0], vec![6, 6, 6]));
        assert!(sudo.is_root());
    }
}
