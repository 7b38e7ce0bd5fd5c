from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redline.clock import now_ns
from redline.pages.live import BUCKET_NS, seconds
from tests.e2e.program import wait_for
from tests.pages.conftest import client_of

WRITER = """
import sys, time
from pathlib import Path
from redline.clock import now_ns
from redline.engines.endpoint import Endpoint
from redline.load.record import RequestRecord, TokenSource
from redline.spec.load import LoadPoint
from redline.store.store import Store
from tests.store.recorded import EXPERIMENT, record

with Store.open(Path(sys.argv[1])) as store:
    run = store.begin_run(EXPERIMENT, {}, ["redline"])
    trial = store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0)
    store.trial_ready(trial, Endpoint("http://127.0.0.1:1/v1", "m", "vllm", "1"), {})
    point = store.begin_point(trial, LoadPoint("closed", 2))
    for i in range(100_000):
        t = now_ns()
        store.add_request(point, RequestRecord(i, t - 50_000_000, t - 49_000_000, 0, t - 30_000_000, 0, t,
            [t - 30_000_000, t - 10_000_000, t], [1, 1, 1], 8, output_tokens=3, token_source=TokenSource.USAGE))
        time.sleep(0.01)
"""


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Another process that measures, and never ends by itself."""
    path = tmp_path / "r.db"
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(path)])
    try:
        yield process, path
    finally:
        process.kill()
        process.wait()


def test_numbers_change_while_another_process_writes_and_its_death_is_seen(
    writer: tuple[subprocess.Popen[bytes], Path],
) -> None:
    process, path = writer
    with client_of(path) as client:

        def live(after: str = "") -> dict[str, Any]:
            answer = client.get(f"/run/last/live?after={after}")
            return answer.json() if answer.status_code == 200 else {}

        first = wait_for(lambda: (said := live()).get("buckets") and said, 30)
        assert first["going_on"]
        assert first["step"].endswith("2 clients")
        more = wait_for(
            lambda: (said := live(first["after"]))["point"]["requests"] > first["point"]["requests"] and said, 30
        )
        assert more["newest"]["ttft_p50"] == "20.0"
        assert 'data-live="/run/' in client.get("/run/last").text
        assert "is going on" in client.get("/").text
        assert client.get("/run/last/findings").status_code == 200
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        last = live()
        assert not last["going_on"]
        assert last["status"] == "interrupted"
        assert "died before the end" in client.get("/run/last").text
        assert client.get("/run/last/findings").status_code == 200


def rows(*ends_s: float, first: int = 1, start: int = 0) -> list[tuple[int, ...]]:
    return [
        (first + i, start, start + 1_000_000, start + 2_000_000, start + int(end * 1e9), 3, 2, 0, 0)
        for i, end in enumerate(ends_s)
    ]


def test_a_second_is_given_whole_until_it_is_over_for_good() -> None:
    start = now_ns() - 10 * BUCKET_NS
    before = rows(0.5, 1.5, 8.2, 8.6, start=start)
    found, last, whole = seconds(before, start, 0)
    assert [one["finished"] for one in found] == [1, 1, 0, 0, 0, 0, 0, 0, 2]
    assert last == 2  # the requests of second 8 come again
    assert whole == 7
    after = [row for row in [*before, *rows(8.9, 9.1, first=5, start=start)] if row[0] > last]
    again, _, _ = seconds(after, start, whole)
    assert [(one["s"], one["finished"]) for one in again] == [(7, 0), (8, 3), (9, 1)]


def test_the_seconds_of_a_run_that_is_over_are_all_closed() -> None:
    found, last, _ = seconds(rows(0.5, 1.5, 2.5), 0, 0)
    assert last == 2  # the newest second alone is asked for again
    assert [one["finished"] for one in found] == [1, 1, 1]


def test_no_request_yet() -> None:
    assert seconds([], 0, 0) == ([], 0, 0)
