//! Runs one RUN command in its own namespaces: a re-executed, single-threaded stage that gets its specification over
//! a socket pair.
//!
//! ```text
//! builder (any number of threads)
//!   |  socket pair as the stage's stdin: specification down, wait status or failure up; its end is the death of a side
//!   |  two pipes: the command's stdout and stderr
//!   stage    unshares its namespaces, mounts the root, makes the mount points that are missing, waits
//!     |      PDEATHSIG: the stage's death is the command's
//!     pid 1  mounts, pivots, drops what it may not keep, and becomes the command by `execve`
//! ```
//!
//! The command itself is process 1 of its pid namespace, as with other builders: when it ends, the kernel kills what it
//! left in the background, and signals that it did not ask for do not reach it from inside.
//!
//! | where | what |
//! |---|---|
//! | `parent` | the builder's side: `run` |
//! | `stage`, `init` | the other two processes |
//! | `mounts`, `interior`, `places` | the root; what is mounted in it; the mount points that an image lacks |
//! | `ending` | how a command is asked to end before it is killed |
//! | `extra` | the mounts that the step itself asks for |
//! | `filter`, `capabilities` | what a command may do |
//! | `recorder` | owners, where there is only one id |
//! | `groups`, `memory` | how much it may use, and whether it wanted more memory than there was |
//! | `chroot` | the other way to run a command: without any of that, where nothing but `chroot` is allowed |
//! | `network` | a network of its own that leads out |
//! | `traced` | the way that needs nothing at all: a tracer answers the command's calls, for an ordinary user |
//! | `rung` | the ways to run a command, best first |
//! | `entry` | into a user namespace, for the rungs that need one |
//! | `in_memory` | where changes are kept that the store's file system cannot hold |
//! | `trial` | whether this machine lets all of it work |
//! | `system` | the only unsafe code |
//!
//! Nothing outlives a run: the mounts die with the namespace, the processes with process 1, process 1 with the stage,
//! and the stage ends when the builder's end of the socket closes, however the builder died.
//!
//! What a command sees is what Docker shows it, except that: all mounts but the single device nodes are `nodev`, so that
//! nodes which a command makes cannot be used; on the host's network there is no `CAP_NET_RAW`, and the host's abstract
//! sockets and loopback services are within reach; control groups are shown where the machine has them as one tree (version
//! 2), and not at all elsewhere; the resource limits are the builder's where the build names none. Linux 5.3 is the oldest kernel that has the calls we make, with root and CAP_SYS_ADMIN; without a network
//! also CAP_NET_ADMIN, for the loopback device, or user namespaces.
//!
//! A command that was allowed to be insecure keeps what the builder itself may do: its capabilities, the machine's device
//! nodes, a writable `/sys`; nothing of `/proc` is hidden, and no call is filtered.

mod capabilities;
mod chroot;
mod ending;
mod entry;
mod error;
mod extra;
mod filter;
mod groups;
mod in_memory;
mod init;
mod interior;
mod memory;
mod mounts;
mod network;
mod parent;
mod places;
mod recorder;
mod rung;
mod spec;
mod stage;
mod system;
#[cfg(target_arch = "x86_64")]
mod traced;
mod trial;
mod wire;

pub use capabilities::CapabilityChange;
pub use chroot::recover;
pub use entry::{another_user, enter, enter_as_another, entered};
pub use error::{Failure, SandboxError};
pub use groups::{Membership, Resources, memberships};
pub use in_memory::{InMemory, Shown};
pub use network::{ISOLATING_PROGRAMS, isolating_program, reachable_resolvers};
pub use parent::{run, run_on, set_program};
pub use rung::{Choice, Fidelity, Isolation, Refused, Rung, Wish};
pub use spec::{Exit, Limit, MountSource, Network, RootMount, RunMount, RunSpec, SHM_BYTES, Stream};
pub use stage::stage;
pub use trial::Refusal;
