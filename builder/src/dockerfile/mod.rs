//! Dockerfile text to a syntax tree plus problems. Pure: no I/O, no panic, never stops half way.
