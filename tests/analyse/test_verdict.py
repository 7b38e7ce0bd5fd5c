from __future__ import annotations

from typing import Any

import pytest

from redline.analyse.finding import Verdict
from redline.analyse.latency import latencies_of
from redline.analyse.throughput import mean_in_flight
from redline.analyse.verdict import RULES, STATES, Case, judge
from redline.analyse.window import find_window
from tests.analyse.traffic import Row, S, closed_loop, requests_of


def rows(n: int = 200, **changes: Any) -> list[Row]:
    """`n` requests of one client, each half a second long; `changes` go to every one of them."""
    made = []
    for i in range(n):
        at = i * 500.0
        row = Row(at, chunks=[at + 40 + 46 * k for k in range(10)], finished=at + 499)
        made.append(row)
        for name, value in changes.items():
            setattr(row, name, value)
    return made


def verdict(made: list[Row], **changes: Any) -> Verdict:
    requests = requests_of(*made)
    ended = int(requests.finished_ns.max()) if len(requests) else S
    window = find_window(requests, S, ended)
    outcome = changes.pop("outcome", {})
    in_flight = mean_in_flight(requests, window, ended)
    return judge(Case(requests, latencies_of(requests), window, ended, outcome, in_flight, **changes))


def with_some(made: list[Row], how_many: int, **changes: Any) -> list[Row]:
    step = len(made) // how_many
    for row in made[::step][:how_many]:
        for name, value in changes.items():
            setattr(row, name, value)
    return made


def test_a_clean_point_is_valid() -> None:
    assert verdict(rows(), asked=("closed", 1.0), outcome={"send_lag_ms_p99": 0.1, "client_cpu_s": 3.0}) == Verdict()


def long(row: Row, ms: float) -> Row:
    row.finished, row.status = row.intended + ms, "cancelled"
    return row


