"""The controller against simulated engines, whose best width can be worked out."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from itertools import pairwise

import pytest

from redline.runtime.controller import Acceptance, Controller, StepTimes

MOST = 4
Curve = Callable[[int, int], float]


def memory_bound(rows: int, tokens: int) -> float:
    """A big GPU: weights have to be read whatever there is to compute, until computing takes longer."""
    return 4e-3 + 1e-5 * rows + max(0.0, 5e-5 * (tokens - 100))


def compute_bound(rows: int, tokens: int) -> float:
    """A small CPU: each token costs."""
    return 1e-3 + 1e-3 * tokens


def simulate(
    controller: Controller,
    curve: Curve,
    rows: int,
    steps: int,
    share: float,
    *,
    covered: float = 1.0,
    guessing: float = 0.0,
    noise: float = 0.05,
    seed: int = 0,
) -> tuple[list[int], float, int]:
    """Each guess stands with `share` where the one before stood. (widths, seconds, tokens)"""
    rnd = random.Random(seed)
    widths, seconds, tokens = [], 0.0, 0
    for _ in range(steps):
        width = controller.choose(rows)
        drafts = [width if rnd.random() < covered else 0 for _ in range(rows)] if width else [0] * rows
        if width:
            controller.guessed(rows, width, sum(map(bool, drafts)), guessing * width)
        took = curve(rows, rows + sum(drafts)) * rnd.uniform(1 - noise, 1 + noise)
        if rnd.random() < 0.02:
            took *= 10
        controller.stepped(rows, rows + sum(drafts), took)
        for draft in filter(None, drafts):
            stood = next((i for i in range(draft) if rnd.random() > share), draft)
            controller.stood(draft, stood)
            tokens += stood
        widths.append(width)
        seconds += curve(rows, rows + sum(drafts)) + guessing * width
        tokens += rows
    return widths, seconds, tokens


def settled(widths: list[int]) -> int:
    return Counter(widths[100:]).most_common(1)[0][0]


def best(curve: Curve, rows: int, share: float, covered: float = 1.0, guessing: float = 0.0) -> int:
    def rate(width: int) -> float:
        gained = 1 + covered * sum(share**i for i in range(1, width + 1))
        mixed = covered * curve(rows, rows * (1 + width)) + (1 - covered) * curve(rows, rows)
        return (
            rows
            * gained
            / ((mixed if rows == 1 else curve(rows, round(rows * (1 + covered * width)))) + guessing * width)
        )

    return max(range(MOST + 1), key=rate)


@pytest.mark.parametrize(
    ("curve", "rows", "share", "guessing", "wanted"),
    [
        (memory_bound, 1, 0.7, 0.0, {MOST}),
        (memory_bound, 1, 0.7, 5e-4, {2, 3, 4}),
        (memory_bound, 1, 0.3, 4e-3, {0}),
        (memory_bound, 64, 0.7, 0.0, {0, 1}),
        (memory_bound, 64, 0.4, 1e-3, {0}),
        (compute_bound, 1, 0.9, 0.0, {MOST}),
        (compute_bound, 1, 0.2, 0.0, {0}),
        (compute_bound, 64, 0.9, 0.0, {0}),
    ],
)
def test_the_choice_is_what_pays(curve: Curve, rows: int, share: float, guessing: float, wanted: set[int]) -> None:
    controller = Controller(MOST)
    widths, seconds, tokens = simulate(controller, curve, rows, 1200, share, guessing=guessing)
    assert settled(widths) in wanted
    plain = curve(rows, rows) / rows
    # Never a loss beyond what looking costs.
    assert seconds / tokens < 1.06 * plain
    at_best = best(curve, rows, share, guessing=guessing)
    _, ideal_s, ideal = simulate(Fixed(at_best), curve, rows, 1200, share, guessing=guessing)
    assert seconds / tokens < 1.15 * ideal_s / ideal


class Fixed(Controller):
    def __init__(self, width: int) -> None:
        super().__init__(MOST)
        self.width = width

    def choose(self, rows: int) -> int:
        return self.width


def test_off_at_64_rows_and_on_at_one_in_one_engine() -> None:
    controller = Controller(MOST)
    for _ in range(3):
        one, _, _ = simulate(controller, memory_bound, 1, 400, 0.6)
        many, _, _ = simulate(controller, compute_bound, 64, 400, 0.6)
    assert settled(one) > 0
    assert settled(many) == 0


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4, 0.5, 0.6, 0.8])
@pytest.mark.parametrize("rows", [1, 8, 32])
def test_it_does_not_swing(share: float, rows: int) -> None:
    widths, _, _ = simulate(Controller(MOST), memory_bound, rows, 2000, share, guessing=1e-3, noise=0.2)
    changes = sum(a != b for a, b in pairwise(widths[200:]))
    # A look at another width is two changes.
    assert changes < 60


def test_it_comes_back_when_guesses_become_good() -> None:
    controller = Controller(MOST)
    off, _, _ = simulate(controller, compute_bound, 1, 600, 0.05)
    on, _, _ = simulate(controller, compute_bound, 1, 3000, 0.97)
    assert settled(off) == 0
    assert Counter(on[-500:]).most_common(1)[0][0] > 0


def test_few_guesses_that_stand_are_worth_it_where_verifying_is_free() -> None:
    widths, _, _ = simulate(Controller(MOST), memory_bound, 1, 800, 0.8, covered=0.3)
    assert settled(widths) == MOST


def test_the_same_measurements_make_the_same_choices() -> None:
    runs = [simulate(Controller(MOST), memory_bound, 8, 500, 0.5, seed=3)[0] for _ in range(2)]
    assert runs[0] == runs[1]


def test_looking_is_rare() -> None:
    widths, _, _ = simulate(Controller(MOST), compute_bound, 64, 5000, 0.5)
    assert 0 < sum(width > 0 for width in widths[200:]) < 60


def test_nothing_to_guess_for() -> None:
    assert Controller(MOST).choose(0) == 0
    assert Controller(0).choose(5) == 0
    assert Controller(MOST).gains(3) == []


def test_acceptance_is_counted_by_place() -> None:
    found = Acceptance()
    for proposed, accepted in [(4, 4), (4, 1), (2, 0), (3, 3)]:
        found.observe(proposed, accepted)
    assert found.proposed == [4, 4, 3, 2]
    assert found.accepted == [3, 2, 2, 1]
    shares = found.standing(6)
    assert shares == sorted(shares, reverse=True)


def test_acceptance_follows_what_is_recent() -> None:
    found = Acceptance()
    for _ in range(1000):
        found.observe(1, 0)
    assert found.standing(1)[0] < 0.05
    for _ in range(200):
        found.observe(1, 1)
    assert found.standing(1)[0] > 0.9


def test_step_times_are_medians_that_rise() -> None:
    times = StepTimes()
    assert times.predict(5) is None
    for seconds in (1.0, 1.1, 50.0):
        times.observe(10, seconds)
    assert times.predict(10) == times.predict(1000) == 1.1
    times.observe(20, 2.1)
    times.observe(40, 0.5)
    assert times.predict(15) == pytest.approx(1.6)
    assert times.predict(30) == times.predict(80) == 2.1
    assert times.predict(5) == pytest.approx(0.6)
