"""Rounds: every engine measured in turn, again and again, so that what the box does meanwhile meets all of them alike.

Engines that can be up together (servers that run already, or `keep_up`) are started once and take turns at each load
point, one under load and the others idle. The order follows the Thue-Morse sequence, AB BA BA AB …: a steady drift of
the box then cancels within two rounds, a curved one within four. Engines that cannot be up together are started again
for every round, in the same alternating order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TypeVar

from redline.errors import EngineError
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.tune.plan import plan_of
from redline.tune.preflight import Job
from redline.tune.trial import Context, kept_up, run_trial

_T = TypeVar("_T")


def interleaved(experiment: Experiment) -> bool:
    """True when there are rounds of listed load points and every engine can stay up for all of them."""
    listed = experiment.rounds > 1 and experiment.search.goal == "off"
    return listed and all(engine.kind == "url" or engine.keep_up for engine in experiment.engines)


def starts(experiment: Experiment) -> int:
    """How often each engine is started when they are not interleaved: once for every round."""
    return experiment.repeats * experiment.rounds


def in_turn(items: Sequence[_T], number: int) -> list[_T]:
    """The order of round `number` (from 0): as given, or backwards."""
    return list(items) if number.bit_count() % 2 == 0 else list(reversed(items))


@dataclass
class _Up:
    """One engine that is up, with what ends it."""

    job: Job
    measure: Callable[[LoadPoint, int, int], None]
    ends: ExitStack = field(default_factory=ExitStack)


def numbers_of(experiment: Experiment, repeat: int) -> list[int]:
    """The rounds of one repeat: they are counted on over all repeats."""
    return list(range(repeat * experiment.rounds, (repeat + 1) * experiment.rounds))


def run_rounds(context: Context, jobs: Sequence[Job], repeat: int, numbers: Sequence[int]) -> None:
    """These rounds of one model. An engine that fails drops out, the others go on; all are gone afterwards."""
    able = []
    for job in jobs:
        if job.skipped is not None:
            run_trial(context, job, repeat, plan_of(context.experiment))  # says why, and starts nothing
        else:
            able.append(job)
    with ExitStack() as all_of_them:
        up = [one for job in able if not context.stop.asked and (one := _start(context, job, repeat, all_of_them))]
        for number in numbers:
            for index, point in enumerate(context.experiment.load.points):
                for one in in_turn(up, number):
                    if not context.stop.asked:
                        _measure(context, one, up, (point, index, number))


def _start(context: Context, job: Job, repeat: int, all_of_them: ExitStack) -> _Up | None:
    own = all_of_them.enter_context(ExitStack())
    try:
        return _Up(job, own.enter_context(kept_up(context, job, repeat)), own)
    except EngineError as error:
        _failed(context, job, error)
        return None


def _measure(context: Context, one: _Up, up: list[_Up], what: tuple[LoadPoint, int, int]) -> None:
    try:
        one.measure(*what)
    except EngineError as error:
        up.remove(one)
        one.ends.__exit__(type(error), error, error.__traceback__)  # its trial ends here, with the reason in it
        _failed(context, one.job, error)


def _failed(context: Context, job: Job, error: EngineError) -> None:
    context.errors.append(error)
    context.events.failed(job, error)
