from __future__ import annotations

import struct
from itertools import pairwise

import numpy as np
import orjson
from hypothesis import given
from hypothesis import strategies as st

from redline.store.chunks import (
    decode_all_times,
    decode_all_tokens,
    decode_times,
    decode_tokens,
    encode_times,
    encode_tokens,
    times_json,
    tokens_json,
)

INT64 = st.integers(-(2**63), 2**63 - 1)
STREAM = st.lists(st.integers(0, 2**33), max_size=40).map(lambda gaps: list(np.cumsum([10**15, *gaps]).tolist()))


@given(st.lists(INT64, max_size=30) | STREAM)
def test_times_round_trip(times: list[int]) -> None:
    assert decode_times(encode_times(times)).tolist() == times


@given(st.lists(st.integers(0, 300), max_size=50) | st.lists(INT64, max_size=10))
def test_tokens_round_trip(tokens: list[int]) -> None:
    assert decode_tokens(encode_tokens(tokens)).tolist() == tokens


@given(st.lists(st.lists(INT64, max_size=8) | STREAM, max_size=12))
def test_many_streams_at_once_are_the_same_as_one_by_one(streams: list[list[int]]) -> None:
    start, times = decode_all_times([encode_times(stream) for stream in streams])
    assert [times[a:b].tolist() for a, b in pairwise(start)] == streams
    assert start[0] == 0
    tokens = decode_all_tokens([encode_tokens([len(stream)] * len(stream)) for stream in streams])
    assert tokens.tolist() == [len(stream) for stream in streams for _ in stream]


def test_an_ordinary_stream_is_small_and_documented_layout_reads_it() -> None:
    times = [10**15 + step * 20_000_000 for step in range(100)]
    blob = encode_times(times)
    assert len(blob) == 1 + 8 + 4 * 99
    # what the schema's comments promise to a reader in any language
    kind, first, *gaps = struct.unpack("<Bq99I", blob)
    assert kind == 4
    assert first == times[0]
    assert first + sum(gaps) == times[-1]
    assert struct.unpack("<BIq", encode_tokens([1] * 100)) == (0, 100, 1)


def test_a_gap_of_minutes_takes_the_wide_layout() -> None:
    blob = encode_times([0, 5 * 10**9, 6 * 10**9])
    assert struct.unpack("<Bqqq", blob) == (8, 0, 5 * 10**9, 10**9)


def test_sql_functions_give_json() -> None:
    assert orjson.loads(times_json(encode_times([5, 6, 9])) or "") == [5, 6, 9]
    assert orjson.loads(tokens_json(encode_tokens([1, 2])) or "") == [1, 2]
    assert times_json(b"") == "[]"
    assert times_json(None) is None
