from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import PydanticCustomError

from redline.errors import SpecError
from redline.spec.overrides import experiment_from
from redline.spec.threshold import METRICS, Threshold, parse_threshold


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("ttft_ms.p99 < 500", Threshold("ttft_ms.p99 < 500", "ttft_ms.p99", "<", 500)),
        ("output_tokens_per_s > 1000 @ 8 clients",
         Threshold("output_tokens_per_s > 1000 @ 8 clients", "output_tokens_per_s", ">", 1000, 8, "clients")),
        ("failed_share<=1%", Threshold("failed_share<=1%", "failed_share", "<", 0.01)),
        (" ratio.itl_ms.p50 <  1.05 @2.5 req/s on vllm fast",
         Threshold("ratio.itl_ms.p50 < 1.05 @2.5 req/s on vllm fast", "ratio.itl_ms.p50", "<", 1.05, 2.5, "req/s",
                   "vllm fast")),
        ("e2e_ms.sent.p50 < 1e3 @ 4", Threshold("e2e_ms.sent.p50 < 1e3 @ 4", "e2e_ms.sent.p50", "<", 1000, 4)),
    ],
)  # fmt: skip
def test_what_is_written_is_what_is_meant(text: str, wanted: Threshold) -> None:
    assert parse_threshold(text) == wanted


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("ttft_ms.p98 < 3", "no metric 'ttft_ms.p98'", "did you mean 'ttft_ms.p99'"),
        ("ttft_ms < 3", "no metric 'ttft_ms'", "say which percentile"),
        ("throughput > 3", "no metric 'throughput'", "redline's names"),
        ("failed_share == 0", "is no threshold", "never exactly equal"),
        ("ttft_ms.p99 < fast", "is no threshold", "such as"),
        ("ttft_ms.p99 < 5 %", "only a share is a percentage", "ttft_ms.p99 < 5"),
        ("fast please", "is no threshold", "such as"),
    ],
)
def test_what_is_wrong_is_said(text: str, what: str, fix: str) -> None:
    with pytest.raises(SpecError) as caught:
        experiment_from(None, {"model": ["x"], "engines": "vllm", "threshold": ["ttft_ms.p50 < 1", text]})
    assert what in str(caught.value)
    assert fix in str(caught.value)
    assert caught.value.field == "thresholds[1]"


@given(st.text(max_size=40))
def test_any_text_is_a_threshold_or_a_fault(text: str) -> None:
    try:
        found: Threshold | PydanticCustomError = parse_threshold(text)
    except PydanticCustomError as error:
        found = error
    assert found.metric in METRICS if isinstance(found, Threshold) else (found.context or {})["fix"]


@given(st.sampled_from(METRICS), st.sampled_from("<>"), st.floats(0, 1e9), st.none() | st.integers(1, 999))
def test_reading_what_was_kept_gives_the_same(metric: str, sign: str, limit: float, load: int | None) -> None:
    first = parse_threshold(f"{metric} {sign} {limit!r}" + ("" if load is None else f" @ {load} clients"))
    assert parse_threshold(first.text) == first
    assert first.applies("closed", load or 5, "any")
    assert first.applies("poisson", load or 5, "any") is (load is None)
    assert not Threshold("", metric, "<", limit, engine="x").applies("closed", 5, "y")
