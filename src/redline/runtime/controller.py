"""How many tokens to guess per step: as many as pay, by what steps were measured to cost and guesses to be worth.

A step of R rows that verifies k guesses per row computes more tokens than a plain one. On a GPU with few rows that is
nearly free, with many it is not, and where the line lies depends on model, kernels and box; so it is measured. What a
guess is worth is the share of guesses at each place that stood. The choice is

    tokens per second (k) = R (1 + covered (s_1 + ... + s_k)) / (time of a step of R (1 + covered k) tokens + guessing)

at its best, where `s_i` is how often the i-th guess stood and `covered` how many rows got guesses at all. Times are
kept per class of row counts (powers of two). Deterministic; imports no torch.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

KEPT = 9
"""Measurements per point, of which the median counts: one step beside a busy neighbour says nothing."""
LEARN, LEARN_GUESSES = 3, 8
"""Steps of a width in a row when it is looked at, and drafts that a look should see."""
MARGIN = 1.05
"""Another width must promise so much more; less is noise, and changing has costs of its own."""
DWELL = 16
"""Steps for which a choice stands."""
PROBE_FIRST, PROBE_LAST = 256, 2048
"""Steps between looks at what is not in use; the pause doubles as long as a look changes nothing."""
MEMORY = 64.0
"""Guesses that an acceptance share remembers."""


@dataclass
class Acceptance:
    """How often the guess at each place stood, and how many rows get guesses. Recent ones count most."""

    proposed: list[int] = field(default_factory=list)
    accepted: list[int] = field(default_factory=list)
    covered: float = 1.0
    _asked: list[float] = field(default_factory=list)
    _stood: list[float] = field(default_factory=list)

    def observe(self, proposed: int, accepted: int) -> None:
        """One draft: of `proposed` guesses the first `accepted` stood."""
        while len(self.proposed) < proposed:
            for counts in (self.proposed, self.accepted):
                counts.append(0)
            for sums in (self._asked, self._stood):
                sums.append(0.0)
        for i in range(proposed):
            stood = i < accepted
            self.proposed[i] += 1
            self.accepted[i] += stood
            self._asked[i] += 1 - self._asked[i] / MEMORY
            self._stood[i] += stood - self._stood[i] / MEMORY

    def age(self) -> None:
        """What is known comes from a while ago, and new guesses should count for more."""
        for sums in (self._asked, self._stood):
            sums[:] = [value / 4 for value in sums]

    def cover(self, rows: int, guessed: int) -> None:
        weight = min(1.0, rows / MEMORY)
        self.covered += (guessed / rows - self.covered) * weight

    def standing(self, most: int) -> list[float]:
        """Chance that the guess at each place stands, never more than at the place before; places without a guess yet
        go on as the last ones fell."""
        shares: list[float] = []
        for i in range(most):
            before = shares[-1] if shares else 1.0
            if i < len(self._asked) and self._asked[i] >= 1:
                # One guess and a half that stood half the time, so that a few say little.
                share = (self._stood[i] + 0.75) / (self._asked[i] + 1.5)
            else:
                share = before * (shares[-1] / shares[-2] if len(shares) > 1 and shares[-2] else before * 0.9)
            shares.append(min(share, before))
        return shares


class StepTimes:
    """Seconds of a step by its tokens, for one class of row counts: medians, made to rise, linear in between."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[deque[int], deque[float]]] = {}

    def observe(self, tokens: int, seconds: float) -> None:
        place = self._seen.setdefault(_place(tokens), (deque(maxlen=KEPT), deque(maxlen=KEPT)))
        place[0].append(tokens)
        place[1].append(seconds)

    def predict(self, tokens: float) -> float | None:
        """None before anything was measured. Beyond the ends the nearest slope goes on; a single point is flat."""
        points = self._curve()
        if not points:
            return None
        if len(points) == 1:
            return points[0][1]
        after = next((i for i, (x, _) in enumerate(points) if x >= tokens), len(points) - 1)
        (x0, y0), (x1, y1) = points[max(after, 1) - 1], points[max(after, 1)]
        slope = (y1 - y0) / (x1 - x0)
        return max(y0 + slope * (tokens - x0), 1e-9)

    def _curve(self) -> list[tuple[float, float]]:
        points: list[tuple[float, float]] = []
        for _, (sizes, times) in sorted(self._seen.items()):
            floor = points[-1][1] if points else 0.0
            points.append((median(sizes), max(median(times), floor)))
        return points


