"""Classes of requests with priorities against our own engine: it is the server that chooses among those who wait."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import redline
from redline.engines.endpoint import Endpoint
from redline.load.prompts import prompt_source
from redline.load.record import RequestRecord, Status
from redline.load.run import run_point
from redline.spec.engine import EngineSpec
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.workload import LengthSpec, WorkloadSpec

pytest.importorskip("torch")
pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """Four places; 40 + 24 tokens take one of them for some tens of milliseconds."""
    engine = EngineSpec(kind="redline", flags={"max-num-seqs": 4, "threads": 1})
    folder: Path = tmp_path_factory.mktemp("engine")
    with redline.serve(ModelSpec(id="bundled:tiny"), engine, artifacts=folder) as served:
        yield served.endpoint


def waited(endpoint: Endpoint, **priorities: int) -> dict[str, float]:
    """Median time to first token by class, in ms: four times as many clients as places, a quarter of them `now`."""
    classes: list[dict[str, Any]] = [
        {"name": name, "weight": weight, "priority": priorities.get(name, 0)}
        for name, weight in (("later", 3), ("now", 1))
    ]
    asked = WorkloadSpec.model_validate(
        {"prompt_tokens": LengthSpec(mean=40), "output_tokens": LengthSpec(mean=24), "classes": classes}
    )
    records: list[RequestRecord] = []
    prompts = prompt_source(endpoint, asked, seed=1, tokenizer_path=None, needed=96)
    load = LoadSpec(requests=96, warmup_requests=2, duration_s=60)
    run_point(endpoint, asked, load, LoadPoint("closed", 16), seed=1, prompts=prompts, on_record=records.append)
    measured = [one for one in records if not one.warmup]
    assert {one.status for one in measured} == {Status.OK}
    return {
        name: statistics.median((one.chunk_ns[0] - one.sent_ns) / 1e6 for one in measured if one.request_class == name)
        for name in ("now", "later")
    }


def test_who_has_priority_is_served_first(endpoint: Endpoint) -> None:
    first = waited(endpoint, later=9)
    assert first["now"] < 0.7 * first["later"]


def test_without_priorities_all_wait_alike(endpoint: Endpoint) -> None:
    alike = waited(endpoint)
    assert 0.7 < alike["now"] / alike["later"] < 1.4
