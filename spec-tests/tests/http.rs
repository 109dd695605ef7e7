//! The HTTP cases against the real `fluyt-registry`, one test each.

use spec_tests::http::CASES;
use spec_tests::registry::Registry;

fn run(name: &str) {
    let case = CASES.iter().find(|case| case.name == name).expect("a case of that name");
    let registry = Registry::start();
    (case.run)(&registry.target());
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
    tags_are_listed_in_order,
    tags_are_listed_in_pages,
    referrers_are_listed,
    referrers_are_filtered_by_type,
    referrers_of_what_is_unknown_are_an_empty_list,
    a_tag_is_deleted_and_its_manifest_stays,
    a_manifest_is_deleted_by_digest_with_its_tags,
    a_blob_is_deleted,
    a_deleted_referrer_is_no_longer_listed,
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
];

#[test]
fn every_case_has_a_test() {
    let cases: Vec<&str> = CASES.iter().map(|case| case.name).collect();
    assert_eq!(cases, TESTED);
}