CASES: list[tuple[str, list[Row], dict[str, Any], str, str]] = [
    ("nothing at all", [], {}, "invalid", "no request finished"),
    ("all failed", rows(status="timeout"), {}, "invalid", "all 200 requests failed: all timeout"),
    ("all cut off", rows(status="cancelled"), {}, "invalid", "all 200 were cut off; give the point more time"),
    ("no tokens", rows(output_tokens=0), {}, "invalid", "not one of them carried a token"),
    ("engine died", rows(), {"outcome": {"stopped_by": "engine-died"}}, "invalid", "engine died"),
    ("refused", rows(), {"outcome": {"stopped_by": "refused"}}, "invalid", "refused connections"),
    ("stopped by the user", rows(), {"outcome": {"stopped_by": "cancelled"}}, "degraded", "interrupted"),
    ("interrupted", rows(), {"outcome": {"stopped_by": "interrupted"}}, "degraded", "interrupted"),
    ("a few failures", with_some(rows(), 5, status="reset"), {}, "degraded", "5 of 200 requests failed (2.5%)"),
    ("many failures", with_some(rows(), 50, status="http"), {}, "invalid", "50 of 200 requests failed"),
    ("answers too short", rows(asked_output_tokens=20), {}, "invalid", "10.0 tokens on average instead of 20.0"),
    ("answers a little short", with_some(rows(), 10, asked_output_tokens=11), {}, "degraded", "length not as asked"),
    ("answers too long", rows(asked_output_tokens=5), {"exact_output": False}, "invalid", "output length not as asked"),
    ("send lag, tail", rows(), {"outcome": {"send_lag_ms_p99": 9.0}}, "degraded", "send lag p99 is 9.0 ms"),
    ("send lag, long tail", rows(), {"outcome": {"send_lag_ms_p99": 29.0}}, "client-bound", "send lag p99 is 29.0 ms"),
    (
        "send lag, all",
        rows(),
        {"outcome": {"send_lag_ms_p50": 6.0, "send_lag_ms_p99": 7.0}},
        "client-bound",
        "left 6.0 ms late at the median",
    ),
    ("client busy", rows(), {"outcome": {"client_cpu_s": 95.0}}, "client-bound", "95% busy"),
    ("tokens guessed", rows(token_source="chunks"), {}, "degraded", "tokens are a guess in 100%"),
    ("prompts off", rows(asked_prompt_tokens=30), {}, "degraded", "prompt length not as asked in 200 of 200"),
    ("prompts off told", rows(asked_prompt_tokens=0), {"outcome": {"prompts_off": 3}}, "degraded", "3 prompts"),
    ("user stamps", rows(stamp="user"), {}, "degraded", "stamped in user space"),
    ("user stamps, read late", rows(stamp="user"), {"outcome": {"read_lag_ms_p99": 9.0}}, "client-bound", "9.00 ms"),
    ("user stamps, read soon", rows(stamp="user"), {"outcome": {"read_lag_ms_p99": 0.4}}, "degraded", "0.40 ms late"),
    ("starved", rows(), {"outcome": {"starved": 30, "sent": 200}}, "client-bound", "30 requests were due before"),
    (
        "a cap of the client's own",
        rows(),
        {"outcome": {"held_back": 4, "max_in_flight": 2, "sent": 200}},
        "degraded",
        "4 requests waited in the client for the cap of 2",
    ),
    (
        "never sent",
        rows(),
        {"asked": ("constant", 2.0), "outcome": {"planned": 230, "sent": 200, "stopped_by": "duration"}},
        "client-bound",
        "30 of 230 requests that were due never left",
    ),
    ("loop late", rows(), {"outcome": {"loop_lag_ms_p99": 60.0, "loop_lag_ms_max": 90.0}}, "degraded", "60.0 ms late"),
    (
        "loop late, stamps its own",
        rows(stamp="user"),
        {"outcome": {"loop_lag_ms_p99": 30.0, "loop_lag_ms_max": 90.0}},
        "client-bound",
        "that it stamps itself",
    ),
    ("spilled", rows(), {"outcome": {"spilled_bytes": 5_000_000}}, "degraded", "5 MB of records waited on disk"),
    (
        "redline busy",
        rows(),
        {"outcome": {"parent_cpu_s": 98.0, "measured_from_ns": S}},
        "degraded",
        "redline itself kept a core 98% busy",
    ),
    ("never left", rows(), {"outcome": {"never_left": 3}}, "client-bound", "3 requests never left"),
    (
        "shared stamps of a frozen client",
        rows(shared_stamps=4),
        {"outcome": {"client_cpu_s": 3.0, "read_lag_ms_p99": 180.0}},
        "degraded",
        "40% of the chunks",
    ),
    ("shared stamps", rows(shared_stamps=4), {"outcome": {"client_cpu_s": 60.0}}, "degraded", "40% of the chunks"),
    ("few", rows(50), {}, "degraded", "p99 of 50 requests is their maximum"),
    ("load not reached", rows(), {"asked": ("closed", 4.0)}, "degraded", "1.0 in flight instead of 4"),
    ("rate not reached", rows(), {"asked": ("constant", 4.0), "sent_per_s": 2.0}, "degraded", "2.00 req/s instead"),
]  # fmt: skip


@pytest.mark.parametrize(("made", "changes", "state", "reason"), [c[1:] for c in CASES], ids=[c[0] for c in CASES])
def test_each_rule_speaks(made: list[Row], changes: dict[str, Any], state: str, reason: str) -> None:
    found = verdict(made, **changes)
    assert found.state == state, found
    assert reason in " | ".join(found.reasons)


def test_send_lag_is_measured_when_it_is_not_told() -> None:
    made = rows()
    for row in made:
        row.sent = row.intended + 12
    assert verdict(made).state == "client-bound"
    told = verdict(made, outcome={"send_lag_ms_p50": 0.1, "send_lag_ms_p99": 0.2})
    assert told.state == "degraded", "it was the connection that took so long"


