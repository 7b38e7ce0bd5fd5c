"""Counting request by request equals looking at every chunk."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.analyse.arrivals import arrivals_of, slice_counts
from redline.analyse.curves import SLICES, timeline
from redline.analyse.percentile import Floats, percentile
from redline.analyse.window import SteadyWindow
from redline.store.requests import Requests
from tests.analyse.traffic import MS, Row, S, closed_loop, requests_of

chunk = st.tuples(st.integers(0, 400), st.integers(0, 3))
row = st.builds(
    lambda at, chunks, counted, status, answer: Row(
        at, chunks=[at + when for when, _ in chunks], tokens=[n for _, n in chunks], output_tokens=counted,
        status=status, finished=at + 300, finish_reason=answer,
    ),
    st.integers(0, 900), st.lists(chunk, max_size=6), st.one_of(st.none(), st.integers(0, 9)),
    st.sampled_from(["ok", "ok", "reset"]), st.sampled_from(["length", "length", "embedding"]),
)  # fmt: skip


def every_arrival(requests: Requests) -> list[tuple[int, float, int]]:
    """(when, tokens, whose) of every chunk, and of every answer that came in one piece."""
    found: list[tuple[int, float, int]] = []
    for i in range(len(requests)):
        own = slice(requests.chunk_start[i], requests.chunk_start[i + 1])
        at, tokens = requests.chunk_ns[own].tolist(), requests.chunk_tokens[own].tolist()
        vector = requests.finish_reason[i] == "embedding"
        got = int(requests.output_tokens[i])
        scale = got / sum(tokens) if requests.status[i] == "ok" and got and sum(tokens) else 1.0
        found += [(when, n * scale, i) for when, n in zip(at, tokens, strict=True)]
        if not sum(tokens) and requests.finished_ns[i]:
            found.append((int(requests.finished_ns[i]), max(int(requests.prompt_tokens[i]), 1) if vector else got, i))
    return found


def spelled_out(requests: Requests, start: int, end: int, slices: int, weight: Floats) -> Floats:
    counts = np.zeros(slices)
    for when, tokens, whose in every_arrival(requests):
        place = (when - start) * slices // (end - start)
        if 0 <= place < slices:
            counts[place] += tokens * weight[whose]
    return counts


@given(st.lists(row, min_size=1, max_size=8), st.integers(0, 900), st.integers(1, 900), st.integers(1, 12))
def test_against_every_chunk(rows: list[Row], start: int, length: int, slices: int) -> None:
    requests = requests_of(*rows)
    edges = (S + start * MS, S + (start + length) * MS)
    weight = np.arange(len(rows)) / 2
    arrivals = arrivals_of(requests)
    plain = spelled_out(requests, *edges, slices, np.ones(len(rows)))
    np.testing.assert_allclose(arrivals.counts(*edges, slices), plain, rtol=1e-12)
    weighted = spelled_out(requests, *edges, slices, weight)
    np.testing.assert_allclose(arrivals.counts(*edges, slices, weight), weighted, rtol=1e-12)


def test_tokens_follow_the_server_s_count() -> None:
    made = requests_of(
        Row(0, chunks=[10, 20], tokens=[1, 1], output_tokens=6),  # usage says 6
        Row(0, chunks=[30], tokens=[2], output_tokens=0, status="reset"),  # no usage: what was counted
        Row(0, finished=40, output_tokens=5),  # one piece
    )
    assert arrivals_of(made).tokens.tolist() == [6, 2, 5]
    assert arrivals_of(made).counts(S + 5 * MS, S + 45 * MS, 4).tolist() == [3, 3, 2, 5]


@given(st.lists(st.integers(0, 99), max_size=50), st.integers(1, 20))
def test_slices_lose_nothing(times: list[int], slices: int) -> None:
    counts = slice_counts(np.array(times, np.int64), np.ones(len(times)), 0, 100, slices)
    assert len(counts) == slices
    assert counts.sum() == len(times)


@pytest.mark.parametrize(("clients", "tokens"), [(1, 400), (6, 8), (6, 60)])
def test_a_timeline_against_every_gap(clients: int, tokens: int) -> None:
    requests, (start, end) = closed_loop(clients, duration_ms=3000, output_tokens=tokens, fail=0.1, seed=clients)
    start, end = start + 400 * MS, end - 300 * MS
    found = timeline(requests, SteadyWindow(start, end, True), start, end)
    gaps: list[list[float]] = [[] for _ in range(SLICES)]
    for a, b in pairwise(requests.chunk_start.tolist()):
        own = requests.chunk_ns[a:b].tolist()
        for before, at in pairwise(own):
            place = (at - start) * SLICES // (end + 1 - start)
            if 0 <= place < SLICES:
                gaps[place].append((at - before) / MS)
    for level, column in ((0.5, found.itl_p50), (0.99, found.itl_p99), (1.0, found.itl_max)):
        expected = [percentile(np.array(some), level) if some else math.nan for some in gaps]
        np.testing.assert_array_equal(column, expected)
