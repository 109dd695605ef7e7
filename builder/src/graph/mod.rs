//! The syntax tree lowered to operations for one target and platform. Pure.

mod op;
mod platform;

pub use op::{
    About, BaseOp, Chmod, CopyFrom, CopyOp, FetchOp, Graph, HistoryStep, ImageRequest, InlineFile, LowerInput, Lowered,
    Mount, MountFrom, MountKind, Network, Node, Op, OpId, ResolvedBase, Root, RunOp, Security, Sharing, StageResult,
};
pub use platform::{Platform, PlatformError};