@dataclass
class _Class:
    """What is known and chosen for one class of row counts."""

    times: StepTimes = field(default_factory=StepTimes)
    costs: deque[float] = field(default_factory=lambda: deque(maxlen=KEPT))
    """Seconds of guessing per guessed place."""
    width: int = -1
    steps: int = 0
    since: int = 0
    pause: int = PROBE_FIRST
    probes: int = 0
    probe: list[int] = field(default_factory=list)
    """Widths of the next steps, whatever the choice."""


class Controller:
    """`choose` before a step, `guessed` after guessing, `stepped` and `stood` when it is known what came of it."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.acceptance = Acceptance()
        self._classes: dict[int, _Class] = {}

    def choose(self, rows: int) -> int:
        """Guesses per row for the next step of so many rows, 0 to `most`."""
        if not rows or not self.most:
            return 0
        one = self._class(rows)
        one.steps += 1
        if one.width < 0:
            # Both ends are measured first, and then chosen at once.
            one.width, one.since = self.most, -DWELL
            one.probe = [self.most] * (2 * LEARN) + [0] * (LEARN + 1)
        if one.probe:
            return one.probe.pop()
        if one.steps - one.since >= DWELL:
            self._reconsider(one, rows)
        if one.steps - one.since >= one.pause:
            one.since, one.pause = one.steps, min(2 * one.pause, PROBE_LAST)
            return self._probe(one, rows)
        return one.width

    def guessed(self, rows: int, width: int, guessed: int, seconds: float) -> None:
        """Guessing for `rows` rows took so long and gave a draft to `guessed` of them."""
        self._class(rows).costs.append(seconds / width)
        self.acceptance.cover(rows, guessed)

    def stepped(self, rows: int, tokens: int, seconds: float) -> None:
        """A step that only decodes and verifies took so long."""
        self._class(rows).times.observe(tokens, seconds)

    def stood(self, proposed: int, accepted: int) -> None:
        """Of one draft."""
        self.acceptance.observe(proposed, accepted)

    def gains(self, rows: int) -> Sequence[float]:
        """Tokens per second of each width, 0 to `most`; empty while no step was measured."""
        one = self._class(rows)
        covered, shares = self.acceptance.covered, self.acceptance.standing(self.most)
        cost = median(one.costs) if one.costs else 0.0
        found = []
        for width in range(self.most + 1):
            seconds = one.times.predict(rows * (1 + covered * width))
            if seconds is None:
                return []
            found.append(rows * (1 + covered * sum(shares[:width])) / (seconds + cost * width))
        return found

    def _probe(self, one: _Class, rows: int) -> int:
        """The first of some steps of a width that is not in use."""
        others = sorted({0, (self.most + 1) // 2, self.most} - {one.width})
        other = others[one.probes % len(others)]
        one.probes += 1
        steps = max(LEARN, -(-LEARN_GUESSES // rows) if other else 0)
        if not one.width:
            self.acceptance.age()
        one.probe = [other] * (steps - 1)
        return other

    def _reconsider(self, one: _Class, rows: int) -> None:
        gains = self.gains(rows)
        if not gains:
            return
        best = max(range(len(gains)), key=lambda width: (gains[width], -width))
        if gains[best] > gains[one.width] * MARGIN:
            one.width, one.since, one.pause = best, one.steps, PROBE_FIRST

    def _class(self, rows: int) -> _Class:
        return self._classes.setdefault((rows - 1).bit_length(), _Class())


def _place(tokens: int) -> int:
    """Sizes within a tenth of each other are one point."""
    return round(math.log(max(tokens, 1)) * 10)
