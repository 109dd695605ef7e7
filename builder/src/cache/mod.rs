//! Keys of operations (pure) and records on disk: what a step made, found again by content.
