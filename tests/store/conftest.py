from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from redline.engines.endpoint import Endpoint
from redline.spec.load import LoadPoint
from redline.store.store import Store
from tests.store.recorded import EXPERIMENT


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "r.db") as opened:
        yield opened


@pytest.fixture
def point(store: Store) -> int:
    """A load point that has begun, of the run `last`."""
    run = store.begin_run(EXPERIMENT, {"cpu": {"model": "test"}}, ["redline", "compare"])
    trial = store.begin_trial(run, model="model", spec=EXPERIMENT.engines[0], repeat=0)
    store.trial_ready(trial, Endpoint("http://127.0.0.1:1/v1", "model", "vllm", "0.26.0"), {"model": "abc"})
    return store.begin_point(trial, LoadPoint("closed", 10))
