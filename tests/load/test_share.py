"""Splitting a phase loses nothing, and several workers give up by the same rules as one."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from redline.load.frames import Arrivals, Outgoing, Phase, PhaseDone, Tick
from redline.load.giving_up import GivingUp
from redline.load.share import Deal, merged_done, merged_tick, split


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 90))
def test_a_closed_loop_keeps_its_clients_and_requests(workers: int, clients: int, requests: int) -> None:
    parts = split(Phase(Arrivals.CLOSED, clients=clients, requests=requests), workers)
    assert sum(part.clients for part in parts) == clients
    assert sum(part.requests for part in parts) == requests
    assert all(part.clients >= 1 for part in parts)
    assert not requests or all(part.requests >= 1 for part in parts)  # 0 would mean: without end
    places = sorted(part.first_client + i * part.client_step for part in parts for i in range(part.clients))
    assert places == list(range(clients))


@given(st.integers(1, 9), st.lists(st.integers(0, 1000), max_size=50).map(sorted), st.integers(0, 60))
def test_an_open_loop_is_dealt_by_request(workers: int, offsets: list[int], requests: int) -> None:
    phase = Phase(Arrivals.OPEN, offsets_ns=offsets, requests=requests)
    parts = split(phase, workers)
    kept = offsets[: requests or None]
    if len(parts) > 1:
        assert [parts[i % len(parts)].offsets_ns[i // len(parts)] for i in range(len(kept))] == kept
        assert sum(len(part.offsets_ns) for part in parts) == len(kept)
    deal = Deal(workers)
    assert not any(deal.of([Outgoing(0, b"")], [Tick()] * workers)) or workers == 1
    if workers > 1 and kept:
        deal = Deal(workers)
        deal.begin(parts, [Tick()] * workers)
        hands = deal.of([Outgoing(i, b"") for i in range(len(kept))], [Tick()] * workers)
        for i in range(len(kept)):
            assert hands[i % len(parts)][i // len(parts)].number == i


@given(st.integers(2, 6), st.integers(2, 30), st.integers(1, 80), st.data())
def test_a_closed_loop_feeds_who_needs_it(workers: int, clients: int, requests: int, data: st.DataObject) -> None:
    parts = split(Phase(Arrivals.CLOSED, clients=clients, requests=requests), workers)
    deal, ticks = Deal(workers), [Tick() for _ in range(workers)]
    got: list[list[int]] = [[] for _ in range(workers)]

    def take(hands: list[list[Outgoing]]) -> None:
        for mine, hand in zip(got, hands, strict=True):
            mine += [body.number for body in hand]

    take(deal.of([Outgoing(i, b"") for i in range(requests // 2)], ticks))
    assert not any(got)  # held back until the phase says whose they are
    take(deal.begin(parts, ticks))
    for i in range(requests // 2, requests):
        who = data.draw(st.integers(0, workers - 1))
        ticks[who].sent = min(ticks[who].sent + 1, len(got[who]))
        take(deal.of([Outgoing(i, b"")], ticks))
    assert [len(mine) for mine in got[: len(parts)]] == [part.requests for part in parts]
    assert all(mine == sorted(mine) for mine in got)
    assert sorted(number for mine in got for number in mine) == list(range(requests))


def test_what_is_over_is_fed_no_more() -> None:
    deal, ticks = Deal(2), [Tick(), Tick()]
    deal.begin(split(Phase(Arrivals.CLOSED, clients=2), 2), ticks)
    deal.over(0)
    assert [len(hand) for hand in deal.of([Outgoing(i, b"") for i in range(4)], ticks)] == [0, 4]
    deal.over(1)
    assert [len(hand) for hand in deal.of([Outgoing(9, b"")], ticks)] == [0, 0]  # for the next phase
    again = deal.begin(split(Phase(Arrivals.CLOSED, clients=2), 2), ticks)
    assert [[body.number for body in hand] for hand in again] == [[9], []]


def test_ticks_add_up_or_show_the_worst() -> None:
    ticks = [Tick(sent=3, cpu_s=0.5, clock_error_ns=10, spilled=7), Tick(sent=4, cpu_s=0.25, clock_error_ns=90)]
    tick = merged_tick(ticks)
    assert (tick.sent, tick.cpu_s, tick.clock_error_ns, tick.spilled) == (7, 0.75, 90, 7)
    done = [PhaseDone("requests", 10, 90, 3, ticks[0]), PhaseDone("duration", 10, 80, 4, ticks[1])]
    assert merged_done(done, tick) == PhaseDone("duration", 10, 90, 7, tick)
    assert merged_done(done, tick, "failing").stopped_by == "failing"


def test_one_failing_worker_is_not_a_failing_server() -> None:
    phase = Phase(Arrivals.CLOSED, clients=2)
    rule = GivingUp(phase, Tick(ended=5, good=5))
    assert rule.judge(Tick(ended=59, good=5), 0) == ""
    assert rule.judge(Tick(ended=60, good=5), 0) == "failing"
    assert GivingUp(phase, Tick()).judge(Tick(ended=100, good=1), 0) == ""


def test_refusals_in_a_row_for_a_second() -> None:
    second = 1_000_000_000
    rule = GivingUp(Phase(Arrivals.CLOSED, clients=50), Tick())
    assert rule.judge(Tick(ended=6, refused=6), 0) == ""
    assert rule.judge(Tick(ended=9, refused=9), second) == ""
    assert rule.judge(Tick(ended=9, refused=9), second + 1) == "refused"
    rule = GivingUp(Phase(Arrivals.CLOSED, clients=50), Tick())
    rule.judge(Tick(ended=6, refused=6), 0)
    rule.judge(Tick(ended=10, refused=7, good=3), second)  # something answered in between
    assert rule.judge(Tick(ended=20, refused=17, good=3), 2 * second) == ""
