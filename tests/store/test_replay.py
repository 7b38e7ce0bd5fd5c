from __future__ import annotations

from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.load.trace import read_trace
from redline.store.read import Reader
from redline.store.replay import recorded
from tests.report.stored import SLOW, write_run


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("own") / "redline.db"
    write_run(path, [SLOW], clients=[1, 4], seconds=3.0)
    return path


@pytest.mark.parametrize("what", ["redline:last", "redline:last/1", "file"])
def test_a_run_of_ours_is_a_trace(path: Path, what: str) -> None:
    with Reader.open(path) as own:
        trace = read_trace(str(path) if what == "file" else what, recorded=lambda name: recorded(name, own))
        requests = own.requests(own.run("last").trials[0].points[0].id)
    intended = sorted(requests.intended_ns[~requests.warmup].tolist())
    assert [round(row.at_s * 1e9) for row in trace.rows] == pytest.approx([t - intended[0] for t in intended], abs=1000)
    assert {(row.prompt_tokens, row.output_tokens) for row in trace.rows} == {(128, 32)}


def test_the_second_point_is_another_trace(path: Path) -> None:
    with Reader.open(path) as own:
        first, second = recorded("redline:last", own), recorded("redline:last/2", own)
        in_file = recorded(f"{path}/2", own)
    assert len(second) > 2 * len(first)
    assert in_file == second


def test_a_run_or_a_point_that_is_not_there(path: Path) -> None:
    with Reader.open(path) as own:
        with pytest.raises(UsageError, match="has 2 load points"):
            recorded("redline:last/3", own)
        with pytest.raises(UsageError, match="no run 'never'"):
            recorded("redline:never", own)
