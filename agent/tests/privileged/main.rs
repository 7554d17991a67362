//! End-to-end tests that attach the real programs to this host's kernel and check what the agent says against
//! independent counts: those of the peers, of `ss`, of procfs.
//!
//! They need root. `cargo xtask test` builds what they start and runs them; where the agent refuses to attach, a test
//! is skipped with the agent's own words (with `CI=true` that is a failure).
#![expect(clippy::print_stdout, reason = "a test runner")]

mod addresses;
mod adoption;
mod agent_process;
mod attach;
mod binaries;
mod compression;
mod containers;
mod doctored_btf;
mod early;
mod exchange;
mod exits;
mod foreign;
mod full_disk;
mod full_speed;
mod handshake;
mod hostile;
mod impostors;
mod keepalive;
mod kill;
mod limits;
mod load;
mod memory;
mod namespaces;
mod open_holes;
mod pace;
mod part_of_host;
mod passing;
mod payload;
mod presumed;
mod privileges;
mod process;
mod proxy;
mod python;
mod recognised;
mod refused;
mod replay;
mod restart;
mod reuseport;
mod runner;
mod sampled;
mod segments;
mod servers;
mod sinks;
mod ss;
mod strangers;
mod stream;
mod tls;
mod traffic;
mod uploads;
mod walls;
mod watch;
mod websocket;
mod wire;

use std::process::ExitCode;

