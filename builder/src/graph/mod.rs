//! The syntax tree lowered to operations for one target and platform. Pure.
