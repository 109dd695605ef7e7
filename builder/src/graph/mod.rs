//! The syntax tree lowered to operations for one target and platform. Pure.
//!
//! [`lower()`] walks the stages that the target needs, from the top of the file. What changes files becomes an [`Op`];
//! what changes only the configuration (`ENV`, `CMD`, `LABEL` ...) changes the value that travels with the stage. The
//! result is a list of operations in which every input stands before its users, and the target's configuration and
//! history, whose rows name the operation that made their layer.
//!
//! Where `ENV` and `ARG` name the same variable, the later of the two wins, as in the reference builder (its
//! documentation can be read as if `ENV` always did).

mod checks;
mod contexts;
mod environment;
mod history;
mod late;
mod lower;
mod mode;
mod mounts;
mod op;
mod outline;
mod remote;
mod stage;
mod stages;
mod steps;
mod values;

#[cfg(test)]
mod tests;

pub use contexts::{Contexts, FetchedTree, FolderId, NamedContext, normal_name};
pub use lower::lower;
pub use mode::SymbolicMode;
pub use op::{
    About, Allowed, BaseOp, Chmod, Conditions, CopyFrom, CopyOp, FetchOp, Graph, HistoryStep, ImageRequest, InlineFile,
    Limit, LowerInput, Lowered, Mount, MountFrom, MountKind, Network, Node, Op, OpId, ResolvedBase, Root, RunOp,
    Security, Sharing, StageResult,
};
pub use outline::{Argument, Needed, Outline, description_of};
