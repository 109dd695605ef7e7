//! The files the user sends: ignore rules (pure) and the sorted walk.
