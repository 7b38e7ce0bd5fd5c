"""A prefix cache that answers is seen, by usage, by counters, and by both; declared states hold what they say."""

from __future__ import annotations

from typing import Any

import pytest

from redline.load.paced.cache import PrefixCache
from redline.load.paced.pace import Pace
from redline.load.paced.server import PacedServer
from redline.load.prompts import PromptSource, prompt_source
from redline.observe.metrics import ServerWatch
from redline.spec.workload import LengthSpec, WorkloadSpec
from tests.load.columns import reasons, verdict
from tests.load.servers import Result, closed, push

CACHING: dict[str, Any] = {"ttft_ms": 20, "itl_ms": 1, "prefix_cache": True, "metrics": True}


def work(**changes: Any) -> WorkloadSpec:
    values: dict[str, Any] = {
        "prompt_tokens": LengthSpec(mean=128), "output_tokens": LengthSpec(mean=4), "canary_share": 0, **changes,
    }  # fmt: skip
    return WorkloadSpec(**values)


def source(server: PacedServer, spec: WorkloadSpec, salt_key: str = "") -> PromptSource:
    return prompt_source(server.endpoint, spec, seed=1, tokenizer_path=None, needed=64, salt_key=salt_key)


def watched(server: PacedServer, spec: WorkloadSpec, clients: int = 4, **more: Any) -> tuple[Result, dict[str, Any]]:
    with ServerWatch(server.endpoint.metrics_url, lambda _: None) as watch:
        result = push(server, closed(clients), requests=40, work=spec, before_measuring=watch.mark, **more)
    return result, watch.as_dict()


def test_blocks_count_whole_and_only_once_they_are_computed() -> None:
    cache = PrefixCache(4)
    ids = list(range(10))
    assert cache.look_up(ids, 0) == 0
    cache.keep(ids, 100)
    assert cache.look_up(ids, 99) == 0
    assert cache.look_up(ids, 100) == 8
    assert cache.look_up(ids[:8], 100) == 4  # the last token is always computed
    assert cache.look_up([7, *ids[1:]], 100) == 0  # the same blocks behind another start
    assert cache.look_up([*ids[:5], 99, *ids[6:]], 100) == 4
    assert (cache.queries, cache.hits) == (10 * 5 + 8, 16)


def test_a_full_cache_forgets_what_was_used_longest_ago() -> None:
    cache = PrefixCache(2, blocks=2)
    for ids in ([1, 1, 0], [2, 2, 0], [3, 3, 0]):
        cache.keep(ids, 0)
    assert [cache.look_up(ids, 1) for ids in ([1, 1, 0], [2, 2, 0], [3, 3, 0])] == [0, 2, 2]


def test_cold_is_cold_at_every_point_of_a_server() -> None:
    with PacedServer(Pace(**CACHING)) as server:
        prompts = source(server, work())
        for seed, clients in ((1, 2), (2, 8)):
            result, told = watched(server, work(), clients, prompts=prompts, seed=seed)
            assert sum(record.cached_tokens for record in result.measured) == 0
            assert told["counters"]["prefix_hits"] == 0
            assert told["counters"]["prefix_queries"] == 40 * 128
            assert reasons(verdict(result, server=told), "cache") == []


def test_another_run_on_the_same_server_is_cold_too() -> None:
    with PacedServer(Pace(**CACHING)) as server:
        for run in ("run-1", "run-2"):
            _, told = watched(server, work(), prompts=source(server, work(), run))
            assert told["counters"]["prefix_hits"] == 0


