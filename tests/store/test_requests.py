from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.store.requests import Requests, narrow
from tests.analyse.traffic import Row, requests_of


def made(chunks: list[int]) -> Requests:
    rows = [Row(i, chunks=[i + k for k in range(n)], tokens=[i + 1] * n, status=f"s{i}") for i, n in enumerate(chunks)]
    return requests_of(*rows)


def one_by_one(whole: Requests, rows: list[int]) -> Requests:
    """The plain way."""
    columns = {f.name: getattr(whole, f.name)[rows] for f in fields(Requests) if not f.name.startswith("chunk_")}
    spans = [slice(whole.chunk_start[row], whole.chunk_start[row + 1]) for row in rows]
    for name in ("chunk_ns", "chunk_tokens"):
        columns[name] = np.concatenate([getattr(whole, name)[span] for span in spans] or [np.zeros(0, np.int64)])
    columns["chunk_start"] = np.cumsum([0, *(span.stop - span.start for span in spans)])
    return Requests(**columns)


@given(st.lists(st.integers(0, 5), min_size=1, max_size=12), st.data())
def test_a_selection_is_what_copying_row_by_row_gives(chunks: list[int], data: st.DataObject) -> None:
    whole = made(chunks)
    places = st.lists(st.integers(0, len(chunks) - 1), max_size=12)
    rows = data.draw(st.one_of(places, places.map(lambda some: sorted(set(some)))))
    keep = np.array(rows, np.int64)
    expected = one_by_one(whole, rows)
    found = whole.pick(keep)
    for field in fields(Requests):
        np.testing.assert_array_equal(getattr(found, field.name), getattr(expected, field.name), field.name)
    again = np.arange(len(found))[::-1][: len(found) // 2 + 1]
    np.testing.assert_array_equal(found.pick(again).chunk_ns, one_by_one(expected, again.tolist()).chunk_ns)


def test_a_mask_selects_too_and_everything_is_no_copy() -> None:
    whole = made([2, 0, 3])
    assert whole.pick(np.ones(3, np.bool_)) is whole
    assert whole.pick(whole.chunks > 0).index.tolist() == [0, 2]
    assert np.shares_memory(whole.pick(np.array([1, 2])).chunk_ns, whole.chunk_ns)


def test_a_selection_is_like_any_other() -> None:
    found = made([2, 0, 3]).pick(np.array([2, 0]))
    assert replace(found, index=found.index + 1).chunk_tokens.tolist() == [3, 3, 3, 1, 1]
    with pytest.raises(AttributeError, match="chunk_size"):
        getattr(found, "chunk_size")  # noqa: B009


def test_what_the_chunks_of_each_request_say() -> None:
    whole = requests_of(Row(0, chunks=[5, 3, 9], tokens=[1, 100, 100]), Row(0), Row(0, chunks=[4], tokens=[7]))
    assert whole.delivered.tolist() == [201, 0, 7]
    assert [(at - 10**9) // 10**6 for at in whole.earliest_ns.tolist() if at] == [3, 4]
    assert [(at - 10**9) // 10**6 for at in whole.latest_ns.tolist() if at] == [9, 4]


@pytest.mark.parametrize(("values", "kind"), [([], "i1"), ([1, 127], "i1"), ([-1, 128], "i2"), ([2**40], "i8")])
def test_the_narrowest_type_that_holds_them(values: list[int], kind: str) -> None:
    found = narrow(np.array(values, np.int64))
    assert found.dtype == np.dtype(kind)
    assert found.tolist() == values
