//! What the distribution specification asks of a registry, as cases that run against any [`Target`].
//!
//! A case panics with what it expected and found. Each uses repositories of its own, so that all of them can run against one
//! registry, in any order, again and again.

mod content_management;
mod discovery;
mod errors;
mod pull;
mod push;

use crate::target::Target;

/// One thing that a registry must do.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// Its name, a sentence with underscores: also the name of its test.
    pub name: &'static str,
    /// Runs it; a panic is its failure.
    pub run: fn(&Target),
}

/// A [`Case`] for each function named.
macro_rules! cases {
    ($($module:ident::$name:ident),+ $(,)?) => {
        &[$(Case { name: stringify!($name), run: $module::$name }),+]
    };
}

/// All cases, in the order of the specification.
pub const CASES: &[Case] = cases![
    pull::the_base_answers_ok,
    pull::a_manifest_is_pulled_by_tag_and_by_digest,
    pull::a_manifest_comes_back_byte_for_byte,
    pull::a_blob_is_pulled_whole,
    pull::a_blob_is_pulled_by_range,
    pull::a_range_past_the_end_is_refused,
    pull::existence_is_checked_without_a_body,
    push::a_blob_is_pushed_by_post_and_put,
    push::a_blob_is_pushed_by_a_single_post,
    push::a_blob_is_pushed_as_a_stream,
    push::a_blob_is_pushed_in_chunks,
    push::a_chunk_out_of_order_is_refused,
    push::an_upload_tells_how_far_it_is,
    push::a_cancelled_upload_is_gone,
    push::a_blob_is_mounted_from_another_repository,
    push::a_mount_of_what_is_absent_opens_an_upload,
    push::a_manifest_is_pushed_and_its_digest_returned,
    push::an_index_is_pushed_and_pulled,
    push::a_docker_manifest_keeps_its_type,
    discovery::tags_are_listed_in_order,
    discovery::tags_are_listed_in_pages,
    discovery::referrers_are_listed,
    discovery::referrers_are_filtered_by_type,
    discovery::referrers_of_what_is_unknown_are_an_empty_list,
    content_management::a_tag_is_deleted_and_its_manifest_stays,
    content_management::a_manifest_is_deleted_by_digest_with_its_tags,
    content_management::a_blob_is_deleted,
    content_management::a_deleted_referrer_is_no_longer_listed,
    errors::an_unknown_manifest_is_not_found,
    errors::an_unknown_blob_is_not_found,
    errors::an_invalid_name_is_refused,
    errors::an_invalid_tag_is_refused,
    errors::an_invalid_digest_is_refused,
    errors::a_blob_of_another_digest_is_refused,
    errors::a_manifest_of_another_digest_is_refused,
    errors::a_manifest_that_is_no_json_is_refused,
    errors::a_manifest_naming_an_absent_blob_is_refused,
    errors::an_unknown_upload_is_not_found,
    errors::a_forged_upload_is_not_found,
];
