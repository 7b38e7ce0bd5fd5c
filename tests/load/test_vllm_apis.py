"""The APIs as real vLLM speaks them (the CPU build), on a tiny model that also takes pictures."""

from __future__ import annotations

import json
import os
import statistics
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
from tests.load.tiny_vision import tiny_vision

VLLM = Path(os.environ.get("REDLINE_VLLM_PYTHON") or Path(__file__).parents[2] / ".venv-vllm" / "bin" / "python")

pytestmark = [
    pytest.mark.vllm,
    pytest.mark.timeout(300),
    pytest.mark.skipif(not VLLM.exists(), reason=f"no vLLM at {VLLM}; get it with `make vllm`"),
]


@contextmanager
def vllm(folder: Path, model: ModelSpec, **flags: str) -> Iterator[Endpoint]:
    spec = EngineSpec(kind="vllm", python=str(VLLM), flags={"enforce-eager": True, **flags})
    server = VllmEngine().start(Start(spec, model, folder, 1), lambda said: None)
    try:
        yield server.endpoint
    finally:
        server.stop()


def push(endpoint: Endpoint, work: WorkloadSpec, requests: int, point: LoadPoint | None = None) -> list[RequestRecord]:
    records: list[RequestRecord] = []
    prompts = prompt_source(endpoint, work, seed=1, tokenizer_path=None, needed=requests)
    load = LoadSpec(requests=requests, warmup_requests=2, duration_s=60)
    run_point(endpoint, work, load, point or LoadPoint("closed", 4), seed=1, prompts=prompts, on_record=records.append)
    return [record for record in records if not record.warmup]


def all_good(records: list[RequestRecord]) -> list[RequestRecord]:
    assert [record.error for record in records if record.status is not Status.OK] == []
    return records


@pytest.fixture(scope="module")
def generating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    """One server for all that generates, text alone and with pictures: vLLM takes most of a minute to start."""
    folder = tmp_path_factory.mktemp("vllm")
    flags = {"scheduling-policy": "priority", "max-num-seqs": "4", "max-model-len": "512"}
    model = ModelSpec(id=str(tiny_vision(folder / "model")), dtype="bfloat16", random_weights=True)
    with vllm(folder, model, **flags) as endpoint:
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


def test_a_model_that_sees_is_asked_about_pictures(generating: Endpoint) -> None:
    """What pictures cost is learnt from its usage, so that prompts are as long as asked with them, too."""
    asked = work("chat", images_per_request=2, image_width=64, image_height=48)
    prompts = prompt_source(generating, asked, seed=1, tokenizer_path=None, needed=12)
    told = next(note for note in prompts.notes if "a picture costs" in note)
    cost = int(told.split()[3])
    assert cost >= 5 * 4, told
    records = all_good(push(generating, asked, 12))
    assert {(one.prompt_tokens, one.asked_prompt_tokens) for one in records} == {(40 + 2 * cost, 40 + 2 * cost)}
    assert {one.output_tokens for one in records} == {12}


def test_who_has_priority_is_served_first(generating: Endpoint) -> None:
    """Four times as many clients as places, and it is vLLM that chooses among those who wait."""
    classes = [{"name": "later", "weight": 3, "priority": 9}, {"name": "now", "weight": 1, "priority": 0}]
    records = all_good(push(generating, work("completions", classes=classes), 80, LoadPoint("closed", 16)))
    waited = {
        name: statistics.median(one.chunk_ns[0] - one.sent_ns for one in records if one.request_class == name)
        for name in ("now", "later")
    }
    assert waited["now"] < 0.7 * waited["later"]


RECORDED = {
    "jsonl": [{"prompt": "the list of names", "output_tokens": 5}, {"prompt": "a module that", "output_tokens": 9}],
    "trace": [
        {"timestamp": 150 * i, "input_length": 24 + i, "output_length": 5 + i, "hash_ids": [i]} for i in range(8)
    ],
}


@pytest.mark.parametrize("kind", RECORDED)
def test_what_was_recorded_is_replayed(generating: Endpoint, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "recorded.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in RECORDED[kind]))
    asked = WorkloadSpec.model_validate({"kind": kind, "path": str(path)})
    point = LoadPoint("trace", 1.0) if kind == "trace" else None
    records = all_good(push(generating, asked, 8, point))
    assert len(records) == 8
    told = {5, 9} if kind == "jsonl" else set(range(5, 13))
    assert {record.output_tokens for record in records} == told
    assert all(record.prompt_tokens == record.asked_prompt_tokens for record in records)


def test_sharegpt_conversations_are_replayed(generating: Endpoint, tmp_path: Path) -> None:
    path = tmp_path / "sharegpt.json"
    asked = [{"from": "human", "value": "what does getattr do"}, {"from": "gpt", "value": "it looks up a name"}]
    path.write_text(json.dumps([{"id": str(i), "conversations": asked} for i in range(6)]))
    made = WorkloadSpec.model_validate({"kind": "sharegpt", "path": str(path), "api": "chat"})
    records = all_good(push(generating, made, 6))
    assert len({record.output_tokens for record in records}) == 1, "as long as the recorded answer"
    assert {record.token_source for record in records} == {TokenSource.USAGE}


def test_embeddings(tmp_path: Path) -> None:
    with vllm(tmp_path, ModelSpec(id="bundled:tiny", dtype="bfloat16"), runner="pooling", convert="embed") as endpoint:
        both: list[Callable[[], WorkloadSpec]] = [
            lambda: work("embeddings", embedding_batch=3),
            lambda: work("embeddings", embedding_format="base64"),
        ]
        for make, tokens in zip(both, (120, 40), strict=True):
            records = push(endpoint, make(), 12)
            assert [record.error for record in records if record.status is not Status.OK] == []
            assert {(r.prompt_tokens, r.asked_prompt_tokens, r.output_tokens) for r in records} == {(tokens, tokens, 0)}
