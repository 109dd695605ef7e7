//! Runs the operations of a graph: base, copy, run, fetch.
