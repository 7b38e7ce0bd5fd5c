"""Whatever a server packs into a chunk and whoever counts it, tokens and their times come out as they were."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from redline.analyse.summary import PointSummary, summarise_point
from redline.load.paced.server import PacedServer
from redline.load.record import RequestRecord, TokenSource
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.model import ModelSpec
from redline.store.store import Store
from tests.load.servers import Result, closed, fast, push, workload

MIXES = ["1", "3", "1,2,3,4,5", "5,1,1,2"]


def run(pace: dict[str, Any], **work: Any) -> tuple[list[RequestRecord], dict[int, list[int]], Result]:
    with PacedServer(fast(**pace)) as server:
        result = push(server, closed(4), work=workload(**work), requests=20)
        truth = {int(one.id.rpartition("-")[2]): one.tokens for one in server.truth() if one.id}
    return result.measured, truth, result


@pytest.mark.parametrize("usage", ["continuous", "final", "none"])
@pytest.mark.parametrize("mix", MIXES)
def test_tokens_of_every_chunk_are_the_true_ones(mix: str, usage: str) -> None:
    """By the usage of each event, or by a tokenizer. With a total alone, and no tokenizer that may be asked while the
    server is measured, they are spread by the length of their texts: the sum holds, a chunk may be off by a token."""
    records, truth, _ = run({"chunk_mix": mix, "usage": usage})
    for record in records:
        assert record.output_tokens == 8
        off = [abs(got - true) for got, true in zip(record.chunk_tokens, truth[record.index], strict=True)]
        assert max(off) <= (usage == "final")
        assert sum(record.chunk_tokens) == 8
    expected = TokenSource.USAGE if usage != "none" else TokenSource.SERVER_TOKENIZER
    assert {record.token_source for record in records} == {expected}


def test_without_any_count_the_guess_is_marked_as_one() -> None:
    records, truth, _ = run({"chunk_mix": "1,3", "usage": "none", "tokenizer": False})
    assert {record.token_source for record in records} == {TokenSource.CHUNKS}
    assert {record.output_tokens for record in records} == {len(truth[records[0].index])}


def test_tpot_counts_tokens_and_not_chunks() -> None:
    """8 tokens in chunks of 1, 2, 5: the last seven take two gaps between chunks."""
    records, _, _ = run({"chunk_mix": "1,2,5", "itl_ms": 20.0})
    tpot = [(r.chunk_ns[-1] - r.chunk_ns[0]) / 1e6 / (r.output_tokens - r.chunk_tokens[0]) for r in records]
    assert np.median(tpot) == pytest.approx(2 * 20 / 7, rel=0.2)


def judged(result: Result, tmp_path: Any, *, exact: bool) -> PointSummary:
    """The verdict as a run has it, by way of the store."""
    return summarise_point(
        stored(result, tmp_path),
        window_hint=(result.outcome.measured_from_ns, result.outcome.ended_ns),
        slo={}, attainment=0.95, outcome=result.outcome.as_dict(), seed=1, run_id="r", exact_output=exact,
    )  # fmt: skip


def stored(result: Result, tmp_path: Any) -> Any:
    spec = EngineSpec(kind="vllm")
    experiment = Experiment(models=[ModelSpec(id="m")], engines=[spec], load=LoadSpec())
    with Store.open(tmp_path / "r.db") as store:
        run_id = store.begin_run(experiment, {}, [])
        trial = store.begin_trial(run_id, model="m", spec=spec, repeat=0)
        point = store.begin_point(trial, LoadPoint("closed", 4))
        for record in result.records:
            store.add_request(point, record)
        store.flush()
        return store.requests(point)


@pytest.mark.parametrize("exact", [True, False])
def test_a_setting_that_makes_every_answer_one_token_fails_loudly(tmp_path: Any, exact: bool) -> None:
    """Published as throughput elsewhere: a combination of flags ended every reply after one token."""
    records, _, result = run({"most_tokens": 1}, ignore_eos=exact)
    assert {(record.output_tokens, record.asked_output_tokens) for record in records} == {(1, 8)}
    verdict = judged(result, tmp_path, exact=exact).verdict
    assert verdict.state == "invalid"
    said = "output length not as asked in 100%" if exact else "100% of the answers are one token long"
    assert any(said in reason for reason in verdict.reasons), verdict.reasons


def test_the_histogram_is_that_of_the_server(tmp_path: Any) -> None:
    records, truth, result = run({"chunk_mix": "1,2,5"})
    wanted = Counter(size for record in records for size in truth[record.index])
    assert judged(result, tmp_path, exact=True).tokens_per_chunk == dict(sorted(wanted.items()))


def test_what_the_template_adds_is_known() -> None:
    chat = run({}, api="chat")[2].outcome.prompt_overhead
    plain = run({})[2].outcome.prompt_overhead
    assert plain == {"": 1}
    assert chat[""] > 5
