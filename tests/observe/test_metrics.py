from __future__ import annotations

import math

import pytest

from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.observe.metrics import ServerWatch, compared, quantile, samples
from redline.observe.prometheus import parse
from redline.observe.sample import Sample
from tests.load.servers import closed, push, workload


def test_a_load_point_by_the_servers_own_account() -> None:
    kept: list[Sample] = []
    with PacedServer(Pace(ttft_ms=40, itl_ms=20, metrics=True, prefix_cache=True)) as server:
        watch = ServerWatch(server.endpoint.metrics_url, kept.extend, interval_s=0.1)
        with watch:
            result = push(server, closed(4), requests=24, work=workload(canary_share=0), before_measuring=watch.mark)
    told = watch.as_dict()
    assert told["counters"]["generation_tokens"] == sum(record.output_tokens for record in result.measured)
    assert told["counters"]["prompt_tokens"] == sum(record.prompt_tokens for record in result.measured)
    assert told["counters"]["requests"] == 24
    assert told["times"]["ttft"]["count"] == 24
    assert 35 < told["times"]["ttft"]["mean_ms"] < 200
    assert told["gauges"]["running"]["max"] == 4
    assert told["scrape"]["failed"] == 0
    assert told["scrape"]["count"] >= 4
    assert told["scrape"]["p50_ms"] > 0
    running = [sample for sample in kept if sample.name == "server.vllm:num_requests_running"]
    assert len(running) > 2
    assert running[0].labels["engine"] == "0"
    assert not any("bucket" in sample.name for sample in kept)


def test_no_metrics_is_a_note() -> None:
    with ServerWatch(None, lambda _: None) as watch:
        watch.mark()
    assert "no /metrics" in watch.as_dict()["note"]


def test_metrics_that_go_away_are_a_note() -> None:
    with PacedServer(Pace()) as server, ServerWatch(f"http://127.0.0.1:{server.port}/metrics", lambda _: None) as watch:
        watch.mark()
    told = watch.as_dict()
    assert told["note"]
    assert told["scrape"]["failed"] >= 2


def test_counters_that_go_backwards_tell_of_a_restart() -> None:
    before, after = (parse(f"vllm:generation_tokens_total {n}\n") for n in (50, 3))
    told = compared(before, after)
    assert "generation_tokens" not in told["counters"]
    assert "started anew" in told["note"]


def test_what_is_sampled() -> None:
    text = "# TYPE a gauge\na 1\n# TYPE b counter\nb_total 2\nb_created 9\n# TYPE h histogram\nh_sum 3\n"
    text += "# TYPE process_cpu gauge\nprocess_cpu 1\n# TYPE n gauge\nn NaN\n"
    assert [sample.name for sample in samples(parse(text), 1)] == ["server.a", "server.b_total"]


@pytest.mark.parametrize(("level", "wanted"), [(0.5, 150.0), (0.25, 100.0), (0.9, None), (0.75, 200.0)])
def test_quantile_of_buckets(level: float, wanted: float | None) -> None:
    found = quantile([(0.1, 1.0), (0.2, 3.0), (math.inf, 4.0)], level)
    assert found is wanted if wanted is None else found == pytest.approx(wanted)
