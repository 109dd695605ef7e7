//! The tracer's loop: hears what the kernel says of its tasks, and lets them go on.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ffi::CString;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use rustix::fs::FileType;
use rustix::io::Errno;

use super::super::error::{During, Failure};
use super::super::recorder;
use super::super::recorder::system::{self as calls, Notice};
use super::memory::Memory;
use super::program;
use super::system::{self, Go, InTurn, Tid};
use super::task::{Credentials, EFFECTIVE, FILES, Pending, Process, SAVED, Task, Then};
use super::world::{Caller, Outcome, World};

/// Runs the command to its end; its wait status. What it leaves in the background is killed. `asks` hands over what hears
/// of calls that are to be answered, if anything does.
pub(super) fn run(tracer: &Arc<InTurn<Tracer>>, asks: UnixStream) -> Result<i32, Failure> {
    let (shared, other) = (tracer, Arc::clone(tracer));
    let _answering = std::thread::spawn(move || answer_all(&other, &asks));
    let mut ended = None;
    loop {
        let (tid, status) = match system::wait(-1) {
            Ok(changed) => changed,
            Err(Errno::CHILD) => break,
            Err(errno) => return Err(errno).during(|| "waiting for the command".to_owned()),
        };
        let mut tracer = shared.lock();
        if libc::WIFEXITED(status) || libc::WIFSIGNALED(status) {
            if tracer.ended(tid) {
                ended = Some(status);
            }
            continue;
        }
        // A task that was killed meanwhile cannot be told anything.
        let (how, signal) = tracer.stopped(tid, status);
        if let Some(how) = how {
            let _ = system::go(tid, how, signal);
        }
    }
    ended.ok_or_else(|| Failure::new("the command's status was lost"))
}

/// Answers calls until there is nobody left to make any.
fn answer_all(tracer: &InTurn<Tracer>, asks: &UnixStream) {
    let Some(listener) = recorder::receive(asks).ok().and_then(|fds| fds.into_iter().next()) else { return };
    calls::take_turns(listener.as_fd());
    loop {
        match calls::receive(listener.as_fd()) {
            Ok(notice) => {
                let result = tracer.lock().asked(&notice);
                // Nobody hears it who was killed meanwhile.
                let _ = calls::answer(listener.as_fd(), notice.id, result);
            }
            // A signal, or the caller was killed.
            Err(Errno::INTR | Errno::NOENT) => {}
            Err(_) => return,
        }
    }
}

pub(super) struct Tracer {
    pub(super) world: World,
    tasks: HashMap<Tid, Task>,
    /// New tasks that have stopped before their parent's event told of them.
    early: HashSet<Tid>,
    first: Tid,
}

impl Tracer {
    /// Takes over a child that waits.
    pub(super) fn seize(world: World, child: Tid, credentials: Credentials) -> Result<Self, Failure> {
        system::seize(child).during(|| "tracing the command".to_owned())?;
        let memory = Memory::of(child, 0).during(|| "opening the command's memory".to_owned())?;
        let process = Process { tgid: child, credentials, umask: 0o022, program: Vec::new(), memory: Rc::new(memory) };
        let process = Rc::new(RefCell::new(process));
        world.processes.borrow_mut().insert(child, Rc::downgrade(&process));
        let task = Task { tid: child, process, pending: None };
        Ok(Self { world, tasks: HashMap::from([(child, task)]), early: HashSet::new(), first: child })
    }

    fn ended(&mut self, tid: Tid) -> bool {
        self.gone(tid);
        if tid == self.first {
            for tid in self.tasks.keys() {
                let _ = system::kill(*tid, libc::SIGKILL);
            }
        }
        tid == self.first
    }

    /// A task waits for the answer to a call.
    fn asked(&self, notice: &Notice) -> Result<i64, Errno> {
        let tid = Tid::try_from(notice.pid).map_err(|_| Errno::SRCH)?;
        let task = self.tasks.get(&tid).ok_or(Errno::NOSYS)?;
        let registers = system::registers_of_call(notice.data.number, notice.data.arguments);
        match Caller::new(&self.world, task, registers).answer()? {
            Outcome::Return(value) => Ok(value.cast_signed()),
            // The filter asks of no such call.
            Outcome::Run | Outcome::Changed(_) => Err(Errno::NOSYS),
        }
    }

