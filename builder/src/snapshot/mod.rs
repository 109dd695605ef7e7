//! Root file systems for RUN: chains of unpacked layers with a writable top, or one mutable root.
