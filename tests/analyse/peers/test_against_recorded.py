"""Oracle: what each tool wrote about a real run against the paced server, requests and summary, in `data/`.

The files are the tools' own, cut down to what is compared; texts and configurations are left out. Every number that we
recompute from the requests must be the one in the tool's summary.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from redline.analyse.peers.answers import Beside
from redline.analyse.peers.tools import TOOLS, recompute
from redline.store.from_records import columns_of
from redline.store.imports.files import read_file

DATA = Path(__file__).parent / "data"
FILES = {
    "vllm": "vllm-0.30.0.json",
    "guidellm": "guidellm-0.8.1.json",
    "aiperf": "aiperf",
    "sglang": "sglang-0.5.23.jsonl",
    "inference-perf": "inference-perf",
}
COMPARED = {"vllm": 30, "guidellm": 90, "aiperf": 80, "sglang": 24, "inference-perf": 50}
"""At least so many numbers; most are compared exactly, none may be off by a percent."""

NOT_IN_FILE = {"sglang": ("throughput", "max_output", "max_concurrent", "concurrency", "duration")}
"""SGLang's file does not say when a request was sent."""


def test_every_tool_is_recorded() -> None:
    assert set(FILES) == set(TOOLS)


@pytest.mark.parametrize("tool", TOOLS)
def test_recomputed_summary_is_the_tools_own(tool: str) -> None:
    point = read_file(DATA / FILES[tool])[0]
    beside = Beside(point.began_ns, point.ended_ns, closing_events=point.closing_events)
    ours = dict(_flat(recompute(tool, columns_of(point.records), beside).as_dict()))
    theirs = dict(_flat(point.summary))
    both = [key for key in ours if key in theirs and not any(word in key for word in NOT_IN_FILE.get(tool, ()))]
    assert len(both) >= COMPARED[tool]
    for key in both:
        assert ours[key] == pytest.approx(theirs[key], rel=0.01, abs=1e-9), key
    exact = [key for key in both if ours[key] == pytest.approx(theirs[key], rel=2e-4)]
    assert len(exact) > 0.9 * len(both)


def test_recomputation_is_sensitive_to_the_definition() -> None:
    """The same requests have another TPOT for GuideLLM than for vLLM: TTFT is in it."""
    point = read_file(DATA / FILES["guidellm"])[0]
    columns = columns_of(point.records)
    theirs = recompute("guidellm", columns).value("time_per_output_token_ms.successful.mean")
    assert theirs > 1.3 * recompute("vllm", columns).value("mean_tpot_ms")


def _flat(value: dict[str, Any], path: str = "") -> Iterator[tuple[str, float]]:
    for key, inner in value.items():
        if isinstance(inner, dict):
            yield from _flat(inner, f"{path}{key}.")
        elif isinstance(inner, (int, float)) and not isinstance(inner, bool):
            yield path + key, float(inner)
