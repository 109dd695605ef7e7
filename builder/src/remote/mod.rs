//! Adapts the registry client to a build: pull of a base, push of an image, events and budget.
