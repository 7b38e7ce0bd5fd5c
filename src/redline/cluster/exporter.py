"""`redline export prometheus`: one page for Prometheus about the run in the results file and the box it runs on."""

from __future__ import annotations

import errno
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.errors import EnvironmentFault, PortInUse, Skipped
from redline.observe.kernel_log import KMSG
from redline.store.file import default_path
from redline.store.read import Reader

PORT = 9410


@dataclass(frozen=True)
class Exporter:
    """A running one. `skipped` is what it cannot tell on this box."""

    url: str
    skipped: tuple[Skipped, ...]
    registry: Any

    def page(self) -> str:
        from prometheus_client import generate_latest

        return str(generate_latest(self.registry).decode())


class _InTurn:
    """Two scrapes at once take turns: collectors remember what they have seen."""

    def __init__(self, collector: Any) -> None:
        self._collector = collector
        self._lock = threading.Lock()

    def collect(self) -> list[Any]:
        with self._lock:
            return list(self._collector.collect())


@contextmanager
def prometheus(
    db: Path | None = None,
    run: str = "last",
    *,
    host: str = "127.0.0.1",
    port: int | None = PORT,
    nvml: Any = None,
    kernel_log: Path = KMSG,
) -> Iterator[Exporter]:
    """Serves /metrics until the block ends; `port` 0 takes a free one, None serves nothing and only makes pages.

    EnvironmentFault without prometheus-client, PortInUse when somebody else has the port, UsageError when a run that is
    named is not there.
    """
    registry, path = _registry(), db or default_path()
    missing = _checked(path, run)
    from redline.cluster.box_metrics import GpuCollector, XidCollector
    from redline.cluster.run_metrics import RunCollector

    gpu, xid = GpuCollector(nvml), XidCollector(kernel_log)
    try:
        for collector in (RunCollector(path, run), gpu, xid):
            registry.register(_InTurn(collector))
        skipped = tuple(one for one in (missing, gpu.skipped, xid.skipped) if one)
        if port is None:
            yield Exporter("", skipped, registry)
            return
        server, thread = _listen(registry, host, port)
        try:
            shown = f"[{host}]" if ":" in host else host
            yield Exporter(f"http://{shown}:{server.server_port}/metrics", skipped, registry)
        finally:
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)
    finally:
        gpu.close()
        xid.close()


def _checked(path: Path, run: str) -> Skipped | None:
    """A run that was asked for by name must be there; the newest one may still come."""
    if run == "last" and not path.exists():
        return Skipped(f"there is no results file at {path} yet", "the page tells of the first run once it begins")
    with Reader.open(path) as reader:
        if run != "last" or reader.runs(1):
            reader.run(run)
            return None
    return Skipped(f"no run is stored in {path} yet", "the page tells of the first one once it begins")


def _registry() -> Any:
    try:
        from prometheus_client import CollectorRegistry
    except ImportError as error:
        raise EnvironmentFault(
            "prometheus-client is not installed", why="it writes the page", fix="pip install 'redline[monitoring]'"
        ) from error
    # what is described ahead would be collected ahead; names cannot clash here
    return CollectorRegistry(auto_describe=False)


def _listen(registry: Any, host: str, port: int) -> tuple[Any, Any]:
    from prometheus_client import start_http_server

    try:
        return start_http_server(port, addr=host, registry=registry)
    except (OSError, OverflowError) as error:
        number = getattr(error, "errno", None)
        if number == errno.EADDRINUSE:
            raise PortInUse(f"port {port} of {host} is taken", fix="--port 0 takes a free one") from error
        what = f"cannot listen on {host}:{port}"
        raise EnvironmentFault(what, why=str(error), fix="an address of this box with --host") from error
