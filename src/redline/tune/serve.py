"""One engine, started for somebody who wants to use it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from redline.engines.engine import Server, Start
from redline.errors import Unsupported, UsageError
from redline.node.facts import facts
from redline.observe.sampling import Watch
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.model import ModelSpec
from redline.store.rows import RunRow
from redline.store.store import Store
from redline.tune.preflight import adapter
from redline.tune.sampled import plan_for, sampled


@contextmanager
def serve(
    model: ModelSpec,
    engine: EngineSpec,
    *,
    artifacts: Path | None = None,
    seed: int = 0,
    wrap: tuple[str, ...] = (),
    progress: Callable[[str], None] = lambda text: None,
) -> Iterator[Server]:
    """Yields the server once it answered a real request; it is stopped, with its whole tree, on the way out.

    `artifacts` keeps the log; a fresh temporary folder when None. `wrap` stands in front of the
    engine's command. Raises what `Engine.check` and `Engine.start`
    raise, and Unsupported when this box cannot run the engine.
    """
    implementation = adapter(engine.kind)
    skipped = implementation.available(engine)
    if skipped is not None:
        raise Unsupported(f"{engine.label} cannot run here: {skipped.reason}", fix=skipped.how_to_get_it)
    implementation.check(engine, model)
    folder = artifacts or Path(tempfile.mkdtemp(prefix="redline-serve-"))
    server = implementation.start(Start(engine, model, folder, seed, wrap), progress)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def recorded(server: Server, experiment: Experiment, store: Store) -> Iterator[tuple[str, Watch]]:
    """Keeps what the samplers see of a served engine as a run without load points: (its id, the samplers).

    The run is done when the block ends, failed when it raises.
    """
    model, spec = experiment.models[0], experiment.engines[0]
    run_id = store.begin_run(experiment, facts(), ["redline", "serve"])
    trial = store.begin_trial(run_id, model=model.served_name, spec=spec, repeat=0)
    store.trial_ready(trial, server.endpoint, {})
    status = "failed"
    try:
        with sampled(store, trial, plan_for(server.endpoint, spec, serving=True)) as watch:
            yield run_id, watch
        status = "done"
    finally:
        store.end_trial(trial, status)
        store.end_run(run_id, status, "", [])


def refuse_served(row: RunRow) -> None:
    """UsageError for a run of `redline serve`, which measured nothing that could be gone on with."""
    if row.served:
        raise UsageError(
            f"run {row.id} was a `redline serve`: there are no load points to go on with",
            fix=f"redline report {row.id} shows what was sampled",
        )
