"""Engines as ways to load a model: started cold and warm, with each of the engine's own load strategies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from redline.errors import EngineError, RedlineError, Skipped
from redline.node.load_time import Way, make_cold, make_warm
from redline.node.weights import model_files
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec
from redline.tune.preflight import adapter
from redline.tune.serve import serve

STRATEGIES: dict[str, tuple[str, tuple[str, ...]]] = {
    "vllm": ("safetensors-load-strategy", ("lazy", "eager", "prefetch"))
}
"""Per kind of engine the flag that chooses how files are read, and its values."""
PHASES = ("weights", "load")
"""What adapters call the phase in which weights are read."""


def engine_ways(model: ModelSpec, folder: Path, engines: Sequence[EngineSpec]) -> list[Way]:
    """Two ways per engine and strategy, cold and warm: seconds of its phase that reads weights, or of the whole start
    where it tells no phases. The strategies that the installed engine does not know are left out."""
    files = model_files(folder)
    size = sum(path.stat().st_size for path in files)
    states: dict[str, Callable[[], Skipped | None]] = {
        "cold": lambda: make_cold(files),
        "warm": lambda: make_warm(files),
    }
    return [
        Way(
            f"{spec.label}, {state}",
            "from the engine's log: its phase of loading weights",
            size,
            prepare,
            _start(model, spec),
        )
        for engine in engines
        for spec in _strategies(engine)
        for state, prepare in states.items()
    ]


def _strategies(engine: EngineSpec) -> Iterator[EngineSpec]:
    flag, values = STRATEGIES.get(engine.kind, ("", ()))
    if not flag or flag in engine.flags or not _knows(engine, flag):
        yield engine
        return
    for value in values:
        yield engine.model_copy(update={"flags": engine.flags | {flag: value}, "name": f"{engine.label} {value}"})


def _knows(engine: EngineSpec, flag: str) -> bool:
    try:
        known = adapter(engine.kind).known_flags(engine)
    except RedlineError:
        return False  # the start will say why
    return known is not None and flag in known


def _start(model: ModelSpec, spec: EngineSpec) -> Callable[[], float | Skipped]:
    def load() -> float | Skipped:
        try:
            with serve(model, spec) as server:
                phases = server.endpoint.startup_ms
        except EngineError as error:
            return Skipped(f"it does not start: {error.what}", error.fix or error.why)
        except RedlineError as error:
            return Skipped(error.what, error.fix)
        phase = next((name for name in PHASES if name in phases), "total")
        return phases[phase] / 1000

    return load
