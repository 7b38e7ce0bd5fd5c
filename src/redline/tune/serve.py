"""One engine, started for somebody who wants to use it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from redline.engines.engine import Server, Start
from redline.errors import Unsupported
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.tune.preflight import adapter


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
