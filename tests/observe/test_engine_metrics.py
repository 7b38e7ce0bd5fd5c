from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import pytest

from redline.errors import Skipped
from redline.observe.engine_metrics import MetricsSampler
from redline.observe.prometheus import Parser, parse
from redline.runtime.http.metrics import Metrics
from tests.runtime.http.test_metrics import STATS


@contextmanager
def pages(*texts: str | int) -> Iterator[tuple[str, list[str]]]:
    """A server that gives one page after the other, the last for ever. A number is an HTTP status without a page."""
    left, keys = list(texts), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            keys.append(self.headers.get("Authorization", ""))
            text = left.pop(0) if len(left) > 1 else left[0]
            self.send_response(text if isinstance(text, int) else 200)
            self.end_headers()
            self.wfile.write(b"" if isinstance(text, int) else text.encode())

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/metrics", keys
    server.shutdown()
    server.server_close()
    thread.join()


def looks(*texts: str | int) -> tuple[list[dict[str, float]], list[str]]:
    with pages(*texts) as (url, _):
        sampler = MetricsSampler(url, {})
        found = []
        for _ in texts:
            found.append({one.name + "".join(one.labels.values()): one.value for one in sampler.read()})
            time.sleep(0.05)
    return found, sampler.notes


def page(prefix: str = "vllm", tokens: int = 0, hits: int = 0, queries: int = 0, fast: int = 0, slow: int = 0) -> str:
    return f"""# TYPE {prefix}:num_requests_running gauge
{prefix}:num_requests_running{{engine="0"}} 3
# TYPE {prefix}:kv_cache_usage_perc gauge
{prefix}:kv_cache_usage_perc 0.25
# TYPE {prefix}:generation_tokens counter
{prefix}:generation_tokens_total {tokens}
# TYPE {prefix}:prefix_cache_queries counter
{prefix}:prefix_cache_queries_total {queries}
# TYPE {prefix}:prefix_cache_hits counter
{prefix}:prefix_cache_hits_total {hits}
# TYPE {prefix}:request_queue_time_seconds histogram
{prefix}:request_queue_time_seconds_bucket{{le="0.1"}} {fast}
{prefix}:request_queue_time_seconds_bucket{{le="0.2"}} {fast + slow}
{prefix}:request_queue_time_seconds_bucket{{le="+Inf"}} {fast + slow}
{prefix}:request_queue_time_seconds_count {fast + slow}
{prefix}:request_queue_time_seconds_sum {fast * 0.05 + slow * 0.15}
"""


def test_counters_become_rates_shares_and_histograms_of_what_came_since() -> None:
    first, second = looks(page(tokens=500, hits=10, queries=20, fast=90), page("vllm", 520, 13, 24, 90, 2))[0]
    assert first["engine.requests_running"] == 3
    assert first["engine.kv_usage_share"] == 0.25
    assert "engine.generation_tokens_per_s" not in first
    assert 50 < second["engine.generation_tokens_per_s"] < 400
    assert second["engine.prefix_hit_share"] == 0.75
    assert second["engine.queue_msmean"] == pytest.approx(150)
    assert second["engine.queue_msp50"] == pytest.approx(150)
    assert second["engine.queue_msp90"] == pytest.approx(190)
    assert second["engine.scrape_ms"] > 0


def test_a_quantile_in_the_first_bucket_is_not_made_up() -> None:
    second = looks(page(), page(fast=9, slow=1))[0][1]
    assert second["engine.queue_msmean"] == pytest.approx(60)
    assert "engine.queue_msp50" not in second


def test_what_an_engine_calls_otherwise_is_kept_under_its_name() -> None:
    (found,), _ = looks(page("newengine", tokens=7))
    assert found["server.newengine:generation_tokens_total"] == 7
    assert not [name for name in found if name.startswith("engine.") and name != "engine.scrape_ms"]


def test_the_runtime_is_understood() -> None:
    text = Metrics("m").render(STATS, [])
    assert looks(text)[0][0]["engine.kv_usage_share"] == 0.25


def test_a_counter_that_goes_backwards_leaves_the_interval_out_and_is_said_once() -> None:
    found, notes = looks(page(tokens=50, queries=9), page(tokens=3, queries=1), page(tokens=5, queries=2))
    assert "engine.generation_tokens_per_s" not in found[1]
    assert "engine.prefix_hit_share" not in found[1]
    assert found[2]["engine.generation_tokens_per_s"] > 0
    assert notes == ["metrics: counters went backwards: the engine was started anew"]


def test_a_server_that_stops_to_answer_is_said_once_and_asked_again() -> None:
    found, notes = looks(page(), 503, 503, 503, 503, page())
    assert found[1] == {}
    assert found[5]["engine.requests_running"] == 3
    assert len(notes) == 1
    assert "answers HTTP 503" in notes[0]


def test_the_key_goes_along_and_no_metrics_is_skipped() -> None:
    with pages("a 1\n") as (url, keys):
        MetricsSampler(url, {"Authorization": "Bearer x"}).read()
    assert keys == ["Bearer x"]
    assert isinstance(MetricsSampler.open(None, {}), Skipped)


def test_a_parser_that_knows_the_page_reads_it_like_one_that_does_not() -> None:
    odd = 'a{b="x y"} 1\nc 2 1700000000\nd 3 # {id="1"} 4\ne{f="}"} NaN\ng +Inf\nbroken\n# TYPE a gauge\na 5\n'
    parser = Parser()
    parser.parse(odd)
    for text in (odd, odd.replace(" 1\n", " 7\n"), page()):
        known, fresh = parser.parse(text), parse(text)
        assert [str(one) for one in known.series] == [str(one) for one in fresh.series]
        assert known.broken == fresh.broken


def test_of_several_engines_requests_add_up_and_shares_do_not() -> None:
    """A data-parallel vLLM has a series of each gauge for each engine."""
    text = "".join(
        f'vllm:num_requests_running{{engine="{rank}"}} {rank + 1}\n'
        f'vllm:kv_cache_usage_perc{{engine="{rank}"}} {share}\n'
        for rank, share in enumerate((0.9, 0.5))
    )
    (found,), _ = looks(text)
    assert found["engine.requests_running"] == 3
    assert found["engine.kv_usage_share"] == pytest.approx(0.7)