    fn gone(&mut self, tid: Tid) {
        self.tasks.remove(&tid);
        self.early.remove(&tid);
        let dead = |process: &std::rc::Weak<_>| process.strong_count() == 0;
        if self.world.processes.borrow().get(&tid).is_some_and(dead) {
            self.world.processes.borrow_mut().remove(&tid);
        }
    }

    fn stopped(&mut self, tid: Tid, status: i32) -> (Option<Go>, i32) {
        let (signal, event) = (libc::WSTOPSIG(status), status >> 16);
        match event {
            libc::PTRACE_EVENT_SECCOMP => (Some(self.called(tid)), 0),
            libc::PTRACE_EVENT_FORK | libc::PTRACE_EVENT_VFORK | libc::PTRACE_EVENT_CLONE => {
                if let Ok(child) = system::event_message(tid) {
                    self.born(tid, child, event);
                }
                // A call that has more to do, such as vfork, has its own stop at its end.
                (Some(self.after(tid)), 0)
            }
            libc::PTRACE_EVENT_EXEC => {
                self.replaced(tid);
                (Some(Go::ToExit), 0)
            }
            libc::PTRACE_EVENT_STOP => {
                if !self.tasks.contains_key(&tid) {
                    self.early.insert(tid);
                    return (None, 0);
                }
                let stops = matches!(signal, libc::SIGSTOP | libc::SIGTSTP | libc::SIGTTIN | libc::SIGTTOU);
                (Some(if stops { Go::Listen } else { Go::On }), 0)
            }
            _ if signal == libc::SIGTRAP | 0x80 => (Some(self.returned(tid)), 0),
            _ => (Some(self.after(tid)), signal),
        }
    }

    fn after(&self, tid: Tid) -> Go {
        let waits = self.tasks.get(&tid).is_some_and(|task| task.pending.is_some());
        if waits { Go::ToExit } else { Go::On }
    }

    fn born(&mut self, parent: Tid, child: Tid, event: i32) {
        let tid = parent;
        let Some(parent) = self.tasks.get(&parent) else { return };
        let shares_process = event == libc::PTRACE_EVENT_CLONE
            && std::path::Path::new(&format!("/proc/{}/task/{child}", parent.process.borrow().tgid)).exists();
        let process = if shares_process {
            Rc::clone(&parent.process)
        } else {
            let process = parent.process.borrow();
            let shares = |registers: system::Registers| {
                registers.orig_rax.cast_signed() == libc::SYS_clone && registers.rdi as i32 & libc::CLONE_VM != 0
            };
            let memory = if event == libc::PTRACE_EVENT_VFORK || system::registers(tid).is_ok_and(shares) {
                Rc::clone(&process.memory)
            } else {
                match Memory::of(child, process.memory.scratch()) {
                    Ok(memory) => Rc::new(memory),
                    Err(_) => return,
                }
            };
            let new = Process {
                tgid: child,
                credentials: process.credentials.clone(),
                umask: process.umask,
                program: process.program.clone(),
                memory,
            };
            let new = Rc::new(RefCell::new(new));
            self.world.processes.borrow_mut().insert(child, Rc::downgrade(&new));
            new
        };
        self.tasks.insert(child, Task { tid: child, process, pending: None });
        if self.early.remove(&child) {
            let _ = system::go(child, Go::On, 0);
        }
    }

