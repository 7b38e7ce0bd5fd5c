"""Start an engine, wait until it answers, hand out its `Server`. What every adapter that starts something shares.

An adapter says what it knows in a `Plan` and returns `launch(plan, start, progress)`:

    def start(self, start: Start, progress: Progress) -> Server:
        python = interpreter(start.spec.python)
        plan = Plan(
            engine="mine",
            version=self.version(start.spec),
            model=start.model.served_name,
            argv=lambda port: [python, "-m", "mine.server", "--port", str(port), *flag_arguments],
            env=engine_env(start.spec, python, added={"MINE_QUIET": "1"}),
            phases=(Phase("load", "loading weights", re.compile("Loading weights")),),
            dialect=Dialect(ignore_eos=True),
            flags=lambda ready, log: {"dtype": "bfloat16"},      # resolved values, read back
        )
        return launch(plan, start, progress)

`launch` picks or checks the port, writes the log to `start.artifacts/engine.log`, times the phases (`spawn`, `boot`,
the plan's own, `first_answer`, `total`), ends the process when anything fails, and raises EngineStartFailed with the
log's tail and a diagnosis. The command that ran is in `Endpoint.command`, what redline set on its own in
`Endpoint.added`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from redline import blas
from redline.engines import port as ports
from redline.engines.diagnose import diagnose
from redline.engines.endpoint import Dialect, Endpoint
from redline.engines.engine import Progress, Start
from redline.engines.guard import Proc
from redline.engines.http import try_fetch
from redline.engines.process import ManagedProcess, spawn
from redline.engines.ready import Phase, Ready, Stopwatch, Waiting, wait_until_ready
from redline.errors import EngineStartFailed, EnvironmentFault
from redline.spec.engine import EngineSpec

PORT_ATTEMPTS = 4


def _first_only(tree: Sequence[Proc]) -> Iterable[int]:
    return [proc.pid for proc in tree[:1]]


@dataclass(frozen=True)
class Plan:
    """What an adapter knows about starting its engine.

    `env` is the whole environment. `flags` gets the answer and the whole log and returns the resolved values.
    `essential` picks, out of the tree at the moment of readiness (first process first), the pids without which the
    engine is not alive. `added` names the flags and variables that redline set without being asked.
    """

    engine: str
    version: str
    model: str
    argv: Callable[[int], Sequence[str]]
    env: Mapping[str, str]
    phases: tuple[Phase, ...] = ()
    dialect: Dialect = field(default_factory=Dialect)
    flags: Callable[[Ready, str], dict[str, str]] = lambda ready, log: {}
    essential: Callable[[Sequence[Proc]], Iterable[int]] = _first_only
    added: Mapping[str, str] = field(default_factory=dict)
    health_path: str = "/health"
    metrics_path: str | None = "/metrics"
    headers: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None


class LaunchedServer:
    """A server whose processes redline started."""

    def __init__(self, endpoint: Endpoint, process: ManagedProcess, plan: Plan, stop_timeout_s: float) -> None:
        self.endpoint = endpoint
        self.process = process
        self._plan = plan
        self._stop_timeout_s = stop_timeout_s

    def alive(self) -> bool:
        return self.process.running()

    def healthy(self, timeout_s: float = 5.0) -> bool:
        url = root_of(self.endpoint.base_url) + self._plan.health_path
        reply = try_fetch(url, headers=self._plan.headers, timeout_s=timeout_s)
        return reply is not None and reply.ok

    def log_tail(self, lines: int = 40) -> str:
        return self.process.log_tail(lines)

    def diagnose(self) -> tuple[str, str, str]:
        found = diagnose(self.process.log_tail(2000), self.process.settled_exit_status())
        return found.tag, found.meaning, found.fix

    def stop(self) -> None:
        self.process.stop(self._stop_timeout_s)


def launch(plan: Plan, start: Start, progress: Progress) -> LaunchedServer:
    """Starts the plan's command and returns when it answered. A port that was lost in a race is picked anew."""
    for attempt in range(1, PORT_ATTEMPTS + 1):
        try:
            return _attempt(plan, start, progress)
        except EngineStartFailed as error:
            if error.diagnosis != "port-in-use" or start.spec.port or attempt == PORT_ATTEMPTS:
                raise
            progress("the port was taken meanwhile: trying another")
    raise AssertionError("unreachable")