def test_waiting_for_a_cap_is_told_from_both_starts() -> None:
    """TTFT of 40 ms from the send, and 200 ms more from the intended start: six times as long."""
    made = rows()
    for row in made:
        row.sent, row.intended = row.intended, row.intended - 200
    found = verdict(made, outcome={"held_back": 200, "max_in_flight": 1, "sent": 200, "send_lag_ms_p50": 200.0})
    assert found.state == "client-bound"
    assert "40 ms from the send and 240 ms from the intended start (6.0 times as long)" in found.reasons[0]
    assert len([reason for reason in found.reasons if "late" in reason or "TTFT" in reason]) == 1, "said once"


def test_the_clients_share_of_ttft() -> None:
    """Connecting counts: send lag alone leaves it out."""
    for late_ms, state in ((3.0, "valid"), (8.0, "degraded"), (30.0, "degraded")):
        made = rows()
        for row in made:
            row.sent = row.intended + late_ms
        found = verdict(made, outcome={"send_lag_ms_p50": 0.01, "send_lag_ms_p99": 0.05})
        assert found.state == state, found
        assert state == "valid" or "of TTFT p99 passed on the client's side" in found.reasons[0]
    late = verdict(rows(stamp="user"), outcome={"send_lag_ms_p50": 0.1, "send_lag_ms_p99": 0.2, "read_lag_ms_p99": 14})
    assert any("35% of TTFT p99" in reason for reason in late.reasons), late


@pytest.mark.parametrize(
    ("made", "changes"),
    [
        (rows(), {"outcome": {"loop_lag_ms_p99": 20.0}}),  # the kernel stamps: a loop late by half a gap moves nothing
        (rows(), {"outcome": {"planned": 201, "sent": 200, "stopped_by": "duration"}, "asked": ("constant", 2.0)}),
        (rows(), {"outcome": {"planned": 500, "sent": 200, "stopped_by": "duration"}, "asked": ("closed", 1.0)}),
        (rows(), {"outcome": {"held_back": 0, "max_in_flight": 9}}),
        (with_some(rows(), 2, status="reset"), {}),  # 1 % may fail
        (rows(asked_output_tokens=20), {"exact_output": False}),  # the model stopped by itself
        (rows(asked_output_tokens=20, token_source="chunks"), {"exact_output": True}),  # no count, no judgement
        (rows(), {"outcome": {"send_lag_ms_p99": 0.9}}),
        (rows(shared_stamps=4), {"outcome": {"client_cpu_s": 3.0}}),  # an idle client: the server sends them together
        (rows(shared_stamps=4, stamp="packet"), {"outcome": {"client_cpu_s": 60.0}}),  # each segment has its own stamp
        (rows(), {"outcome": {"starved": 1, "sent": 200}}),
        (rows(), {"asked": ("closed", 1.0)}),
        (rows(), {"asked": ("poisson", 2.05), "sent_per_s": 2.0}),
        (rows(), {"outcome": {"stopped_by": "duration", "notes": ["x"], "client_cpu_s": None}}),
    ],
)
def test_rules_stay_silent_below_their_threshold(made: list[Row], changes: dict[str, Any]) -> None:
    reasons = " ".join(verdict(made, **changes).reasons)
    for word in ("late", "cap", "never left", "failed", "length", "lag", "share", "not reached", "interrupted", "died"):
        assert word not in reasons


def test_cutting_off_the_slow_half_is_noticed() -> None:
    """Answers take 1 to 30 s at random, and the point ends after 20: only fast ones are seen to finish."""
    requests, (start, ended) = closed_loop(
        40, duration_ms=20_000, ttft_ms=9000, itl_ms=10, output_tokens=8, noise=0.8, drain_ms=0
    )
    found = judge(Case(requests, latencies_of(requests), find_window(requests, start, ended), ended, {}))
    assert found.state != "valid"
    assert any("cut off" in reason and "slow ones first" in reason for reason in found.reasons)