const TESTS: &[runner::Test] = &[
    (
        "exits::each_refusal_is_one_line_and_a_documented_code",
        exits::each_refusal_is_one_line_and_a_documented_code,
    ),
    (
        "attach::connections_that_open_meanwhile_are_exact_or_not_tracked",
        attach::connections_that_open_meanwhile_are_exact_or_not_tracked,
    ),
    ("early::a_quick_answer_is_exact_at_both_ends", early::a_quick_answer_is_exact_at_both_ends),
    ("early::a_proxys_header_hides_nothing", early::a_proxys_header_hides_nothing),
    (
        "early::frames_before_the_answer_are_unparsed_and_said_so",
        early::frames_before_the_answer_are_unparsed_and_said_so,
    ),
    (
        "strangers::a_101_that_nobody_asked_for_makes_no_connection",
        strangers::a_101_that_nobody_asked_for_makes_no_connection,
    ),
    ("strangers::a_named_port_is_the_servers", strangers::a_named_port_is_the_servers),
    ("strangers::a_listener_is_never_a_connection", strangers::a_listener_is_never_a_connection),
    ("strangers::unanswered_requests_hide_no_connection", strangers::unanswered_requests_hide_no_connection),
    (
        "strangers::many_destinations_leave_servers_their_rows",
        strangers::many_destinations_leave_servers_their_rows,
    ),
    ("strangers::nobody_answers_his_own_request", strangers::nobody_answers_his_own_request),
    (
        "strangers::a_message_that_looks_like_a_handshake_hides_no_older_connection",
        strangers::a_message_that_looks_like_a_handshake_hides_no_older_connection,
    ),
    ("sinks::a_late_reader_learns_of_everything", sinks::a_late_reader_learns_of_everything),
    ("sinks::a_rotated_file_is_opened_anew", sinks::a_rotated_file_is_opened_anew),
    ("stream::the_stream_is_whole", stream::the_stream_is_whole),
    ("stream::a_closed_pipe_is_no_error", stream::a_closed_pipe_is_no_error),
    (
        "stream::every_opening_has_an_end_though_events_are_lost",
        stream::every_opening_has_an_end_though_events_are_lost,
    ),
    ("load::counts_equal_the_load_generators", load::counts_equal_the_load_generators),
    ("foreign::counts_equal_a_foreign_peers", foreign::counts_equal_a_foreign_peers),
    (
        "foreign::counts_equal_a_foreign_peers_when_compressed",
        foreign::counts_equal_a_foreign_peers_when_compressed,
    ),
    ("compression::python_websockets_is_understood", compression::python_websockets_is_understood),
    ("compression::javascript_ws_is_understood", compression::javascript_ws_is_understood),
    ("servers::counts_equal_with_javascript_ws", servers::counts_equal_with_javascript_ws),
    (
        "servers::counts_equal_with_javascript_ws_when_compressed",
        servers::counts_equal_with_javascript_ws_when_compressed,
    ),
    ("servers::counts_equal_with_perl_mojolicious", servers::counts_equal_with_perl_mojolicious),
    ("servers::counts_equal_with_go_gorilla", servers::counts_equal_with_go_gorilla),
    ("servers::counts_equal_with_c_libwebsockets", servers::counts_equal_with_c_libwebsockets),
    ("servers::counts_equal_when_c_libwebsockets_closes", servers::counts_equal_when_c_libwebsockets_closes),
    ("proxy::both_sides_of_nginx_are_counted_exactly", proxy::both_sides_of_nginx_are_counted_exactly),
    ("reuseport::processes_on_one_port_are_told_apart", reuseport::processes_on_one_port_are_told_apart),
    ("addresses::ipv6_is_counted_exactly", addresses::ipv6_is_counted_exactly),
    (
        "addresses::ipv4_through_a_dual_stack_listener_is_counted_exactly",
        addresses::ipv4_through_a_dual_stack_listener_is_counted_exactly,
    ),
    (
        "adoption::older_connections_are_adopted_and_counted_exactly_from_then_on",
        adoption::older_connections_are_adopted_and_counted_exactly_from_then_on,
    ),
    (
        "adoption::bytes_and_pings_from_before_are_in_the_books",
        adoption::bytes_and_pings_from_before_are_in_the_books,
    ),
    ("uploads::full_speed_uploads_invent_nothing", uploads::full_speed_uploads_invent_nothing),
    ("adoption::a_snapshot_shows_what_was_adopted", adoption::a_snapshot_shows_what_was_adopted),
    ("adoption::one_direction_is_enough", adoption::one_direction_is_enough),
    (
        "adoption::a_long_message_under_way_is_no_hindrance",
        adoption::a_long_message_under_way_is_no_hindrance,
    ),
    (
        "adoption::what_closed_before_it_was_known_leaves_nothing",
        adoption::what_closed_before_it_was_known_leaves_nothing,
    ),
    (
        "adoption::an_upgrade_on_an_older_connection_is_exact",
        adoption::an_upgrade_on_an_older_connection_is_exact,
    ),
    (
        "addresses::ipv6_packets_beyond_64_kib_are_counted_exactly",
        addresses::ipv6_packets_beyond_64_kib_are_counted_exactly,
    ),
    (
        "presumed::idle_neighbours_of_recognised_connection_are_listed",
        presumed::idle_neighbours_of_recognised_connection_are_listed,
    ),
    (
        "presumed::idle_connections_of_named_port_are_listed",
        presumed::idle_connections_of_named_port_are_listed,
    ),
    (
        "presumed::idle_connections_of_another_namespace_are_listed",
        presumed::idle_connections_of_another_namespace_are_listed,
    ),
    (
        "presumed::presumed_connection_is_recognised_or_goes",
        presumed::presumed_connection_is_recognised_or_goes,
    ),
    (
        "presumed::connection_that_both_directions_recognise_is_adopted_once",
        presumed::connection_that_both_directions_recognise_is_adopted_once,
    ),
    ("impostors::no_other_protocol_is_adopted", impostors::no_other_protocol_is_adopted),
    ("handshake::heads_are_told_and_secrets_are_not", handshake::heads_are_told_and_secrets_are_not),
    (
        "handshake::latency_and_round_trip_are_those_of_the_peers",
        handshake::latency_and_round_trip_are_those_of_the_peers,
    ),
    ("handshake::any_cut_of_the_heads_is_followed", handshake::any_cut_of_the_heads_is_followed),
    (
        "handshake::a_request_that_completes_the_tcp_handshake_is_seen",
        handshake::a_request_that_completes_the_tcp_handshake_is_seen,
    ),
    (
        "handshake::an_upgrade_after_other_requests_is_followed",
        handshake::an_upgrade_after_other_requests_is_followed,
    ),
    (
        "handshake::a_long_request_is_cut_and_its_frames_are_not",
        handshake::a_long_request_is_cut_and_its_frames_are_not,
    ),
    (
        "handshake::what_is_no_upgrade_is_not_tracked_and_losses_are_told",
        handshake::what_is_no_upgrade_is_not_tracked_and_losses_are_told,
    ),
    ("refused::refusals_are_counted_by_status", refused::refusals_are_counted_by_status),
    (
        "restart::ten_thousand_connections_are_recognised_at_each_start",
        restart::ten_thousand_connections_are_recognised_at_each_start,
    ),
    (
        "tls::bytes_are_those_of_tcp_and_frames_are_unknown",
        tls::bytes_are_those_of_tcp_and_frames_are_unknown,
    ),
    ("tls::documents_say_null_of_what_is_hidden", tls::documents_say_null_of_what_is_hidden),
    ("tls::without_a_named_port_tls_is_left_alone", tls::without_a_named_port_tls_is_left_alone),
    (
        "keepalive::interval_and_round_trip_are_those_of_the_peers",
        keepalive::interval_and_round_trip_are_those_of_the_peers,
    ),
    ("keepalive::who_pings_is_told", keepalive::who_pings_is_told),
    (
        "keepalive::missed_and_unsolicited_pongs_are_counted",
        keepalive::missed_and_unsolicited_pongs_are_counted,
    ),
    ("keepalive::pongs_are_matched_by_payload", keepalive::pongs_are_matched_by_payload),
    ("keepalive::any_length_and_any_cut_is_matched", keepalive::any_length_and_any_cut_is_matched),
    ("passing::a_snapshot_names_the_new_holder", passing::a_snapshot_names_the_new_holder),
    ("passing::the_stream_follows_the_holder", passing::the_stream_follows_the_holder),
    (
        "replay::the_kernels_tracker_is_this_hosts_bit_for_bit",
        replay::the_kernels_tracker_is_this_hosts_bit_for_bit,
    ),
    ("segments::any_cut_is_counted_exactly", segments::any_cut_is_counted_exactly),
    (
        "segments::a_segment_from_beyond_the_window_changes_nothing",
        segments::a_segment_from_beyond_the_window_changes_nothing,
    ),
    ("hostile::a_clean_wire_is_exact", hostile::a_clean_wire_is_exact),
    (
        "hostile::repeated_and_overlapping_segments_are_exact",
        hostile::repeated_and_overlapping_segments_are_exact,
    ),
    (
        "hostile::moderate_loss_and_reordering_is_exact_over_ipv4",
        hostile::moderate_loss_and_reordering_is_exact_over_ipv4,
    ),
    (
        "hostile::moderate_loss_and_reordering_is_exact_over_ipv6",
        hostile::moderate_loss_and_reordering_is_exact_over_ipv6,
    ),
    (
        "hostile::long_messages_on_a_brutal_wire_invent_nothing",
        hostile::long_messages_on_a_brutal_wire_invent_nothing,
    ),
    ("hostile::a_reader_that_stalls_is_exact", hostile::a_reader_that_stalls_is_exact),
    ("hostile::sequence_numbers_wrap_exactly", hostile::sequence_numbers_wrap_exactly),
    ("hostile::sequence_numbers_wrap_exactly_under_loss", hostile::sequence_numbers_wrap_exactly_under_loss),
    (
        "hostile::handshakes_on_a_bad_network_are_understood",
        hostile::handshakes_on_a_bad_network_are_understood,
    ),
    ("hostile::a_brutal_wire_invents_nothing", hostile::a_brutal_wire_invents_nothing),
    ("full_speed::uploads_are_exact", full_speed::uploads_are_exact),
    ("full_speed::downloads_are_exact", full_speed::downloads_are_exact),
    ("full_speed::both_ways_is_exact", full_speed::both_ways_is_exact),
    ("full_speed::a_bad_wire_is_exact", full_speed::a_bad_wire_is_exact),
    (
        "full_speed::receive_buffers_that_are_too_small_are_exact",
        full_speed::receive_buffers_that_are_too_small_are_exact,
    ),
    ("full_speed::tiny_frames_are_exact", full_speed::tiny_frames_are_exact),
    (
        "open_holes::open_holes_of_strangers_cost_nobody_a_frame",
        open_holes::open_holes_of_strangers_cost_nobody_a_frame,
    ),
    (
        "open_holes::bytes_of_strangers_behind_holes_cost_nobody_a_frame",
        open_holes::bytes_of_strangers_behind_holes_cost_nobody_a_frame,
    ),
    ("memory::socket_memory_equals_inet_diag", memory::socket_memory_equals_inet_diag),
    (
        "namespaces::socket_memory_elsewhere_equals_inet_diag",
        namespaces::socket_memory_elsewhere_equals_inet_diag,
    ),
    ("namespaces::holders_elsewhere_are_found", namespaces::holders_elsewhere_are_found),
    (
        "namespaces::a_namespace_that_cannot_be_found_keeps_its_totals",
        namespaces::a_namespace_that_cannot_be_found_keeps_its_totals,
    ),
    (
        "namespaces::a_namespace_that_is_closed_to_the_agent_keeps_its_totals",
        namespaces::a_namespace_that_is_closed_to_the_agent_keeps_its_totals,
    ),
    ("namespaces::namespaces_come_and_go", namespaces::namespaces_come_and_go),
    ("limits::conntrack_is_counted_in_each_namespace", limits::conntrack_is_counted_in_each_namespace),
    ("limits::watches_and_mappings_are_the_kernels", limits::watches_and_mappings_are_the_kernels),
    ("limits::a_servers_watches_are_those_of_its_user", limits::a_servers_watches_are_those_of_its_user),
    ("limits::a_full_accept_queue_is_told", limits::a_full_accept_queue_is_told),
    ("limits::ports_end_where_it_is_said", limits::ports_end_where_it_is_said),
    ("limits::limits_of_a_cgroup_are_ceilings", limits::limits_of_a_cgroup_are_ceilings),
    (
        "containers::a_process_is_reported_with_its_container_and_pod",
        containers::a_process_is_reported_with_its_container_and_pod,
    ),
    (
        "part_of_host::a_part_of_the_host_is_refused_or_said",
        part_of_host::a_part_of_the_host_is_refused_or_said,
    ),
    (
        "doctored_btf::a_missing_member_costs_the_hooks_that_read_it",
        doctored_btf::a_missing_member_costs_the_hooks_that_read_it,
    ),
    ("privileges::no_thread_keeps_what_it_does_not_need", privileges::no_thread_keeps_what_it_does_not_need),
    (
        "privileges::threads_that_serve_readers_keep_nothing",
        privileges::threads_that_serve_readers_keep_nothing,
    ),
    (
        "privileges::the_dashboard_that_runs_the_agent_keeps_no_more",
        privileges::the_dashboard_that_runs_the_agent_keeps_no_more,
    ),
    ("full_disk::lines_are_lost_and_the_agent_goes_on", full_disk::lines_are_lost_and_the_agent_goes_on),
    ("full_disk::a_limit_of_the_files_size_is_no_end", full_disk::a_limit_of_the_files_size_is_no_end),
    (
        "sampled::a_share_is_told_whole_and_the_rest_is_counted",
        sampled::a_share_is_told_whole_and_the_rest_is_counted,
    ),
    (
        "recognised::recognising_is_neither_growth_nor_a_price",
        recognised::recognising_is_neither_growth_nor_a_price,
    ),
    ("walls::a_descriptor_limit_is_foretold", walls::a_descriptor_limit_is_foretold),
    ("walls::a_memory_limit_is_foretold", walls::a_memory_limit_is_foretold),
    ("kill::killing_the_agent_leaves_the_host_as_it_was", kill::killing_the_agent_leaves_the_host_as_it_was),
];

fn main() -> ExitCode {
    // A measurement that needs what the tests have; `cargo xtask bench ceilings` asks for it.
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let Some(["--ceilings", filter, repeat]) =
        arguments.iter().map(String::as_str).collect::<Vec<_>>().get(..3)
    {
        return walls::bench(filter, repeat.parse().unwrap_or(1));
    }
    runner::run(TESTS)
}
