from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from redline.errors import SpecError
from redline.spec.load_file import loads_experiment
from redline.spec.workload import WorkloadSpec


@pytest.mark.parametrize(
    ("written", "kept", "share", "salted"),
    [("cold", "cold", 0, True), ("natural", "natural", 0, False), ("warm:50", "warm:50%", 0.5, True),
     ("warm:12.5%", "warm:12.5%", 0.125, True)],
)  # fmt: skip
def test_cache_states(written: str, kept: str, share: float, salted: bool) -> None:
    spec = WorkloadSpec(cache=written)
    assert (spec.cache, spec.warm_share, spec.salted) == (kept, share, salted)
    assert WorkloadSpec(**spec.model_dump()) == spec


@pytest.mark.parametrize("written", ["hot", "warm", "warm:0", "warm:100%", "warm:-3", "warm:x%", ""])
def test_what_is_no_cache_state(written: str) -> None:
    with pytest.raises(ValidationError, match="none of cold, natural, warm:X%"):
        WorkloadSpec(cache=written)


def test_warm_goes_with_prompts_of_its_own_only() -> None:
    with pytest.raises(ValidationError, match="not with a shared prefix"):
        WorkloadSpec(cache="warm:50", shared_prefix_tokens=10)
    with pytest.raises(ValidationError, match="not with workload kind jsonl"):
        WorkloadSpec(cache="warm:50", kind="jsonl", path="x")


@pytest.mark.parametrize("kind", ["text", "jsonl", "sharegpt", "hub", "trace"])
def test_prompts_of_a_file_have_no_shared_prefix_and_nobody_is_left_to_believe_so(kind: str) -> None:
    with pytest.raises(ValidationError, match=f"kind {kind} are sent as they are"):
        WorkloadSpec(kind=kind, path="x", shared_prefix_tokens=64)
    if kind == "trace":
        return  # which is no class
    mixed: dict[str, Any] = {
        "shared_prefix_tokens": 64,
        "classes": [{"name": "a"}, {"name": "b", "kind": kind, "path": "x"}],
    }
    with pytest.raises(ValidationError, match="class b: prompts of workload kind"):
        WorkloadSpec(**mixed)
    mixed["classes"][1]["shared_prefix_tokens"] = 0
    assert WorkloadSpec(**mixed).parts["a"].shared_prefix_tokens == 64


def test_a_file_from_before_says_salt() -> None:
    for word, kept in (("off", "natural"), ("false", "natural"), ("true", "cold")):
        experiment = loads_experiment(f"model: x\nengines: vllm\nworkload: {{salt: {word}}}\n")
        assert experiment.workload.cache == kept


def test_a_wrong_state_is_told_with_its_line() -> None:
    with pytest.raises(SpecError, match="none of cold") as caught:
        loads_experiment("model: x\nengines: vllm\nworkload:\n  cache: hot\n")
    assert caught.value.line == 4
