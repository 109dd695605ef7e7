//! What the specifications ask for, each with the tests that hold it. A requirement without a test fails the build's tests.
//!
//! Ids: `end-N` and `code-N` are those of the distribution specification; `image/...` names a document and a rule of the
//! image specification.

/// One requirement.
#[derive(Debug, Clone, Copy)]
pub struct Requirement {
    /// Its id, unique in the table.
    pub id: &'static str,
    /// Document and section.
    pub section: &'static str,
    /// What is asked for, in one line.
    pub summary: &'static str,
    /// Names of the tests that fail when it is not met.
    pub tests: &'static [&'static str],
}

const fn row(
    id: &'static str,
    section: &'static str,
    summary: &'static str,
    tests: &'static [&'static str],
) -> Requirement {
    Requirement { id, section, summary, tests }
}

/// All requirements that are covered so far.
#[rustfmt::skip]
pub const REQUIREMENTS: &[Requirement] = &[
    row("end-1", "distribution: Determining Support", "GET /v2/ answers 200", &["the_base_answers_ok"]),
    row("end-2", "distribution: Pulling blobs", "GET and HEAD of a blob, with ranges", &["a_blob_is_pulled_whole", "a_blob_is_pulled_by_range", "a_range_past_the_end_is_refused", "existence_is_checked_without_a_body"]),
    row("end-3", "distribution: Pulling manifests", "GET and HEAD of a manifest by tag and digest, byte for byte", &["a_manifest_is_pulled_by_tag_and_by_digest", "a_manifest_comes_back_byte_for_byte", "existence_is_checked_without_a_body"]),
    row("end-4a", "distribution: POST then PUT", "an upload session is opened", &["a_blob_is_pushed_by_post_and_put"]),
    row("end-4b", "distribution: Single POST", "a blob is pushed by one request", &["a_blob_is_pushed_by_a_single_post"]),
    row("end-5", "distribution: Pushing a blob in chunks", "PATCH takes chunks in order only", &["a_blob_is_pushed_as_a_stream", "a_blob_is_pushed_in_chunks", "a_chunk_out_of_order_is_refused"]),
    row("end-6", "distribution: POST then PUT", "PUT ends an upload and checks the digest", &["a_blob_is_pushed_by_post_and_put", "a_blob_of_another_digest_is_refused"]),
    row("end-7", "distribution: Pushing Manifests", "a manifest is kept under tag and digest", &["a_manifest_is_pushed_and_its_digest_returned", "an_index_is_pushed_and_pulled", "a_docker_manifest_keeps_its_type"]),
    row("end-8a", "distribution: Listing Tags", "tags are listed in order", &["tags_are_listed_in_order"]),
    row("end-8b", "distribution: Listing Tags", "tags are listed in pages by n and last", &["tags_are_listed_in_pages"]),
    row("end-9", "distribution: Deleting manifests, tags", "a tag or a manifest is deleted", &["a_tag_is_deleted_and_its_manifest_stays", "a_manifest_is_deleted_by_digest_with_its_tags"]),
    row("end-10", "distribution: Deleting Blobs", "a blob is deleted from its repository", &["a_blob_is_deleted"]),
    row("end-11", "distribution: Mounting a blob", "a blob is mounted, or an upload opened", &["a_blob_is_mounted_from_another_repository", "a_mount_of_what_is_absent_opens_an_upload"]),
    row("end-12a", "distribution: Listing Referrers", "referrers are an image index", &["referrers_are_listed", "referrers_of_what_is_unknown_are_an_empty_list", "a_deleted_referrer_is_no_longer_listed"]),
    row("end-12b", "distribution: Listing Referrers", "referrers are filtered by artifact type", &["referrers_are_filtered_by_type"]),
    row("end-13", "distribution: Pushing a blob in chunks", "GET of an upload says how far it is", &["an_upload_tells_how_far_it_is"]),
    row("end-14", "distribution: Canceling an upload", "DELETE of an upload ends it", &["a_cancelled_upload_is_gone"]),
    row("code-1", "distribution: Error Codes", "BLOB_UNKNOWN", &["an_unknown_blob_is_not_found"]),
    row("code-3", "distribution: Error Codes", "BLOB_UPLOAD_UNKNOWN", &["an_unknown_upload_is_not_found", "a_forged_upload_is_not_found"]),
    row("code-4", "distribution: Error Codes", "DIGEST_INVALID", &["an_invalid_digest_is_refused", "a_blob_of_another_digest_is_refused", "a_manifest_of_another_digest_is_refused"]),
    row("code-5", "distribution: Error Codes", "MANIFEST_BLOB_UNKNOWN", &["a_manifest_naming_an_absent_blob_is_refused"]),
    row("code-6", "distribution: Error Codes", "MANIFEST_INVALID", &["a_manifest_that_is_no_json_is_refused"]),
    row("code-7", "distribution: Error Codes", "MANIFEST_UNKNOWN", &["an_unknown_manifest_is_not_found"]),
    row("image/layout/parts", "image: Image Layout", "oci-layout, index.json and blobs by digest", &["a_layout_has_its_three_parts", "a_tar_of_a_layout_is_the_same_layout"]),
    row("image/layout/ref-name", "image: Image Layout, index.json", "an entry is named by its ref.name annotation", &["a_layout_has_its_three_parts"]),
    row("image/manifest/descriptors", "image: Image Manifest", "digest, size and media type of every descriptor fit the bytes", &["an_image_keeps_the_rules_of_the_specification"]),
    row("image/config/rootfs", "image: Image Configuration, rootfs", "diff ids are the digests of the uncompressed layers, in order", &["an_image_keeps_the_rules_of_the_specification", "docker_pulls_what_was_built"]),
    row("image/config/history", "image: Image Configuration, history", "one row without empty_layer for every layer", &["an_image_keeps_the_rules_of_the_specification", "run_leaves_only_what_it_changed"]),
    row("image/config/runtime", "image: Image Configuration, config", "what a container runs by", &["the_configuration_says_what_the_dockerfile_says", "docker_runs_what_was_built"]),
    row("image/layer/attributes", "image: Layer Filesystem Changeset, File Attributes", "owners, modes, links and times are kept", &["files_keep_owners_modes_and_links", "docker_pulls_what_was_built", "podman_pulls_what_was_built"]),
    row("image/layer/whiteouts", "image: Layer Filesystem Changeset, Whiteouts", "what a step removes is gone for the next", &["run_leaves_only_what_it_changed", "whiteouts_hide_what_is_below_and_not_what_their_layer_adds"]),
    row("image/layer/entries", "image: Layer Filesystem Changeset", "paths are relative and stand once", &["an_image_keeps_the_rules_of_the_specification"]),
    row("image/media-types", "image: Media Types", "manifest, configuration and layers have OCI's types", &["an_image_keeps_the_rules_of_the_specification"]),
    row("code-8", "distribution: Error Codes", "NAME_INVALID", &["an_invalid_name_is_refused", "an_invalid_tag_is_refused"]),
];
