"""The protocol of an engine adapter, and what a started server can tell."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from redline.engines.endpoint import Endpoint
from redline.errors import Skipped
from redline.spec.engine import EngineSpec
from redline.spec.model import ModelSpec

Progress = Callable[[str], None]
"""Called with one short line whenever the start-up enters a new phase ("loading weights")."""


@dataclass(frozen=True)
class Start:
    """Everything an adapter needs to start: nothing comes from the environment."""

    spec: EngineSpec
    model: ModelSpec
    artifacts: Path
    """An existing folder for the log and whatever else is worth keeping."""
    seed: int = 0
    wrap: tuple[str, ...] = ()
    """Words in front of the command: a profiler that runs it."""
    traces_url: str = ""
    """Where the engine is to send its OpenTelemetry spans (OTLP over HTTP); '' for nowhere."""


class Server(Protocol):
    """A started server. `stop` may be called at any time, from a signal handler's thread too, and twice."""

    @property
    def endpoint(self) -> Endpoint: ...

    def alive(self) -> bool:
        """True while every process of it runs (for kind url: while it accepts connections)."""
        ...

    def healthy(self, timeout_s: float = 5.0) -> bool:
        """True when it answers its health or models endpoint within the time."""
        ...

    def log_tail(self, lines: int = 40) -> str: ...

    def diagnose(self) -> tuple[str, str, str]:
        """(tag, meaning, fix) read from the log; tag is '' when nothing known matched."""
        ...

    def stop(self) -> None:
        """SIGTERM to the first process, then its group; SIGKILL to all after the grace; returns when all are gone."""
        ...


class Engine(Protocol):
    """An adapter. Instances hold no state; one serves any number of starts."""

    kind: str

    def available(self, spec: EngineSpec) -> Skipped | None:
        """None when this box can run it, else what is missing and how to get it. Starts nothing heavy."""
        ...

    def version(self, spec: EngineSpec) -> str: ...

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        """Flag names of the installed engine, without dashes in front; None when it cannot tell."""
        ...

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        """Raises UsageError for flags that the engine lacks, ModelNotFound or TokenizerMissing for the model."""
        ...

    def start(self, start: Start, progress: Progress) -> Server:
        """Returns when the server answered a real request. Raises EngineStartFailed, PortInUse, Unsupported."""
        ...
