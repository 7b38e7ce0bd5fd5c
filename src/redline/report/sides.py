"""The sides of a comparison of stored runs: `RUN` or `RUN:ENGINE`, and the rounds that each of them measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from redline.analyse.comparison import Load
from redline.analyse.rounds import Round, measure_round
from redline.errors import UsageError
from redline.spec.faults import did_you_mean
from redline.spec.promise import class_promises
from redline.store.read import Reader
from redline.store.rows import PointRow, RunRow, TrialRow


@dataclass(frozen=True)
class Side:
    """One model on one engine configuration of one run, over all its starts."""

    run: RunRow
    model: str
    engine: str
    trials: tuple[TrialRow, ...]

    @classmethod
    def among(cls, run: RunRow, trials: Sequence[TrialRow], model: str, engine: str) -> Side:
        """The side that those of `trials` make that are of this model on this engine."""
        return cls(run, model, engine, tuple(t for t in trials if (t.model, t.engine) == (model, engine)))

    @property
    def name(self) -> str:
        return f"{self.run.id}:{self.engine}"

    @property
    def trial(self) -> TrialRow:
        """The start that says most about the configuration."""
        return next((trial for trial in self.trials if trial.flags or trial.points), self.trials[0])

    def points(self) -> dict[Load, list[PointRow]]:
        """Complete load points, in the order of their rounds; of a round that was measured again the last."""
        found: dict[Load, dict[object, PointRow]] = {}
        for trial in sorted(self.trials, key=lambda trial: (trial.repeat, trial.id)):
            for point in trial.points:
                number = point.outcome.get("round")
                if point.complete and (number is None or point.stopped_by != "interrupted"):
                    key = ("point", point.id) if number is None else number
                    found.setdefault((point.kind, point.value), {})[key] = point
        return {load: [rows[key] for key in _in_order(rows)] for load, rows in found.items()}


def _in_order(rows: dict[object, PointRow]) -> list[object]:
    """By the number of the round where there is one, else as they were measured."""
    return sorted(rows, key=lambda key: key if isinstance(key, int) else -1)


def same_rounds(ours: list[PointRow], theirs: list[PointRow]) -> tuple[list[PointRow], list[PointRow]]:
    """Those rounds that both sides were measured in, where rounds have numbers; else all."""
    numbers = [{point.outcome.get("round") for point in side} for side in (ours, theirs)]
    both = numbers[0] & numbers[1]
    if None in numbers[0] | numbers[1] or not both:
        return ours, theirs
    kept = [[point for point in side if point.outcome["round"] in both] for side in (ours, theirs)]
    return kept[0], kept[1]


def find_sides(reader: Reader, a: str, b: str) -> list[tuple[Side, Side]]:
    """What of A is to be set against what of B: the same engine label and model where both have it.

    UsageError when nothing of the two belongs together, or when they are the same.
    """
    ours, theirs = stored_sides(reader, a), stored_sides(reader, b)
    pairs = [(x, y) for x in ours for y in theirs if (x.model, x.engine) == (y.model, y.engine)]
    if not pairs or all(x.name == y.name for x, y in pairs):
        # one configuration on each side needs no equal label: that is what RUN:ENGINE asks for
        for model in dict.fromkeys(side.model for side in ours):
            some, others = ([s for s in sides if s.model == model] for sides in (ours, theirs))
            if len(some) == len(others) == 1:
                pairs.append((some[0], others[0]))
        if not pairs and len(ours) == len(theirs) == 1:
            pairs = [(ours[0], theirs[0])]
    pairs = [(x, y) for x, y in pairs if x.name != y.name or x.model != y.model]
    if pairs:
        return pairs
    if ours[0].run.id == theirs[0].run.id:
        raise UsageError(
            f"{a} and {b} are the same run, {ours[0].run.id}",
            fix=f"name two of its engines: {_examples(ours) or 'RUN:ENGINE'}, or two runs",
        )
    raise UsageError(
        f"{a} and {b} have no engine and model in common",
        why=f"A has {_listed(ours)}; B has {_listed(theirs)}",
        fix="pick one configuration of each: RUN:ENGINE",
    )


def rounds_of(reader: Reader, side: Side, points: list[PointRow]) -> list[Round]:
    """What each round measured; the same for every reader of the same points."""
    slo = side.run.experiment.get("slo") or {}
    terms = {name: float(slo[name]) for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms") if slo.get(name)}
    return [
        measure_round(
            reader.requests(point.id),
            measured_from_ns=point.measured_from_ns,
            ended_ns=point.ended_ns,
            slo=terms,
            asked=(point.kind, point.value),
            promises=class_promises(side.run.experiment),
        )
        for point in points
    ]


def stored_sides(reader: Reader, which: str) -> list[Side]:
    """Everything that `RUN` or `RUN:ENGINE` measured, one side per model and engine."""
    name, _, engine = which.partition(":")
    run = reader.run(name)
    trials = [trial for trial in run.trials if trial.points]
    if not trials:
        raise UsageError(f"run {run.id} measured nothing", why="; ".join(run.reasons), fix="redline runs lists others")
    labels = list(dict.fromkeys(trial.engine for trial in trials))
    if engine and engine not in labels:
        raise UsageError(
            f"run {run.id} has no engine {engine!r}",
            why=f"it has {', '.join(labels)}",
            fix=did_you_mean(engine, labels),
        )
    keys = dict.fromkeys((trial.model, trial.engine) for trial in trials if not engine or trial.engine == engine)
    return [Side.among(run, trials, model, label) for model, label in keys]


def _listed(sides: list[Side]) -> str:
    return ", ".join(f"{side.engine} on {side.model}" for side in sides)


def _examples(sides: list[Side]) -> str:
    labels = list(dict.fromkeys(side.engine for side in sides))
    return " ".join(f"last:{label}" for label in labels[:2]) if len(labels) > 1 else ""
