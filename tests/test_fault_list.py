"""Every fault that a streaming client meets has a test that proves what it must lead to.

A proof is a row of `FAULTS` (`fault: …`), a check of the transports' contract (`contract: …`), or
a test (`file::name`, under tests/).
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from fluence_async.testing import FAULTS
from fluence_async.testing.transport_contract import CHECKS

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "fluence_async"

FAULT_LIST: dict[int, tuple[str, tuple[str, ...]]] = {
    1: (
        "connection refused",
        ("shell/test_faults.py::test_no_server_is_named_with_host_and_port",),
    ),
    2: (
        "DNS failure",
        (
            "shell/test_faults.py::test_a_host_that_does_not_exist_is_named",
            "shell/test_transports.py::test_a_failure_to_connect_is_judged_by_its_cause",
        ),
    ),
    3: (
        "a bad certificate",
        (
            "contract: an_untrusted_certificate_fails_tls",
            "shell/test_exchange.py::test_what_cannot_end_otherwise_is_not_tried_again",
        ),
    ),
    4: (
        "https to a plain port",
        ("shell/test_faults.py::test_a_plain_server_behind_https_ends_of_the_connect_clock",),
    ),
    5: (
        "a reset or an end before the headers",
        ("fault: reset before the headers", "fault: closed before the headers"),
    ),
    6: (
        "never answers",
        (
            "fault: never answers",
            "shell/test_exchange.py::test_the_total_clock_covers_all_attempts",
        ),
    ),
    7: ("headers trickle", ("fault: headers trickle",)),
    8: ("a reset in mid-body", ("fault: reset in mid-body",)),
    9: (
        "an end inside the framing",
        ("fault: closed inside a chunk", "fault: shorter than its Content-Length"),
    ),
    10: ("a clean end without an end", ("fault: a clean end without finish reason",)),
    11: (
        "an end after the finish reason",
        (
            "fault: no [DONE] after the finish reason",
            "shell/test_stream.py::test_the_end_of_the_body_after_every_finish_reason_is_an_end",
        ),
    ),
    12: (
        "an end in the middle of an event",
        (
            "fault: an end in the middle of an event",
            "shell/test_faults.py::test_a_stream_cut_at_every_byte_is_never_taken_for_complete",
        ),
    ),
    13: ("an empty body", ("fault: an empty body", "fault: 204")),
    14: ("HTML with status 200", ("fault: a login page with status 200",)),
    15: ("JSON in place of a stream", ("fault: JSON in place of a stream",)),
    16: ("an error object with status 200", ("fault: an error object with status 200",)),
    17: ("a stall in mid-stream", ("fault: a stall in mid-stream",)),
    18: ("pings for ever", ("fault: pings for ever",)),
    19: (
        "a stall after [DONE]",
        (
            "fault: a stall after [DONE]",
            "shell/test_stream.py::test_a_stall_after_the_end_marker_costs_a_tenth_of_a_second",
        ),
    ),
    20: (
        "a trickle",
        (
            "fault: a trickle",
            "sansio/test_sse.py::test_four_times_the_bytes_in_small_reads_are_about_four_times_the_work",
        ),
    ),
    21: ("garbage", ("fault: garbage",)),
    22: ("JSON that is no object", ("fault: a number", "fault: null", "fault: a list")),
    23: ("events without data", ("fault: empty data and event-only blocks",)),
    24: ("an id, then a ping", ("fault: an id, then a ping",)),
    25: (
        "nested too deep",
        ("fault: nested too deep", "sansio/test_codec.py::test_what_is_no_chunk_ends_the_stream"),
    ),
    26: (
        "no JSON number",
        ("fault: not a JSON number", "fault: a number beyond any float"),
    ),
    27: (
        "lone surrogates",
        ("fault: half an emoji in each of two chunks", "fault: half an emoji alone"),
    ),
    28: ("invalid UTF-8", ("fault: invalid UTF-8",)),
    29: ("a byte order mark", ("fault: a byte order mark first",)),
    30: (
        "mixed line ends",
        (
            "fault: mixed line ends",
            "sansio/test_sse.py::test_an_event_is_out_as_soon_as_its_blank_line_is_in",
        ),
    ),
    31: (
        "an error in mid-stream",
        ("fault: an error event", "fault: an error without an error key"),
    ),
    32: (
        "an error as the first event",
        ("fault: an error as the first event", "fault: a refusal as the first event"),
    ),
    33: ("an error event in plain text", ("fault: an error event in plain text",)),
    34: ("[DONE] and more", ("fault: [DONE] and more",)),
    35: ("something after [DONE]", ("fault: two [DONE]", "fault: a chunk after [DONE]")),
    36: ("nulls and nothing", ("fault: null and missing choices, deltas and contents",)),
    37: ("unknown fields", ("fault: unknown fields and finish reasons",)),
    38: (
        "odd indexes of tool calls",
        (
            "fault: a tool call of index 2,000,000,000",
            "sansio/test_fold.py::test_a_missing_index_is_the_next_call_or_the_one_being_read",
        ),
    ),
    39: ("content of the wrong type", ("fault: content of the wrong type",)),
    40: (
        "the caller's mistakes",
        tuple(f"fault: {status}" for status in (400, 401, 403, 404, 422)),
    ),
    41: (
        "401 that quotes the key",
        (
            "fault: 401 that quotes the key",
            "shell/test_key_hunt.py::test_quoted_by_the_server",
            "shell/test_key_hunt.py::test_through_every_fault",
        ),
    ),
    42: (
        "the server's failures",
        (
            *("fault: 500", "fault: 502 in HTML", "fault: 503", "fault: 529"),
            "shell/test_exchange.py::test_an_error_body_is_cut_and_scrubbed",
        ),
    ),
    43: (
        "429 and when to come back",
        (
            *("fault: 429 once", "fault: 429, retry-after-ms"),
            "shell/test_exchange.py::test_the_servers_retry_after_is_a_lower_bound",
            "sansio/test_retry.py::test_retry_after_that_makes_sense",
        ),
    ),
    44: ("429 with an absurd wait", ("fault: 429, absurd wait",)),
    45: (
        "429 beyond numbers",
        (
            "fault: 429, Retry-After 'inf'",
            "fault: 429, Retry-After '999999999999'",
            "fault: 429, Retry-After 'Fri, 31 Dec '",
        ),
    ),
    46: (
        "429 with nonsense",
        (
            *(f"fault: 429, Retry-After {value!r}" for value in ("-5", "nan", "soon", "1, 60")),
            "fault: 429, Retry-After 'Wed, 21 Oct '",
        ),
    ),
    47: (
        "a redirect to another host",
        ("fault: 307 to another host", "shell/test_key_hunt.py::test_one_host_only_sees_it"),
    ),
    48: ("a redirect", ("fault: 302",)),
    49: ("a redirect to itself", ("fault: 302", "contract: redirects_are_not_followed")),
    50: ("a redirect to a file", ("fault: a redirect to a file",)),
    51: (
        "a gzip bomb",
        (
            "fault: a gzip bomb",
            "shell/test_bombs.py::test_no_bomb_costs_much_memory_or_holds_up_the_loop",
        ),
    ),
    52: ("invalid gzip", ("fault: invalid gzip",)),
    53: (
        "header bombs",
        ("fault: a header of 2 MB", "fault: 20,000 headers", "fault: headers without end"),
    ),
    54: (
        "bad chunk sizes",
        (
            *("fault: a bad chunk size", "fault: a chunk size beyond any integer"),
            "contract: malformed_chunks_break_the_body_at_once",
        ),
    ),
    55: ("framed twice", ("fault: both Content-Length and chunks",)),
    56: ("old and early HTTP", ("fault: HTTP/1.0", "fault: 103 Early Hints")),
    57: ("long lines", ("fault: a line of 600 KB", "fault: an event of 10 MB")),
    58: ("an endless line", ("fault: an endless line", "fault: an event of endless lines")),
    59: (
        "an error body of 200 MB",
        (
            "fault: an error body of 200 MB",
            "shell/test_bombs.py::test_no_bomb_costs_much_memory_or_holds_up_the_loop",
        ),
    ),
    60: (
        "idle connections that are closed",
        (
            "shell/test_faults.py::test_a_server_that_closes_idle_connections_costs_nobody_a_failure",
            "shell/test_exchange.py::test_a_stale_connection_is_replaced_once_for_free",
        ),
    ),
    61: (
        "a reused connection lost with its answer",
        (
            "fault: a connection lost after the answer was made",
            "shell/test_once.py::test_answers_lost_with_their_reused_connections_are_executed_once",
        ),
    ),
    62: (
        "a slow reader",
        (
            "shell/test_faults.py::test_a_slow_reader_is_waited_for",
            "shell/test_stream.py::test_no_clock_but_total_runs_while_nobody_reads",
            "contract: a_slow_reader_slows_the_server_down",
        ),
    ),
    63: (
        "a reader who breaks out",
        (
            "shell/test_faults.py::test_breaking_out_leaves_nothing_open",
            "shell/test_stream.py::test_breaking_out_early_closes_at_once_and_is_not_complete",
        ),
    ),
    64: (
        "a stream that nobody reads",
        (
            "shell/test_stream.py::test_a_stream_dropped_unclosed_is_closed_and_warned_of",
            "shell/test_loops.py::test_streams_dropped_in_a_cycle_are_closed_and_end_nothing_else",
        ),
    ),
    65: (
        "cancelled at every await",
        (
            "shell/test_cancellation.py::test_a_call_cancelled_at_any_await_leaves_nothing",
            "soak/test_soak.py::test_a_few_seconds_of_it_leave_nothing",
        ),
    ),
    66: (
        "waiters for a connection, cancelled",
        (
            "shell/test_faults.py::test_fifty_waiters_for_a_connection_are_cancelled_and_the_next_call_proceeds",
        ),
    ),
    67: (
        "one session over several runs",
        ("shell/test_loops.py::test_one_session_in_one_loop_after_another",),
    ),
    68: (
        "a fork",
        ("shell/test_loops.py::test_a_session_made_before_a_fork_serves_parent_and_children",),
    ),
    69: (
        "two threads",
        ("shell/test_loops.py::test_a_foreign_thread_is_told_what_is_wrong_and_disturbs_nobody",),
    ),
    70: (
        "a dead server",
        (
            "shell/test_outage.py::test_a_thousand_calls_of_a_dead_server_make_few_more_requests",
            "shell/test_outage.py::test_a_server_that_heals_is_served_at_full_rate_at_once_and_retried_in_30_s",
        ),
    ),
    71: ("the batch writer is killed", ()),
    72: (
        "the cache is killed",
        (
            "shell/test_cache_stores.py::test_a_kill_while_writing_leaves_every_answer_whole_or_absent",
        ),
    ),
    73: (
        "a full disk",
        ("shell/test_cache_stores.py::test_a_full_store_is_a_miss_and_one_warning",),
    ),
    74: (
        "a corrupt cache",
        (
            "shell/test_cache_stores.py::test_a_damaged_file_is_put_aside_and_begun_anew",
            "shell/test_cache_stores.py::test_flipped_bytes_never_make_a_wrong_answer_nor_an_error",
        ),
    ),
    75: (
        "the clock jumps",
        (
            "shell/test_outage.py::test_a_wall_clock_that_jumps_changes_no_wait",
            "sansio/test_retry.py::test_a_date_is_measured_against_the_servers_own_clock",
        ),
    ),
    76: ("the holder of a limiter is killed", ()),
}
"""Each fault, and what proves its outcome."""

AWAITED: dict[int, str] = {71: "batch", 73: "batch", 76: "limiter/file.py"}
"""Faults of rooms that are not built yet: once they are, their proofs are due."""


@cache
def names_in(path: Path) -> frozenset[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    functions = ast.FunctionDef | ast.AsyncFunctionDef
    return frozenset(node.name for node in ast.walk(tree) if isinstance(node, functions))


def exists(proof: str) -> bool:
    kind, _, name = proof.partition(": ")
    if kind == "fault":
        return name in {fault.name for fault in FAULTS}
    if kind == "contract":
        return name in {check.__name__ for check in CHECKS}
    path, _, name = proof.partition("::")
    return (TESTS / path).exists() and name in names_in(TESTS / path)


def test_the_list_is_whole() -> None:
    assert list(FAULT_LIST) == list(range(1, 77))


@pytest.mark.parametrize("row", FAULT_LIST)
def test_every_fault_has_its_proof(row: int) -> None:
    fault, proofs = FAULT_LIST[row]
    if row in AWAITED:
        assert not (PACKAGE / AWAITED[row]).exists(), f"{fault}: its room is built, so prove it"
    else:
        assert proofs, fault
    missing = [proof for proof in proofs if not exists(proof)]
    assert not missing, f"{fault}: what should prove it is gone"
