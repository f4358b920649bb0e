//! One suite for every side of the seam: what a store promises, it promises on all of them, and an
//! embedded one also on a disk that forgets what was not fsynced.

#![expect(
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    unreachable_pub,
    reason = "tests count small things, and share their modules"
)]

mod blobs;
mod directory;
mod disk;
mod leases;
mod log;
mod model;
mod mount;
mod power;
mod queue;
mod records;
mod side;

use side::{Embedded, Forgetful, Memory, Side};

/// Runs each promise on each side.
macro_rules! contract {
    ($($area:ident: $($promise:ident),+ $(,)?;)+) => {
        contract!(@side memory Memory; $($area: $($promise),+;)+);
        contract!(@side embedded Embedded; $($area: $($promise),+;)+);
        contract!(@side forgetful_disk Forgetful; $($area: $($promise),+;)+);
    };
    (@side $name:ident $side:ident; $($area:ident: $($promise:ident),+;)+) => {
        mod $name {
            $(mod $area {
                use crate::Side as _;

                $(#[tokio::test]
                async fn $promise() {
                    let Some(bed) = crate::$side::make() else { return };
                    crate::$area::$promise(&bed).await;
                    bed.end().await;
                })+
            })+
        }
    };
}

contract! {
    records:
        a_record_is_read_back_as_written,
        a_change_needs_what_it_expects,
        a_deletion_needs_a_record,
        revisions_only_grow,
        a_list_is_in_byte_order_and_paged,
        a_large_value_comes_back_whole,
        a_watch_from_the_beginning_tells_of_what_exists,
        a_watch_tells_of_changes_in_order_and_of_its_prefix_only,
        a_watch_from_a_revision_tells_of_later_deletions,
        a_watch_that_missed_forgotten_deletions_says_so,
        concurrent_writers_do_not_overwrite_each_other;
    blobs:
        a_blob_is_read_back_in_ranges,
        a_blob_of_another_account_is_not_there,
        a_failed_stream_leaves_nothing,
        a_deleted_blob_is_gone;
    log:
        entries_get_consecutive_offsets,
        a_repeated_append_answers_the_first_offset,
        a_reader_waits_for_an_entry,
        trimmed_entries_are_gone_and_offsets_go_on,
        old_entries_are_trimmed_by_time,
        streams_that_hold_entries_are_listed,
        a_stream_is_weighed_and_trimmed_by_its_bytes,
        times_never_decrease;
    queue:
        messages_come_in_the_order_of_their_puts,
        a_hidden_message_comes_back_with_another_token,
        a_void_receipt_is_refused,
        a_delayed_message_is_not_taken_early,
        an_extended_message_stays_hidden,
        a_group_is_handed_out_one_at_a_time_and_in_order,
        a_repeated_put_adds_nothing_within_the_window,
        a_taker_waits_for_a_message,
        a_taker_wakes_when_a_delay_ends,
        depth_counts_each_message_once,
        what_an_account_has_in_its_queues_is_counted_and_bounded,
        a_purged_queue_is_empty_and_its_receipts_void,
        peek_takes_nothing,
        queues_that_hold_messages_are_listed,
        a_large_body_comes_back_whole,
        no_message_is_taken_twice_by_concurrent_takers;
    leases:
        a_name_has_one_holder,
        a_token_grows_with_every_lease,
        a_lost_lease_cannot_be_renewed_or_released;
}
