//! Runs one RUN command in its own namespaces: a re-executed, single-threaded stage that gets its specification over a socket pair.
