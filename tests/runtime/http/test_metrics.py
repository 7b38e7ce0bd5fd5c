from __future__ import annotations

from redline.observe.meanings import COUNTERS, GAUGES, TIMES
from redline.observe.metrics import quantile
from redline.observe.prometheus import parse
from redline.runtime.http.metrics import Metrics
from redline.runtime.stats import Stats

STATS = Stats(
    running=3, waiting=2, in_flight=1, kv_usage=0.25, kv_pages=100, kv_pages_kept=4, page_size=16, max_seqs=8,
    max_batched_tokens=64, prompt_tokens=70, generation_tokens=30, prefix_queries=70, prefix_hits=16, preemptions=1,
    spec_proposed=12, spec_accepted=[5, 2], faults=1, late_compiles=2, late_compile_s=1.25, late_captures=1,
)  # fmt: skip


def test_the_observer_reads_all_that_it_knows_by_vllms_names() -> None:
    metrics = Metrics('a "name"\\')
    for one in metrics.times.values():
        one.observe(0.25)
    metrics.ended["stop"] += 4
    metrics.ended["length"] += 1
    page = parse(metrics.render(STATS, []))
    expected = {
        "prompt_tokens": 70, "generation_tokens": 30, "prefix_queries": 70, "prefix_hits": 16, "preemptions": 1,
        "requests": 5, "draft_tokens": 12, "accepted_tokens": 7, "corrupted_requests": 1,
        "running": 3, "waiting": 2, "kv_usage": 0.25,
    }  # fmt: skip
    for name, value in expected.items():
        series = {**COUNTERS, **GAUGES}[name][0]
        assert page.total(series) == value, series
    assert set(expected) == {*COUNTERS, *GAUGES}
    own = [page.total(f"redline:late_{name}_total") for name in ("compiles", "compile_seconds", "captures")]
    assert own == [2, 1.25, 1]
    for families in TIMES.values():
        assert page.total(f"{families[0]}_count") == 1, families[0]
        assert page.total(f"{families[0]}_sum") == 0.25


def test_histograms_are_cumulative() -> None:
    metrics = Metrics("m")
    for value in (0.0005, 0.004, 0.004, 0.2, 1e6):
        metrics.times["itl"].observe(value)
    buckets = parse(metrics.render(None, [])).buckets("vllm:inter_token_latency_seconds")
    counts = list(buckets.values())
    assert counts == sorted(counts)
    assert counts[-1] == 5
    assert (buckets[0.001], buckets[0.005], buckets[0.2]) == (1, 3, 4)
    assert 3 <= (quantile(list(buckets.items()), 0.5) or 0) <= 5


def test_a_page_without_an_engine() -> None:
    page = parse(Metrics("m").render(None, [("redline:x", "gauge", "text", 1.5, {})]))
    assert page.total("redline:x") == 1.5
    assert page.total("vllm:num_requests_running") is None