@pytest.mark.parametrize("witness", ["usage", "counters", "both"])
def test_prompts_that_were_sent_before_make_the_point_invalid(witness: str) -> None:
    """vLLM 52884: the second run of one benchmark, with the same seed, is answered from the cache."""
    with PacedServer(Pace(**{**CACHING, "cached_usage": witness != "counters", "prefill_share": 0.9})) as server:
        first, _ = watched(server, work(), prompts=source(server, work()))
        again, told = watched(server, work(), prompts=source(server, work()))
    said = verdict(again, server={} if witness == "usage" else told)
    ((level, text),) = reasons(said, "cache")
    assert (level, said.state) == ("invalid", "invalid")
    assert "declared cold, and 88%" in text
    assert ("counters" in text) == (witness == "counters")

    def quickest(result: Result) -> int:
        return min(record.chunk_ns[0] - record.sent_ns for record in result.measured)

    assert quickest(again) < 0.7 * quickest(first)  # it would have been believed to be faster


def test_a_sweep_that_sends_the_same_prompts_at_every_point_is_flagged_where_it_is_contaminated() -> None:
    """vLLM 54227: a growing number of requests per point, each point beginning with those of the one before."""
    shares = []
    with PacedServer(Pace(**CACHING)) as server:
        prompts = source(server, work())
        for requests in (20, 30, 60):
            with ServerWatch(server.endpoint.metrics_url, lambda _: None) as watch:
                result = push(
                    server, closed(4), requests=requests, work=work(), prompts=prompts, before_measuring=watch.mark
                )
            said = reasons(verdict(result, server=watch.as_dict()), "cache")
            shares.append((said[0][0] if said else "", sum(record.cached_tokens > 0 for record in result.measured)))
    assert shares == [("", 0), ("invalid", 20), ("invalid", 30)]


@pytest.mark.parametrize("stddev", [0, 30])
def test_warm_is_as_warm_as_declared(stddev: int) -> None:
    spec = work(cache="warm:50%", prompt_tokens=LengthSpec(mean=160, stddev=stddev, min=80, max=240))
    with PacedServer(Pace(**CACHING)) as server:
        result, told = watched(server, spec)
    share = sum(r.cached_tokens for r in result.measured) / sum(r.prompt_tokens for r in result.measured)
    assert 0.35 < share <= 0.5
    assert reasons(verdict(result, server=told), "cache") == []


def test_warm_without_a_cache_is_invalid_and_without_a_witness_degraded() -> None:
    spec = work(cache="warm:50%")
    with PacedServer(Pace(**{**CACHING, "prefix_cache": False})) as server:
        result, told = watched(server, spec)
    ((level, text),) = reasons(verdict(result), "cache")
    assert level == "invalid"
    assert "declared warm:50%, and 0%" in text
    with PacedServer(Pace(ttft_ms=20, itl_ms=1, cached_usage=False)) as server:
        result, told = watched(server, spec)
    ((level, text),) = reasons(verdict(result, server=told), "cache")
    assert level == "degraded"
    assert "nothing proves it" in text


def test_natural_is_whatever_it_is() -> None:
    spec = work(cache="natural")
    with PacedServer(Pace(**CACHING)) as server:
        for _ in range(2):
            result, told = watched(server, spec, prompts=source(server, spec))
    assert told["counters"]["prefix_hits"] > 0
    assert reasons(verdict(result, server=told), "cache") == []


def test_a_declared_shared_prefix_is_no_contamination() -> None:
    spec = work(shared_prefix_tokens=64)
    with PacedServer(Pace(**CACHING)) as server:
        result, told = watched(server, spec)
    assert told["counters"]["prefix_hits"] == 40 * 64
    assert reasons(verdict(result, server=told), "cache") == []


def test_somebody_elses_tokens_are_told() -> None:
    with PacedServer(Pace(ttft_ms=5, itl_ms=1, metrics=True, foreign_tokens=2)) as server:
        result, told = watched(server, work())
    ((level, text),) = reasons(verdict(result, server=told), "generated tokens")
    assert level == "degraded"
    assert "somebody else loads this server" in text
    with PacedServer(Pace(ttft_ms=5, itl_ms=1, metrics=True)) as server:
        result, told = watched(server, work())
    assert reasons(verdict(result, server=told), "generated tokens") == []