def test_cutting_off_a_few_of_many_is_not_held_against_it() -> None:
    requests, (start, ended) = closed_loop(10, duration_ms=20_000, drain_ms=0)
    cut = int((requests.status == "cancelled").sum())
    assert cut == 10
    found = judge(Case(requests, latencies_of(requests), find_window(requests, start, ended), ended, {}))
    assert found == Verdict()


def test_the_worst_comes_first() -> None:
    found = verdict(rows(50, asked_output_tokens=20), outcome={"send_lag_ms_p99": 50.0})
    assert found.state == "invalid"
    assert [word in reason for word, reason in zip(("length", "late", "maximum"), found.reasons, strict=True)] == [
        True
    ] * 3


def test_each_reason_keeps_its_own_level() -> None:
    found = verdict(rows(50, asked_output_tokens=20))
    assert found.levels == ("invalid", "degraded")


def test_every_state_is_ranked_and_reached() -> None:
    assert {case[3] for case in CASES} | {"valid"} == set(STATES)
    assert len(RULES) == len(set(RULES))


def test_every_rule_says_why_it_is_there() -> None:
    assert [rule.__name__ for rule in RULES if not (rule.__doc__ or "").strip()] == []
    assert len({rule.__name__ for rule in RULES}) == len(RULES)


def vectors(**changes: Any) -> list[Row]:
    """Embeddings: answers that hold no token, so that none of them has a TTFT."""
    return rows(chunks=[], finish_reason="embedding", output_tokens=0, asked_output_tokens=0, **changes)


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        ({"send_lag_ms_p50": 200.0, "send_lag_ms_p99": 300.0}, "beside a median E2E of 499.0 ms"),
        ({"send_lag_ms_p50": 0.1, "send_lag_ms_p99": 300.0}, "beside 499.0 ms of E2E p99"),
        ({"loop_lag_ms_p99": 300.0, "loop_lag_ms_max": 300.0}, "that it stamps itself"),
    ],
)
def test_a_late_client_is_seen_where_no_answer_has_a_first_token(outcome: dict[str, float], reason: str) -> None:
    found = verdict(vectors(stamp="user"), outcome=outcome)
    assert found.state == "client-bound", found
    assert reason in " | ".join(found.reasons)


def test_waiting_for_a_cap_is_seen_where_no_answer_has_a_first_token() -> None:
    made = vectors()
    for row in made:
        row.sent, row.intended = row.intended, row.intended - 200
    found = verdict(made, outcome={"held_back": 200, "max_in_flight": 1, "sent": 200, "send_lag_ms_p50": 200.0})
    assert found.state == "client-bound"
    assert "E2E p50 is 499 ms from the send and 699 ms from the intended start" in found.reasons[0]


def test_the_clients_share_is_seen_where_no_answer_has_a_first_token() -> None:
    made = vectors()
    for row in made:
        row.sent = row.intended + 100
    found = verdict(made, outcome={"send_lag_ms_p50": 0.01, "send_lag_ms_p99": 0.05})
    assert found.state == "degraded", "it was the connection that took so long"
    assert "20% of E2E p99 passed on the client's side" in found.reasons[0]


def test_late_reads_are_measured_by_ttft_where_the_median_gap_is_0() -> None:
    """Several tokens in a chunk make most gaps 0: a tenth of that is no limit."""
    late = {"read_lag_ms_p99": 2.0}
    found = verdict(rows(stamp="user", tokens=[4] * 10, asked_output_tokens=40), outcome=late)
    assert found.state == "degraded", found
    assert verdict(rows(stamp="user", tokens=[4] * 10), outcome={"read_lag_ms_p99": 9.0}).state == "client-bound"


def test_a_few_answers_beyond_their_limit_are_not_judged_by_those_that_ended_early() -> None:
    made = with_some(rows(asked_output_tokens=20), 6, asked_output_tokens=9)
    found = verdict(made, exact_output=False)
    assert found.state == "degraded", found
    assert "output length not as asked in 3% of the answers" in found.reasons[0]
