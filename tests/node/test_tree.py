from __future__ import annotations

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from redline.node.tree import chosen, cpu_list, fields, is_skipped, number, short_list, skipped, text


@given(st.sets(st.integers(0, 300)))
def test_cpu_lists_round_trip(cpus: set[int]) -> None:
    assert cpu_list(short_list(list(cpus))) == sorted(cpus)


def test_cpu_lists_as_the_kernel_writes_them() -> None:
    assert cpu_list("0-3,8,10-11\n") == [0, 1, 2, 3, 8, 10, 11]
    assert cpu_list("") == cpu_list(None) == []
    assert short_list([3, 1, 2, 7]) == "1-3,7"


def test_reading_what_is_not_there(tmp_path: Path) -> None:
    assert text(tmp_path, "proc/none") is None
    assert number(tmp_path, "proc/none") is None
    (tmp_path / "max").write_text("max\n")
    assert number(tmp_path, "max") is None
    assert text(tmp_path, "max") == "max"


def test_small_formats() -> None:
    assert chosen("always [madvise] never") == "madvise"
    assert chosen("performance") == "performance"
    assert chosen(None) is None
    assert fields("a : 1\na : 2\nno colon\nb:x:y") == {"a": "1", "b": "x:y"}
    assert is_skipped(skipped("why"))
    assert not is_skipped({"a": 1})
