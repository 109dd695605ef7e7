//! What operators do besides serving: look at a tag's history and go back in it, find out what keeps something, check a
//! store, and reach the server that holds a folder.

mod control;

pub use control::{Command, Commands, Mend, Order, Progress, Refusal, call};
