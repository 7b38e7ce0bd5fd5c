"""Phases and their clock; starting and failing for real is in test_launch.py."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.engines.log import Follower
from redline.engines.ready import Phase, Stopwatch, _read_log

PHASES = tuple(Phase(name, f"doing {name}", re.compile(rf"\b{name}\b")) for name in ("a", "b", "c", "d"))


def test_lengths_add_up_to_the_total() -> None:
    watch = Stopwatch(lambda line: None)
    for name in ("boot", "a", "b"):
        time.sleep(0.02)
        watch.enter(name, name)
    lengths = watch.done()
    total = lengths.pop("total")
    assert list(lengths) == ["spawn", "boot", "a", "b"]
    assert total == pytest.approx(sum(lengths.values()), abs=1.0)
    assert lengths["spawn"] >= 20
    assert lengths["b"] < 15


@given(st.lists(st.sampled_from("abcdxyz"), max_size=30))
def test_phases_never_go_back(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> None:
    log: Path = tmp_path_factory.mktemp("log") / "log"
    log.write_text("".join(f"now {word} begins\n" for word in words))
    told: list[str] = []
    watch = Stopwatch(told.append)
    expect = _read_log(Follower(log), PHASES, 0, watch)
    names = [line.removeprefix("doing ") for line in told]
    assert names == sorted(set(names))
    assert set(names) <= set(words)
    if names:
        assert expect == "abcd".index(names[-1]) + 1
        assert names[0] == next(word for word in words if word in "abcd")
