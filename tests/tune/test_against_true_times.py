"""A slowdown of 3 %, live: the whole way of a comparison in rounds against the servers' own record of what they sent.

What is true follows from the send times that the paced servers kept, through the same statistics. On a box that is busy
the servers are late, and the truth moves with them; redline has to say what the truth says: no other numbers, the 3 %
wherever the truth shows them, and no alarm where it shows none.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from redline.analyse.effect import Effect, effect, judge_family
from redline.analyse.rounds import Round, measure_round
from redline.load.paced.loop import Truth
from redline.report.versus import compare_runs
from redline.spec.length import LengthSpec
from redline.store.read import Reader
from redline.store.requests import Requests
from redline.tune.compare import compare
from tests.load.rings import needs_ring
from tests.tune.paced_engine import Running
from tests.tune.test_rounds import experiment

pytestmark = [pytest.mark.usefixtures("paced"), needs_ring, pytest.mark.slow, pytest.mark.timeout(180)]

METRICS = ["tpot_ms.p50", "itl_ms.p50"]
ROUNDS, ANSWER = 5, 20


@pytest.fixture
def truths(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Truth]]:
    """What every server sent, by the URL it had; asked before it is stopped."""
    kept: dict[str, list[Truth]] = {}
    stop = Running.stop

    def asked(self: Running) -> None:
        if self.server.alive:
            kept[self.endpoint.base_url] = self.server.truth()
        stop(self)

    monkeypatch.setattr(Running, "stop", asked)
    return kept


def as_sent(requests: Requests, truths: list[Truth]) -> Requests:
    """The same requests with the times at which their chunks really left (the middle of each send)."""
    times = requests.chunk_ns.copy()
    by_index: dict[int, list[Truth]] = {}
    for truth in truths:
        if truth.id:
            by_index.setdefault(int(truth.id.rpartition("-")[2]), []).append(truth)
    for i, index in enumerate(requests.index.tolist()):
        first, last = requests.chunk_start[i : i + 2]
        if first == last:
            continue
        sent = int(requests.sent_ns[i])
        truth = min(by_index[index], key=lambda one: abs(one.arrived_ns - sent))  # other rounds are seconds away
        assert len(truth.before_ns) == last - first
        times[first:last] = (np.array(truth.before_ns) + np.array(truth.after_ns)) // 2
    return replace(requests, chunk_ns=times)


def rounds(reader: Reader, run_id: str, engine: str, truths: list[Truth] | None = None) -> Iterator[Round]:
    """As measured, or as the server sent it."""
    for trial in reader.run(run_id).trials:
        for point in trial.points if trial.engine == engine else ():
            requests = reader.requests(point.id)
            yield measure_round(
                requests if truths is None else as_sent(requests, truths),
                measured_from_ns=point.measured_from_ns, ended_ns=point.ended_ns, slo={},
            )  # fmt: skip


def same_statement(found: Effect, true: Effect) -> None:
    """The numbers agree, and so does what is made of them, unless the truth itself is on the edge."""
    for ours, theirs in ((found.a, true.a), (found.b, true.b)):
        assert ours == pytest.approx(theirs, rel=0.005)
    assert found.interval is not None
    assert true.interval is not None
    assert found.interval.low <= true.ratio <= found.interval.high
    assert abs(math.log(found.ratio / true.ratio)) < 0.005
    if true.p < 0.005 or true.p > 0.2:
        assert found.outcome == true.outcome, (found, true)


def test_three_percent_slower_is_found_whenever_it_is_true(tmp_path: Path, truths: dict[str, list[Truth]]) -> None:
    db, flags = tmp_path / "r.db", {"ttft-ms": 30.0, "itl-ms": 20.0}
    plan = experiment(flags, {**flags, "itl-ms": 20.6}, rounds=ROUNDS, requests=8, concurrency=[4])
    work = plan.workload.model_copy(update={"output_tokens": LengthSpec(mean=ANSWER)})
    run_id = compare(plan.model_copy(update={"workload": work}), db=db).run_id
    with Reader.open(db) as reader:
        urls = {trial.engine: trial.endpoint["base_url"] for trial in reader.run(run_id).trials}
        sent = [list(rounds(reader, run_id, engine, truths[urls[engine]])) for engine in ("e0", "e1")]
        seen = [list(rounds(reader, run_id, engine)) for engine in ("e0", "e1")]
    assert {len(side) for side in (*sent, *seen)} == {ROUNDS}
    found, true = (judge_family([effect(name, *sides, paired=True) for name in METRICS]) for sides in (seen, sent))
    for ours, theirs in zip(found, true, strict=True):
        assert ours.method == f"paired by {ROUNDS} rounds"
        same_statement(ours, theirs)
    versus = compare_runs(f"{run_id}:e0", f"{run_id}:e1", db=db, metrics=METRICS)
    # where this box kept the client from its work, the verdict forbids the comparison
    assert versus.barred or [one for *_, one in versus.effects()] == found
    # A against itself, every other round against the rest: no more and no fewer alarms than the truth raises
    halves = [
        judge_family([effect(name, some[::2], some[1::2], paired=False) for name in METRICS])
        for some in (seen[0], sent[0])
    ]
    for ours, theirs in zip(*halves, strict=True):
        same_statement(ours, theirs)
