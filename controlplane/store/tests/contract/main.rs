//! The contract of the store's ports: every test runs on SQLite, and with `--features postgres-tests` on
//! PostgreSQL too, where `RINGWARD_TEST_POSTGRES_URL` names a server on which databases can be made.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::disallowed_methods,
    reason = "tests: clippy.toml's allowances reach only functions marked as tests, not what they call"
)]

mod accepting;
mod agents;
mod attempts;
mod audio;
mod audit;
mod bans;
mod cancelling;
mod damage;
mod disabling;
mod ending;
mod events;
mod fixture;
mod fleet;
mod guard;
mod health;
mod keys;
mod late;
mod listing;
mod model;
mod news;
mod oncall;
mod paging;
mod privacy;
mod replicas;
mod restoring;
mod rounds;
mod sessions;
mod status;
mod traces;
mod webhooks;

macro_rules! contract {
    ($($noun:ident: $($test:ident)+;)+) => {
        mod sqlite {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    crate::$noun::$test(crate::fixture::Fixture::sqlite().await).await;
                }
            )+)+
        }

        #[cfg(feature = "postgres-tests")]
        mod postgres {
            $($(
                #[tokio::test(flavor = "multi_thread")]
                async fn $test() {
                    crate::$noun::$test(crate::fixture::Fixture::postgres().await).await;
                }
            )+)+
        }
    };
}

