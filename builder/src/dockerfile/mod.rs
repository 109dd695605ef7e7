//! Dockerfile text to a syntax tree plus problems. Pure: no I/O, no panic, never stops half way.

mod instruction;
mod position;
mod problem;

pub use instruction::{
    Command, CommandLine, Declaration, Directives, Dockerfile, HealthcheckSyntax, Heredoc, Instruction, Pair,
    RunSyntax, Stage, Transfer, Word,
};
pub use position::{Lines, Position, Span};
pub use problem::{Problem, Severity};