    /// A task is about to make a call that is ours to answer.
    fn called(&mut self, tid: Tid) -> Go {
        let Some(task) = self.tasks.get_mut(&tid) else { return Go::On };
        let Ok(registers) = system::registers(tid) else { return Go::On };
        let outcome = Caller::new(&self.world, task, registers).answer();
        let result = match outcome {
            Ok(Outcome::Run) => return Go::On,
            Ok(Outcome::Changed(changed)) => {
                let (registers, pending) = *changed;
                task.pending = Some(pending);
                let _ = system::set_registers(tid, &registers);
                return Go::ToExit;
            }
            Ok(Outcome::Return(value)) => value,
            Err(errno) => i64::from(-errno.raw_os_error()).cast_unsigned(),
        };
        let mut registers = registers;
        // No call has this number.
        registers.orig_rax = u64::MAX;
        registers.rax = result;
        let _ = system::set_registers(tid, &registers);
        Go::On
    }

    /// A changed call has ended.
    fn returned(&mut self, tid: Tid) -> Go {
        let Some(task) = self.tasks.get_mut(&tid) else { return Go::On };
        let Some(pending) = task.pending.take() else { return Go::On };
        let Ok(registers) = system::registers(tid) else { return Go::On };
        let result = registers.rax.cast_signed();
        let Pending { before, slot, then, held: _ } = pending;
        if result >= 0
            && let Then::Program(prepared) = &then
        {
            if self.begin(tid, prepared).is_err() {
                let _ = system::kill(tid, libc::SIGKILL);
            }
            return Go::On;
        }
        task.process.borrow().memory.free_slot(slot);
        if result >= 0
            && let Then::Made { owner, mode } = &then
            && let Ok(path) = CString::new(format!("/proc/{tid}/fd/{result}"))
        {
            if let Some(mode) = mode {
                let _ = self.world.owners.set_mode(&path, FileType::RegularFile, *mode);
            }
            if *owner != (0, 0) {
                let _ = self.world.owners.set_owner(&path, owner.0, owner.1);
            }
        }
        if result >= 0
            && let Then::Bound { folder, name, owner } = &then
            && *owner != (0, 0)
            && let Ok(socket) = folder.within(name)
        {
            let _ = self.world.owners.set_owner(&socket.name(), owner.0, owner.1);
        }
        if result >= 0
            && let Then::Peer { at } = then
        {
            let _ = self.world.tell_peer(&task.process.borrow().memory, at);
        }
        if result >= 0
            && let Then::Named { at, length_at, room } = then
        {
            let _ = self.world.tell_name(&task.process.borrow().memory, at, length_at, room);
        }
        // As before also in the call's number: after a signal the kernel may make it again by itself.
        let mut after = before;
        after.rax = registers.rax;
        if result >= 0
            && let Then::Sent { length_at } = then
        {
            let _ = task.process.borrow().memory.write(length_at, &(registers.rax as u32).to_ne_bytes());
            after.rax = 1;
        }
        after.rip = registers.rip;
        after.rcx = registers.rcx;
        after.r11 = registers.r11;
        let _ = system::set_registers(tid, &after);
        Go::On
    }

    /// A process has got another program: its other threads are gone, and the one that asked has the process's number.
    fn replaced(&mut self, tid: Tid) {
        let former = system::event_message(tid).unwrap_or(tid);
        let asked = self.tasks.remove(&former);
        if former != tid {
            self.tasks.remove(&tid);
        }
        let Some(mut task) = asked else { return };
        task.tid = tid;
        if let Some(pending) = &task.pending {
            task.process.borrow().memory.free_slot(pending.slot);
        }
        self.tasks.insert(tid, task);
    }

    /// Finishes the start of a program.
    fn begin(&mut self, tid: Tid, prepared: &program::Prepared) -> Result<(), Errno> {
        let memory = program::load(tid, prepared)?;
        let Some(task) = self.tasks.get(&tid) else { return Err(Errno::SRCH) };
        let mut process = task.process.borrow_mut();
        process.memory = memory;
        process.program = prepared.seen.clone();
        let credentials = &mut process.credentials;
        (credentials.keeps, credentials.kept) = (false, false);
        for (ids, id) in [(&mut credentials.uids, prepared.uid), (&mut credentials.gids, prepared.gid)] {
            if let Some(id) = id {
                ids[EFFECTIVE] = id;
            }
            ids[SAVED] = ids[EFFECTIVE];
            ids[FILES] = ids[EFFECTIVE];
        }
        Ok(())
    }
}