contract! {
    traces:
        a_call_s_place_is_kept_with_it
        a_call_asked_for_twice_keeps_its_first_place
        what_has_ended_is_sent_once_oldest_first
        an_attempt_s_facts_come_with_it
        it_is_erased_with_its_call_and_a_customer_s_words_with_the_text;
    restoring:
        what_is_open_is_held_until_it_is_released;
    replicas:
        a_replica_lives_as_long_as_its_lease
        one_leads_until_its_lease_is_over
        twenty_that_start_at_once_have_one_leader
        calls_of_the_dead_are_claimed_once_and_those_of_the_living_never
        ten_that_claim_at_once_share_and_take_nothing_twice
        a_late_owners_write_is_refused
        a_claim_and_a_late_write_exclude_each_other
        an_owner_finds_which_of_its_calls_shall_end
        what_others_change_is_seen_by_its_mark
        what_is_told_is_written_with_its_row;
    late:
        what_ended_untold_is_found_until_it_is_told
        a_key_heard_late_ends_a_call_that_waits
        a_key_heard_late_decides_a_call_that_is_dialled_again
        a_key_heard_late_does_not_change_how_a_call_ended;
    accepting:
        a_call_is_read_back_as_it_was_answered
        a_call_is_accepted_with_its_log_outbox_and_audit
        fifty_equal_posts_make_one_call
        calls_at_once_are_as_one_after_the_other
        the_same_key_with_another_body_is_refused
        a_key_belongs_to_one_organisation
        a_key_is_free_again_a_day_after_the_end
        a_dedup_key_finds_the_open_call_and_no_ended_one
        fifty_calls_with_one_dedup_key_make_one
        the_idempotency_key_is_looked_at_before_the_dedup_key
        the_same_write_twice_is_one_call
        an_organisation_has_so_many_open_calls
        a_number_has_so_many_open_calls
        fifty_at_the_bound_never_exceed_it
        a_call_leaves_one_row_of_each
        a_refused_write_leaves_nothing
        calls_that_are_accepted_wait_in_no_circle_with_calls_that_end;
    news:
        news_at_once_are_as_one_after_the_other
        one_that_cannot_be_written_takes_no_other_with_it
        of_a_set_a_lost_claim_is_refused_alone
        begins_at_once_count_each_number_s_starts
        what_may_rest_is_written_with_others
        what_rests_has_its_turn;
    attempts:
        an_attempt_is_numbered_and_logged
        fifty_attempts_at_once_are_one
        no_attempt_begins_after_the_end
        no_attempt_begins_at_the_deadline
        no_attempt_begins_once_a_cancel_is_recorded
        a_begin_that_is_repeated_too_late_must_not_leave
        news_moves_the_call_forward_only
        news_of_ringing_only_grows
        an_attempt_ends_once_and_its_call_goes_on
        a_begin_that_is_repeated_is_one_attempt
        news_that_is_repeated_changes_nothing
        an_attempt_s_end_that_is_repeated_is_one
        strange_codes_are_kept
        ends_are_told_of_a_node_s_own_attempts
        nothing_is_written_of_what_never_was;
    ending:
        a_call_ends_with_its_attempt
        fifty_ends_are_one
        a_call_without_an_attempt_ends_alone
        a_call_does_not_end_apart_from_its_attempt
        a_call_without_an_attempt_ends_once_among_fifty
        end_and_next_attempt_exclude_each_other;
    cancelling:
        a_cancel_is_recorded_once_with_its_audit_row
        fifty_cancels_are_one
        an_ended_call_is_not_canceled
        a_cancel_stays_after_the_end
        another_organisation_s_call_is_not_found;
    damage:
        an_open_call_that_cannot_be_read_hides_no_other
        a_list_is_shown_without_the_calls_that_cannot_be_read
        a_call_with_an_unreadable_attempt_is_not_shown_without_it
        fields_of_another_release_are_passed_over;
    rounds:
        a_round_s_end_and_the_next_are_one_write
        a_call_without_an_attempt_waits_for_another_round
        an_end_and_a_redial_exclude_each_other
        a_key_is_durable_the_moment_it_is_heard
        a_key_that_escalates_is_no_acknowledged_event
        a_number_is_held_by_what_was_dialled
        fifty_calls_to_one_number_at_once_are_one_start
        a_start_that_lies_ahead_holds_for_one_window
        a_hint_does_not_forget_a_start_that_lies_ahead
        a_waiting_call_ends_as_any_other;
    listing:
        pages_are_stable_under_inserts
        pages_backwards_are_the_nearest_newer_ones
        other_organisations_are_invisible
        a_status_filters
        calls_are_searched_over_all_organisations
        a_search_says_up_to_where_it_has_looked
        open_calls_come_oldest_first_and_leave_at_their_end;
    fleet:
        there_is_none_at_first
        a_fleet_is_applied_with_its_audit_row
        a_stale_change_writes_nothing
        twenty_changes_of_one_revision_are_one;
    guard:
        rules_are_set_replaced_and_audited
        a_refusal_is_a_row_of_its_own
        usage_is_by_day_and_organisation
        fifty_at_a_day_s_bound_never_exceed_it;
    health:
        the_latest_snapshot_of_each_machine_is_kept
        a_snapshot_that_cannot_be_read_hides_no_other
        what_the_fleet_no_longer_has_is_forgotten_with_its_hold
        a_hold_is_set_and_lifted_once_each_with_its_audit_row
        a_hold_without_its_audit_row_is_not_set
        twenty_holds_of_one_trunk_are_one;
    keys:
        a_key_is_found_by_its_hash
        a_revoked_key_stays_and_is_revoked_once
        the_first_operator_is_made_once
        twenty_bootstraps_are_one
        keys_are_listed_by_owner_newest_first
        organisations_are_made_listed_renamed_and_suspended
        a_rotated_key_lives_on_until_its_time
        a_key_is_nobody_elses
        uses_are_noted_and_never_go_back
        an_organisation_has_no_more_keys_than_it_may;
    agents:
        a_token_is_used_once_by_its_node_in_its_time
        twenty_joins_with_one_token_are_one
        a_certificate_is_renewed_until_it_is_revoked_or_over
        a_revoked_node_s_certificates_and_tokens_are_worth_nothing
        facts_are_kept_once_each_and_apart_by_node
        the_past_is_erased_and_the_present_stays;
    audio:
        a_recording_is_read_back_until_it_is_deleted_and_pruned
        an_organisation_has_room_for_so_much
        recordings_are_listed_newest_first_in_pages
        a_text_is_spoken_once_and_shares_its_sound
        texts_used_longest_ago_go_first_where_there_are_too_many_bytes
        a_loop_of_uploads_and_deletions_holds_no_more_than_the_quota
        a_deleted_recording_stays_for_as_long_as_an_open_call_plays_it
        texts_take_no_more_than_they_may_of_one_organisation_and_of_all;
    audit:
        rows_are_newest_first_and_name_the_actor
        rows_cannot_be_changed_or_erased
        rows_are_chained_as_they_are_read_back
        a_row_is_sealed_once
        one_process_seals_until_its_lease_is_over
        writers_and_sealers_at_once_leave_one_chain
        rows_are_filtered_and_pages_are_stable
        what_is_old_is_erased_in_steps_and_leaves_its_checkpoint
        retention_erases_only_what_it_tells_of;
    bans:
        a_ban_is_made_made_longer_and_lifted_each_with_its_revision
        who_was_away_hears_of_a_lift_and_of_the_shorter_ban_after_it
        an_allowance_lifts_the_bans_that_it_touches
        a_node_s_fact_bans_once_and_lifts_only_its_own
        refusals_are_kept_until_their_ban_is_over
        what_is_over_is_pruned_and_forgotten_lifts_are_told
        lists_are_filtered_and_go_on_at_a_cursor
        a_node_does_not_fill_the_list_of_all
        twenty_writers_give_each_change_a_revision_of_its_own
        ten_thousand_are_one_write;
    webhooks:
        an_endpoint_is_made_changed_rotated_and_removed_with_its_audit_rows
        an_organisation_has_so_many_endpoints_and_no_more
        twenty_endpoints_at_once_stay_within_the_limit
        events_become_deliveries_once_and_only_for_who_wants_them
        a_callback_is_a_receiver_of_its_own_call
        of_a_call_only_the_first_is_sent_until_it_is_settled
        what_waited_behind_a_retry_follows_at_once
        an_older_owner_s_late_answer_is_refused
        twenty_claims_at_once_take_each_delivery_once
        every_organisation_s_first_lane_is_before_anybody_s_second
        an_endpoint_is_disabled_when_it_is_gone_or_fails_for_days
        one_delivery_ends_a_time_of_failures
        a_delivery_is_replayed_with_its_log_kept_within_bounds;
    events:
        events_tell_of_their_call_and_of_its_log_so_far
        no_event_is_numbered_behind_a_reader
        the_past_is_purged_and_what_waits_stays
        an_id_s_lower_bound_is_below_what_is_made_then;
    disabling:
        a_failure_long_ago_and_one_now_disable_nothing
        an_event_that_cannot_be_read_is_no_failure_of_its_receiver
        three_days_of_failures_without_a_break_disable
        an_endpoint_s_end_is_told_to_the_others;
    paging:
        deliveries_that_come_while_a_list_is_read_move_nothing
        an_event_s_deliveries_are_not_torn_apart_by_a_page_s_end
        events_that_cannot_be_read_end_no_list
        a_delivery_that_cannot_be_read_hides_no_other;
    privacy:
        old_calls_are_erased_with_all_that_is_kept_of_them
        parts_are_taken_out_of_calls_that_stay
        each_organisation_s_is_erased_alone
        an_event_that_is_not_numbered_stays
        a_number_is_forgotten_in_every_ended_call;
    sessions:
        a_session_is_found_by_its_hash_and_ends_once
        only_a_living_operator_s_key_opens_one
        a_key_has_so_many_sessions_and_what_is_over_is_forgotten;
    status:
        regions_are_added_up_by_who_has_read_up_to_when
        calls_are_counted_once_by_the_day_and_reason_of_their_end
        a_notice_is_made_told_more_of_ended_and_removed_each_with_its_audit_row
        notices_are_bounded_and_what_is_over_goes_first;
    oncall:
        a_hook_is_made_read_changed_and_removed_with_its_audit_rows
        an_incident_is_read_back_as_it_was_written
        of_a_group_one_incident_is_open
        who_has_not_read_it_does_not_write_over_it
        incidents_are_due_by_their_time_or_their_call_s_end
        an_incident_that_is_held_is_not_due
        a_removed_hook_resolves_what_came_in_by_it
        incidents_are_listed_in_pages_and_erased_by_age
        a_number_is_forgotten_with_the_incidents_that_phoned_it
        incidents_are_found_whose_call_had_a_key_after_its_end
        an_organisation_has_so_many_open_incidents;
    model:
        random_work_is_answered_as_the_model_does;
}
