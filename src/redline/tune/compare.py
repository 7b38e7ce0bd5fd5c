"""The comparison as a whole: every model on every engine at every load point, kept as one run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redline.analyse.verdict import STATES
from redline.errors import RedlineError
from redline.node.facts import facts
from redline.spec.experiment import Experiment
from redline.store.ceilings import known_ceilings
from redline.store.read import default_path
from redline.store.store import Store
from redline.tune.events import Events
from redline.tune.plan import Plan, plan_of
from redline.tune.preflight import Job, preflight
from redline.tune.rounds import in_turn, interleaved, numbers_of, run_rounds, starts
from redline.tune.stop import Stop
from redline.tune.trial import Context, context_of, run_trial


@dataclass(frozen=True)
class Outcome:
    """`status` is done, interrupted or failed (nothing could be measured). `errors` are engines that failed."""

    run_id: str
    status: str
    errors: list[RedlineError] = field(default_factory=list)


def compare(
    experiment: Experiment, *, db: Path | None = None, argv: Sequence[str] = (), events: Events | None = None
) -> Outcome:
    """Runs the experiment and keeps everything in `db` (default: ./redline-results/redline.db).

    Raises UsageError and EnvironmentFault before anything has started. An engine that fails is an entry of
    `errors`, and the run goes on with the next one. Ctrl-C ends the run with status `interrupted`; what was measured
    is kept.
    """
    events = events or Events()
    jobs = preflight(experiment)
    with Store.open(db or default_path()) as store, Stop() as stop:
        box = facts()
        run_id = store.begin_run(experiment, {**box, **known_ceilings(box)}, list(argv))
        context = context_of(experiment, store, run_id, stop, events)
        return carry_on(context, jobs, lambda job, repeat: plan_of(experiment))


PlanOf = Callable[[Job, int], Plan]
"""What one engine with one model still has to go through in one repeat."""


RoundsOf = Callable[[str, int], list[int]]
"""Which rounds of one model are still to be measured in one repeat, where engines take turns."""


def carry_on(context: Context, jobs: list[Job], plans: PlanOf, rounds: RoundsOf | None = None) -> Outcome:
    """Measures what `plans` hold, or all `rounds` where engines take turns, and ends the run."""
    status = "failed"
    searched = context.experiment.search.goal != "off"
    context.events.run(context.run_id, jobs, 0 if searched else len(context.experiment.load.points))
    try:
        _all_trials(context, jobs, plans, rounds or (lambda model, repeat: numbers_of(context.experiment, repeat)))
        status = "interrupted" if context.stop.asked else "done" if context.verdicts else "failed"
    except KeyboardInterrupt:
        status = "interrupted"
    finally:
        verdict, reasons = _verdict(context, status)
        context.store.end_run(context.run_id, status, verdict, reasons)
    return Outcome(context.run_id, status, context.errors)


def _all_trials(context: Context, jobs: list[Job], plans: PlanOf, rounds: RoundsOf) -> None:
    if interleaved(context.experiment):
        for repeat in range(context.experiment.repeats):
            for model in dict.fromkeys(job.model.served_name for job in jobs):
                if numbers := rounds(model, repeat):
                    run_rounds(context, [job for job in jobs if job.model.served_name == model], repeat, numbers)
        return
    # repeats outermost, in alternating order: drift of the box then spreads over all engines alike
    for repeat in range(starts(context.experiment)):
        for job in in_turn(jobs, repeat):
            if not context.stop.asked:
                run_trial(context, job, repeat, plans(job, repeat))


def _verdict(context: Context, status: str) -> tuple[str, list[str]]:
    """The worst verdict of all points; a run in which something failed or that was cut short is at best degraded."""
    reasons = [error.what for error in context.errors]
    if status == "interrupted":
        reasons.append("interrupted: not every engine was measured at every load point")
    states = [verdict.state for verdict in context.verdicts] or ["invalid"]
    if reasons:
        states.append("degraded")
    return max(states, key=STATES.index), reasons
