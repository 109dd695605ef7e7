//! The specifications as numbered requirements, and both products against real clients.
