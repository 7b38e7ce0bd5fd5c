"""The search against servers whose knee and whose limit are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.analyse.search import Bounds, Decision, Seen, Step, Stop, edge, fit_knee, kept, next_for_knee, next_for_slo

Curve = Callable[[float], float]


def hard_limit(slots: float, per_client: float = 10.0) -> Curve:
    return lambda load: per_client * min(load, slots)


def growing_steps(knee: float, per_client: float = 10.0) -> Curve:
    return lambda load: per_client * load / (1 + load / knee)


def measure(curve: Curve, load: float, rng: np.random.Generator, noise: float = 0.01, state: str = "valid") -> Seen:
    rate = curve(load) * (1 + noise * rng.standard_normal())
    return Seen(load, rate, rate * (1 + noise * rng.standard_normal(200)), state=state)


def search(
    decide: Callable[[list[Seen]], Decision], look: Callable[[float], Seen], most: int = 60
) -> tuple[list[Seen], Stop]:
    seen: list[Seen] = []
    while len(seen) < most:
        decision = decide(seen)
        if isinstance(decision, Stop):
            return seen, decision
        seen.append(look(decision.load))
    raise AssertionError(f"no end after {most} points: {[one.load for one in seen]}")


@pytest.mark.parametrize("slots", [3, 8, 37, 150])
def test_a_hard_limit_is_found_within_five_percent(slots: int) -> None:
    rng = np.random.default_rng(slots)
    bounds = Bounds(1, precision=0.1)
    seen, _ = search(lambda s: next_for_knee(s, bounds), lambda load: measure(hard_limit(slots), load, rng))
    knee = fit_knee(seen)
    assert knee is not None
    assert abs(knee.load / slots - 1) < (0.05 if slots > 10 else 0.12)
    assert len(seen) < 20


def test_a_step_that_grows_with_the_batch_has_its_knee_where_the_asymptotes_cross() -> None:
    found = []
    for trial in range(20):
        rng = np.random.default_rng(trial)
        seen, _ = search(
            lambda s: next_for_knee(s, Bounds(1, precision=0.1)),
            lambda load, rng=rng: measure(growing_steps(40), load, rng),  # type: ignore[misc]
        )
        knee = fit_knee(seen)
        assert knee is not None
        found.append(knee.load)
    assert np.median(found) == pytest.approx(40, rel=0.12)


def test_the_interval_of_the_knee_holds_the_knee() -> None:
    held = 0
    for trial in range(40):
        rng = np.random.default_rng(1000 + trial)
        seen = [measure(hard_limit(24), load, rng, noise=0.02) for load in (1, 2, 4, 8, 16, 20, 24, 28, 32, 64)]
        knee = fit_knee(seen)
        assert knee is not None
        assert knee.interval is not None
        held += knee.interval.low <= 24 * 1.02 and knee.interval.high >= 24 * 0.98
    assert held >= 34


def test_without_saturation_there_is_no_knee() -> None:
    rng = np.random.default_rng(0)
    bounds = Bounds(1, high=32)
    seen, stop = search(lambda s: next_for_knee(s, bounds), lambda load: measure(lambda x: 10 * x, load, rng))
    assert fit_knee(seen) is None
    assert "highest load allowed" in stop.why
    assert max(one.load for one in seen) == 32


def test_a_point_that_measures_the_client_ends_the_search() -> None:
    rng = np.random.default_rng(0)

    def look(load: float) -> Seen:
        return measure(hard_limit(1000), load, rng, state="client-bound" if load >= 16 else "valid")

    for decide in (lambda s: next_for_knee(s, Bounds(1)), lambda s: next_for_slo(s, Bounds(1), 0.9)):
        _, stop = search(decide, lambda load: _with_hits(look(load), 1.0, 500))
        assert "load generator" in stop.why


def _with_hits(seen: Seen, share: float, counted: int) -> Seen:
    return Seen(
        seen.load, seen.tokens_per_s, seen.draws, round(share * counted), counted, seen.load * share, seen.state
    )


def attain(limit: float, sharp: float = 20.0) -> Callable[[float], float]:
    """Share of requests that keep the SLO: 1 far below the limit, 95 % at it, falling beyond."""
    return lambda load: 1 / (1 + (0.05 / 0.95) * (load / limit) ** sharp)


@pytest.mark.parametrize(("limit", "whole"), [(50, True), (7.3, False), (180, True), (0.8, False)])
def test_the_most_load_that_keeps_the_slo(limit: float, whole: bool) -> None:
    misses = 0
    for trial in range(20):
        rng = np.random.default_rng(trial)
        good = attain(limit)

        def look(load: float, rng: np.random.Generator = rng, good: Callable[[float], float] = good) -> Seen:
            hits = int(rng.binomial(2000, good(load)))
            return Seen(load, 10 * load, hits=hits, counted=2000, goodput_per_s=load * hits / 2000)

        seen, _ = search(lambda s: next_for_slo(s, Bounds(1, whole=whole, precision=0.05), 0.95), look)
        best, broken = edge(kept(seen, 0.95))
        assert best is not None
        assert broken is not None
        misses += not best / 1.05 <= limit * 1.02 or not broken * 1.05 >= limit * 0.98
    assert misses <= 1


def test_a_share_that_cannot_be_told_is_measured_again_and_not_for_ever() -> None:
    seen: list[Seen] = []
    loads = []
    while isinstance(decision := next_for_slo(seen, Bounds(4, high=4), 0.95), Step):
        loads.append(decision.load)
        seen.append(Seen(decision.load, 40.0, hits=95, counted=100))
    assert loads == [4, 4, 4]
    assert kept(seen, 0.95)[0].verdict == "pass"


def test_a_server_that_never_keeps_it() -> None:
    seen, stop = search(lambda s: next_for_slo(s, Bounds(8), 0.9), lambda load: Seen(load, load, hits=0, counted=100))
    assert edge(kept(seen, 0.9)) == (None, 1.0)
    assert "not kept even at 1" in stop.why


def test_a_backlog_that_grows_breaks_the_promise_whatever_its_share() -> None:
    [row] = kept([Seen(5, 1.0, hits=100, counted=100, growing=True)], 0.9)
    assert row.verdict == "fail"


@settings(max_examples=60, deadline=None)
@given(
    limit=st.floats(0.05, 5000), low=st.floats(0.1, 64), whole=st.booleans(), seed=st.integers(0, 2**16),
    noise=st.floats(0, 0.3), precision=st.floats(0.01, 0.5),
)  # fmt: skip
def test_every_search_ends_and_never_leaves_its_bounds(
    limit: float, low: float, whole: bool, seed: int, noise: float, precision: float
) -> None:
    rng = np.random.default_rng(seed)
    bounds = Bounds(max(low, 1) if whole else low, high=low * 512, whole=whole, precision=precision)

    def look(load: float) -> Seen:
        point = measure(hard_limit(limit), load, rng, noise)
        hits = int(rng.binomial(50, min(1.0, limit / load)))
        return Seen(load, max(point.tokens_per_s, 0.01), point.draws, hits, 50, load)

    for decide in (lambda s: next_for_knee(s, bounds), lambda s: next_for_slo(s, bounds, 0.95)):
        seen, _ = search(decide, look, most=120)
        assert all(bounds.floor * 0.999 <= one.load <= bounds.high * 1.001 + 1 for one in seen)
        assert all(one.load == round(one.load) for one in seen) or not whole


def test_the_decision_depends_on_what_was_measured_alone() -> None:
    rng = np.random.default_rng(5)
    seen, stop = search(lambda s: next_for_knee(s, Bounds(1)), lambda load: measure(hard_limit(20), load, rng))
    for upto in range(1, len(seen)):
        decision = next_for_knee(seen[:upto], Bounds(1))
        assert isinstance(decision, Step)
        assert decision.load == seen[upto].load
    assert next_for_knee(seen, Bounds(1)) == stop
    assert math.isfinite(fit_knee(seen).plateau)  # type: ignore[union-attr]


def test_what_measured_the_load_generator_says_nothing_of_the_promise() -> None:
    """Measured once more after a client-bound point, it is the second measurement that counts."""
    seen = [Seen(8, 80, hits=0, counted=400, state="client-bound"), Seen(8, 80, hits=400, counted=400)]
    assert [(row.verdict, row.share) for row in kept(seen, 0.95)] == [("pass", 1.0)]
    assert kept(seen[:1], 0.95)[0].verdict == "fail"
