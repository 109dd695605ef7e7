//! An image to a file, a folder or another program.
