"""The APIs as real vLLM speaks them (the CPU build), on the bundled model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from redline.engines.endpoint import Endpoint
from redline.engines.engine import Start
from redline.engines.vllm import VllmEngine
from redline.load.prompts import prompt_source
from redline.load.record import RequestRecord, Status, TokenSource
from redline.load.run import run_point
from redline.spec.engine import EngineSpec
from redline.spec.load import LoadPoint, LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.workload import LengthSpec, WorkloadSpec

VLLM = Path(os.environ.get("REDLINE_VLLM_PYTHON") or Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; get it with `make vllm`"),
]


@contextmanager
def vllm(folder: Path, **flags: str) -> Iterator[Endpoint]:
    spec = EngineSpec(kind="vllm", python=str(VLLM), flags={"enforce-eager": True, **flags})
    model = ModelSpec(id="bundled:tiny", dtype="bfloat16")
    server = VllmEngine().start(Start(spec, model, folder, 1), lambda said: None)
    try:
        yield server.endpoint
    finally:
        server.stop()


def push(endpoint: Endpoint, work: WorkloadSpec, requests: int) -> list[RequestRecord]:
    records: list[RequestRecord] = []
    prompts = prompt_source(endpoint, work, seed=1, tokenizer_path=None, needed=requests)
    run_point(
        endpoint, work, LoadSpec(requests=requests, warmup_requests=2, duration_s=60), LoadPoint("closed", 4),
        seed=1, prompts=prompts, on_record=records.append,
    )  # fmt: skip
    return [record for record in records if not record.warmup]


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    with vllm(tmp_path_factory.mktemp("vllm")) as endpoint:
        yield endpoint


def work(api: str, **fields: object) -> WorkloadSpec:
    values: dict[str, object] = {"prompt_tokens": LengthSpec(mean=40), "output_tokens": LengthSpec(mean=12), **fields}
    return WorkloadSpec.model_validate({"api": api, **values})


@pytest.mark.parametrize("stream", [True, False])
def test_responses(generating: Endpoint, stream: bool) -> None:
    records = push(generating, work("responses", stream=stream), 12)
    assert [record.error for record in records if record.status is not Status.OK] == []
    for record in records:
        assert (record.prompt_tokens, record.asked_prompt_tokens) == (40, 40), "the second BOS is allowed for"
        assert (record.output_tokens, record.finish_reason) == (12, "length")
        assert record.token_source is TokenSource.USAGE
        assert sum(record.chunk_tokens) == 12
    assert max(len(record.chunk_ns) for record in records) > 1 or not stream


def test_embeddings(tmp_path: Path) -> None:
    with vllm(tmp_path, runner="pooling", convert="embed") as endpoint:
        both: list[Callable[[], WorkloadSpec]] = [
            lambda: work("embeddings", embedding_batch=3),
            lambda: work("embeddings", embedding_format="base64"),
        ]
        for make, tokens in zip(both, (120, 40), strict=True):
            records = push(endpoint, make(), 12)
            assert [record.error for record in records if record.status is not Status.OK] == []
            assert {(r.prompt_tokens, r.asked_prompt_tokens, r.output_tokens) for r in records} == {(tokens, tokens, 0)}
