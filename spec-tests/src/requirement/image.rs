//! The OCI image specification: what the builder writes.

use super::Level::Must;
use super::{Requirement, row};

/// All that is covered so far. Ids name a document and a rule.
#[rustfmt::skip]
pub(super) const REQUIREMENTS: &[Requirement] = &[
    row(Must, "image/layout/parts", "image: Image Layout", "oci-layout, index.json and blobs by digest", &["a_layout_has_its_three_parts", "a_tar_of_a_layout_is_the_same_layout"]),
    row(Must, "image/layout/ref-name", "image: Image Layout, index.json", "an entry is named by its ref.name annotation", &["a_layout_has_its_three_parts"]),
    row(Must, "image/manifest/descriptors", "image: Image Manifest", "digest, size and media type of every descriptor fit the bytes", &["an_image_keeps_the_rules_of_the_specification"]),
    row(Must, "image/config/rootfs", "image: Image Configuration, rootfs", "diff ids are the digests of the uncompressed layers, in order", &["an_image_keeps_the_rules_of_the_specification", "docker_pulls_what_was_built"]),
    row(Must, "image/config/history", "image: Image Configuration, history", "one row without empty_layer for every layer", &["an_image_keeps_the_rules_of_the_specification", "run_leaves_only_what_it_changed"]),
    row(Must, "image/config/runtime", "image: Image Configuration, config", "what a container runs by", &["the_configuration_says_what_the_dockerfile_says", "docker_runs_what_was_built"]),
    row(Must, "image/layer/attributes", "image: Layer Filesystem Changeset, File Attributes", "owners, modes, links and times are kept", &["files_keep_owners_modes_and_links", "docker_pulls_what_was_built", "podman_pulls_what_was_built"]),
    row(Must, "image/layer/whiteouts", "image: Layer Filesystem Changeset, Whiteouts", "what a step removes is gone for the next", &["run_leaves_only_what_it_changed", "whiteouts_hide_what_is_below_and_not_what_their_layer_adds"]),
    row(Must, "image/layer/entries", "image: Layer Filesystem Changeset", "paths are relative and stand once", &["an_image_keeps_the_rules_of_the_specification"]),
    row(Must, "image/media-types", "image: Media Types", "manifest, configuration and layers have OCI's types", &["an_image_keeps_the_rules_of_the_specification"]),
];
