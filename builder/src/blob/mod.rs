//! The store on disk: content by digest, every entry whole or not at all.
