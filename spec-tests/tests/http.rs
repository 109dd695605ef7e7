//! The HTTP cases against the real `fluyt-registry`, one test each.

use std::panic::{AssertUnwindSafe, catch_unwind};

use spec_tests::http::CASES;
use spec_tests::registry::Registry;
use spec_tests::stores::{Seaweed, skipped};

fn run(name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case of that name");
    let registry = Registry::start();
    let target = registry.target();
    (case.run)(&target);
    // What others may leave out, this one does.
    assert_eq!(target.notes(), Vec::<String>::new());
}

/// Every case again, on a real S3 server to which the client is sent for every blob, however small.
#[test]
fn all_cases_hold_where_everything_is_redirected() {
    let test = "all_cases_hold_where_everything_is_redirected";
    let Some(server) = Seaweed::shared() else { return skipped(test, "SeaweedFS") };
    let url = format!("s3://{}/images", server.bucket());
    let flags = ["--redirect", "always", "--redirect-min-bytes", "0"];
    let registry = Registry::start_at(&url, &flags, &server.variables());
    let target = registry.target();
    for case in CASES {
        // The S3 server speaks HTTP/1.1 only, and the client of this case is told to speak HTTP/2 without asking.
        if case.name == "images_come_and_go_over_http2" {
            continue;
        }
        let done = catch_unwind(AssertUnwindSafe(|| (case.run)(&target)));
        assert!(done.is_ok(), "the case `{}` fails where everything is redirected", case.name);
    }
    assert_eq!(target.notes(), Vec::<String>::new());
    assert!(registry.log().contains("http.status=307"), "nothing was redirected");
}

/// A test for each name, and the list of them.
macro_rules! tests {
    ($($name:ident),+ $(,)?) => {
        $(#[test]
        fn $name() {
            run(stringify!($name));
        })+
        const TESTED: &[&str] = &[$(stringify!($name)),+];
    };
}

tests![
    the_base_answers_ok,
    a_manifest_is_pulled_by_tag_and_by_digest,
    a_manifest_comes_back_byte_for_byte,
    a_blob_is_pulled_whole,
    a_blob_is_pulled_by_range,
    a_range_past_the_end_is_refused,
    existence_is_checked_without_a_body,
    the_digest_of_a_blob_is_said,
    content_of_another_repository_is_not_found,
    a_repository_that_is_not_there_is_not_found,
    names_may_hold_what_their_grammar_admits,
    a_manifest_is_never_converted,
    a_range_that_ends_before_it_begins_is_refused,
    many_pull_at_once,
    the_parameter_of_proxies_is_no_error,
    images_come_and_go_over_http2,
    a_blob_is_pushed_by_post_and_put,
    a_blob_is_pushed_by_a_single_post,
    a_blob_is_pushed_as_a_stream,
    a_blob_is_pushed_in_chunks,
    a_chunk_out_of_order_is_refused,
    an_upload_tells_how_far_it_is,
    a_cancelled_upload_is_gone,
    a_blob_is_mounted_from_another_repository,
    a_mount_of_what_is_absent_opens_an_upload,
    a_manifest_is_pushed_and_its_digest_returned,
    an_index_is_pushed_and_pulled,
    a_docker_manifest_keeps_its_type,
    a_blob_of_unknown_length_is_pushed,
    an_empty_blob_is_pushed_and_pulled,
    a_last_chunk_out_of_order_is_refused,
    a_refused_chunk_leaves_the_session_as_it_was,
    the_refusal_of_a_large_chunk_arrives,
    a_chunk_of_another_length_is_refused,
    a_least_chunk_is_a_number,
    a_blob_of_another_algorithm_is_pushed_in_chunks,
    a_blob_of_another_algorithm_is_pushed_whole,
    a_blob_is_mounted_without_a_source,
    a_mounted_blob_outlives_its_source,
    an_upload_goes_on_after_a_cut_connection,
    a_finishing_put_may_be_repeated,
    uploads_go_on_side_by_side,
    two_writers_of_one_session_make_no_mixture,
    two_writers_of_one_blob_both_succeed,
    unknown_fields_are_kept,
    parameters_of_a_content_type_are_ignored,
    an_image_without_layers_is_pushed,
    indexes_hold_indexes_or_nothing,
    layers_of_elsewhere_need_not_be_there,
    a_sparse_index_is_taken_or_refused,
    a_sparse_image_is_taken_or_refused,
    an_image_of_a_deleted_blob_is_not_acknowledged_silently,
    a_manifest_of_four_megabytes_is_taken,
    a_manifest_beyond_any_limit_is_refused,
    tags_are_set_by_a_push_by_digest,
    a_manifest_of_another_algorithm_is_pushed,
    a_manifest_may_come_before_its_subject,
    many_writers_of_one_tag_leave_one_value,
    a_tag_moves_to_its_last_value,
    an_artifact_is_pushed,
    tags_are_listed_in_order,
    tags_are_listed_in_pages,
    referrers_are_listed,
    referrers_are_filtered_by_type,
    referrers_of_what_is_unknown_are_an_empty_list,
    tags_after_one_are_listed,
    tags_of_both_cases_have_one_order,
    tags_of_an_unknown_repository_are_not_found,
    the_catalog_lists_repositories_in_pages,
    referrers_of_no_digest_are_refused,
    a_referrer_is_described_by_its_own_fields,
    many_referrers_are_listed_once,
    the_fallback_tag_and_the_list_agree,
    a_tag_is_deleted_and_its_manifest_stays,
    a_manifest_is_deleted_by_digest_with_its_tags,
    a_blob_is_deleted,
    a_deleted_referrer_is_no_longer_listed,
    what_is_not_there_cannot_be_deleted,
    a_deleted_blob_stays_in_other_repositories,
    a_deleted_tag_is_no_longer_listed,
    an_unknown_manifest_is_not_found,
    an_unknown_blob_is_not_found,
    an_invalid_name_is_refused,
    an_invalid_tag_is_refused,
    an_invalid_digest_is_refused,
    a_blob_of_another_digest_is_refused,
    a_manifest_of_another_digest_is_refused,
    a_manifest_that_is_no_json_is_refused,
    a_manifest_naming_an_absent_blob_is_refused,
    an_unknown_upload_is_not_found,
    a_forged_upload_is_not_found,
    errors_have_the_form_of_the_specification,
    an_unknown_algorithm_is_refused,
    a_session_is_not_closed_without_a_digest,
    a_method_that_is_not_possible_is_refused,
];

#[test]
fn every_case_has_a_test() {
    let cases: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(cases, TESTED);
}