def _attempt(plan: Plan, start: Start, progress: Progress) -> LaunchedServer:
    spec = start.spec
    with ports.Claim(spec.host, spec.port) as claim:
        argv = [*start.wrap, *(str(part) for part in plan.argv(claim.port))]
        root_url = f"http://{_reachable(spec.host)}:{claim.port}"
        log = _free_name(start.artifacts / "engine.log")
        watch = Stopwatch(progress)
        claim.release()
        process = spawn(argv, env=plan.env, log=log, cwd=plan.cwd, orphan_grace_s=min(spec.stop_timeout_s, 5.0))
    try:
        ready = wait_until_ready(
            process,
            Waiting(
                plan.engine,
                root_url,
                claim.port,
                plan.model,
                plan.phases,
                plan.health_path,
                spec.startup_timeout_s,
                plan.headers,
            ),
            watch,
        )
        return LaunchedServer(_endpoint(plan, ready, process, argv), process, plan, spec.stop_timeout_s)
    except BaseException:
        process.stop(min(spec.stop_timeout_s, 5.0))
        raise


def _endpoint(plan: Plan, ready: Ready, process: ManagedProcess, argv: Sequence[str]) -> Endpoint:
    tree = process.tree()
    process.watch(plan.essential(tree))
    longest = ready.model.get("max_model_len")
    return Endpoint(
        base_url=ready.root_url + "/v1",
        model=plan.model,
        engine=plan.engine,
        engine_version=plan.version,
        flags=plan.flags(ready, process.log.read_text("utf-8", "replace")),
        pids=tuple(proc.pid for proc in tree),
        metrics_url=_metrics_url(plan, ready.root_url),
        dialect=plan.dialect,
        startup_ms=ready.startup_ms,
        max_model_len=longest if isinstance(longest, int) else None,
        command=tuple(argv),
        added=dict(plan.added),
    )


def _metrics_url(plan: Plan, root_url: str) -> str | None:
    if plan.metrics_path is None:
        return None
    reply = try_fetch(root_url + plan.metrics_path, headers=plan.headers, timeout_s=10.0)
    return root_url + plan.metrics_path if reply is not None and reply.ok else None


def root_of(base_url: str) -> str:
    """The server's address without `/v1`."""
    return base_url.rstrip("/").removesuffix("/v1")


def _reachable(host: str) -> str:
    """Where to reach a server that listens on `host`: loopback for the wildcard addresses."""
    if host in ("", "0.0.0.0"):
        return "127.0.0.1"
    if host == "::":
        return "[::1]"
    return f"[{host}]" if ":" in host else host


def _free_name(path: Path) -> Path:
    candidate, number = path, 2
    while candidate.exists():
        candidate = path.with_name(f"{path.stem}-{number}{path.suffix}")
        number += 1
    return candidate


def interpreter(python: str) -> str:
    """The interpreter for `EngineSpec.python`: ours when empty, `bin/python` of a virtual environment's folder.

    The path is not resolved: a virtual environment's `python` is a link whose place matters.
    """
    if not python:
        return sys.executable
    path = Path(python).expanduser()
    if path.is_dir():
        path = path / "bin" / "python"
    elif "/" not in python:
        path = Path(shutil.which(python) or path)
    if not (path.is_file() and os.access(path, os.X_OK)):
        raise EnvironmentFault(
            f"there is no Python interpreter at {python}",
            why="The engine's field `python` names an interpreter or the folder of a virtual environment.",
            fix="Create the environment, or correct the path.",
        )
    return str(path.absolute())


def engine_env(spec: EngineSpec, python: str, added: Mapping[str, str] = {}) -> dict[str, str]:
    """The engine's whole environment: ours, then `added`, then what the experiment says.

    Beside that, as activating its virtual environment would: its `bin` comes first on PATH (engines call `ninja` and
    compilers by name), and PYTHONHOME goes when the interpreter is not ours.
    """
    env = dict(os.environ)
    blas.leave_alone(env)
    if python != sys.executable:
        env.pop("PYTHONHOME", None)
    env["PATH"] = os.pathsep.join([str(Path(python).parent), env.get("PATH", os.defpath)])
    return {**env, **added, **spec.env}
