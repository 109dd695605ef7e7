//! What the distribution specification asks of a registry, as cases that run against any [`Target`].
//!
//! A case panics with what it expected and found; what a registry may leave out it only notes ([`Target::unsupported`]).
//! Each uses repositories of its own, so that all of them can run against one
//! registry, in any order, again and again.

mod content_management;
mod discovery;
mod errors;
mod manifests;
mod pull;
mod push;
mod sessions;

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
    pull::the_digest_of_a_blob_is_said,
    pull::content_of_another_repository_is_not_found,
    pull::a_repository_that_is_not_there_is_not_found,
    pull::names_may_hold_what_their_grammar_admits,
    pull::a_manifest_is_never_converted,
    pull::a_range_that_ends_before_it_begins_is_refused,
    pull::many_pull_at_once,
    pull::the_parameter_of_proxies_is_no_error,
    pull::images_come_and_go_over_http2,
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
    sessions::a_blob_of_unknown_length_is_pushed,
    sessions::an_empty_blob_is_pushed_and_pulled,
    sessions::a_last_chunk_out_of_order_is_refused,
    sessions::a_refused_chunk_leaves_the_session_as_it_was,
    sessions::the_refusal_of_a_large_chunk_arrives,
    sessions::a_chunk_of_another_length_is_refused,
    sessions::a_least_chunk_is_a_number,
    sessions::a_blob_of_another_algorithm_is_pushed_in_chunks,
    sessions::a_blob_of_another_algorithm_is_pushed_whole,
    sessions::a_blob_is_mounted_without_a_source,
    sessions::a_mounted_blob_outlives_its_source,
    sessions::an_upload_goes_on_after_a_cut_connection,
    sessions::a_finishing_put_may_be_repeated,
    sessions::uploads_go_on_side_by_side,
    sessions::two_writers_of_one_session_make_no_mixture,
    sessions::two_writers_of_one_blob_both_succeed,
    manifests::unknown_fields_are_kept,
    manifests::parameters_of_a_content_type_are_ignored,
    manifests::an_image_without_layers_is_pushed,
    manifests::indexes_hold_indexes_or_nothing,
    manifests::layers_of_elsewhere_need_not_be_there,
    manifests::a_sparse_index_is_taken_or_refused,
    manifests::a_sparse_image_is_taken_or_refused,
    manifests::an_image_of_a_deleted_blob_is_not_acknowledged_silently,
    manifests::a_manifest_of_four_megabytes_is_taken,
    manifests::a_manifest_beyond_any_limit_is_refused,
    manifests::tags_are_set_by_a_push_by_digest,
    manifests::a_manifest_of_another_algorithm_is_pushed,
    manifests::a_manifest_may_come_before_its_subject,
    manifests::many_writers_of_one_tag_leave_one_value,
    manifests::a_tag_moves_to_its_last_value,
    manifests::an_artifact_is_pushed,
    discovery::tags_are_listed_in_order,
    discovery::tags_are_listed_in_pages,
    discovery::referrers_are_listed,
    discovery::referrers_are_filtered_by_type,
    discovery::referrers_of_what_is_unknown_are_an_empty_list,
    discovery::tags_after_one_are_listed,
    discovery::tags_of_both_cases_have_one_order,
    discovery::tags_of_an_unknown_repository_are_not_found,
    discovery::the_catalog_lists_repositories_in_pages,
    discovery::referrers_of_no_digest_are_refused,
    discovery::a_referrer_is_described_by_its_own_fields,
    discovery::many_referrers_are_listed_once,
    discovery::the_fallback_tag_and_the_list_agree,
    content_management::a_tag_is_deleted_and_its_manifest_stays,
    content_management::a_manifest_is_deleted_by_digest_with_its_tags,
    content_management::a_blob_is_deleted,
    content_management::a_deleted_referrer_is_no_longer_listed,
    content_management::what_is_not_there_cannot_be_deleted,
    content_management::a_deleted_blob_stays_in_other_repositories,
    content_management::a_deleted_tag_is_no_longer_listed,
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
    errors::errors_have_the_form_of_the_specification,
    errors::an_unknown_algorithm_is_refused,
    errors::a_session_is_not_closed_without_a_digest,
    errors::a_method_that_is_not_possible_is_refused,
];
