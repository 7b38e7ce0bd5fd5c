"""The server's own account of a load point: its `/metrics` before, during and after.

Before and after are asked for here; what lies between comes from the samplers (`heard`), or from a thread of its own
where there are none. What a scrape costs is measured and told with the rest. A server without metrics is a note, not an
error.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

import orjson

from redline.clock import now_ns
from redline.engines.http import try_fetch
from redline.observe.meanings import COUNTERS, GAUGES, SHARES, TIMES
from redline.observe.prometheus import Page, parse
from redline.observe.sample import Sample, Tick

INTERVAL_S = 0.7
MAX_DUTY = 0.05  # a page that takes long is asked for less often
MAX_SERIES = 400
SETTLE_S = 2.0
_TIMEOUT_S = 5.0
_SKIPPED = ("python_", "process_", "http_")  # of the web server's process, not of the engine

_SCRAPE = "engine.scrape_ms"
_HEARD = {
    "running": "engine.requests_running",
    "waiting": "engine.requests_waiting",
    "kv_usage": "engine.kv_usage_share",
}

Keep = Callable[[list[Sample]], None]
_FLIGHTS_MAX = 400


@dataclass(frozen=True)
class _Rest:
    """The server while nothing of ours is in flight: the last page, and what it still did over `seconds`.

    `running` is what its gauge said last, `tokens` how many it counted meanwhile; None where it has no such series.
    """

    page: Page | None = None
    running: float | None = None
    tokens: float | None = None
    seconds: float = 0.0

    def as_dict(self) -> dict[str, float | None]:
        return {"running": self.running, "tokens": self.tokens, "seconds": self.seconds}


@dataclass
class ServerWatch:
    """Use as a context manager around a load point; call `mark` when the measurement begins."""

    url: str | None
    keep: Keep
    headers: Mapping[str, str] = field(default_factory=dict)
    interval_s: float = INTERVAL_S
    alone: bool = True
    """False: somebody else scrapes, and calls `heard`."""

    def __post_init__(self) -> None:
        self._before = self._after = _Rest()
        self._flights: list[tuple[int, int, float]] = []
        self._gauges: dict[str, list[float]] = {name: [] for name in GAUGES}
        self._took_ms: list[float] = []
        self._cpu_s = 0.0
        self._bytes = 0
        self._failed = 0
        self._began_s = time.monotonic()
        self._seconds = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> ServerWatch:
        if self.url is not None and self.alone:
            self._thread = threading.Thread(target=self._loop, name="redline-server-metrics", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=_TIMEOUT_S)
        if self.url is not None and error is None:
            self._after = self._settled()
        self._seconds = time.monotonic() - self._began_s

    def mark(self) -> None:
        """The measurement begins now: what the counters say here is what the point is counted from."""
        if self.url is not None:
            self._before = self._settled()
            with self._lock:
                for values in self._gauges.values():
                    values.clear()
                self._flights.clear()

    def _settled(self) -> _Rest:
        """Once nothing runs and two pages in a row count the same tokens: engines book the last step a bit late."""
        began, first, last = time.monotonic(), None, math.nan
        while True:
            page = self._scrape()
            if page is None:
                return _Rest()
            counters = [first_of(page, COUNTERS[name]) for name in ("prompt_tokens", "generation_tokens")]
            counted = sum(value or 0.0 for value in counters)
            first = counted if first is None else first
            running, seconds = gauge_of(page, "running"), time.monotonic() - began
            if (counted == last and not running) or seconds > SETTLE_S:
                return _Rest(page, running, None if counters[1] is None else counted - first, seconds)
            last = counted
            time.sleep(0.05)

    def _loop(self) -> None:
        while not self._stop.is_set():
            began, began_ns = time.monotonic(), now_ns()
            page = self._scrape()
            if page is not None:
                running = gauge_of(page, "running")
                with self._lock:
                    if running is not None:
                        flight = running + (gauge_of(page, "waiting") or 0.0)
                        self._flights.append((began_ns, now_ns(), flight))
                    for name, values in self._gauges.items():
                        if (value := gauge_of(page, name)) is not None:
                            values.append(value)
                self.keep(samples(page, now_ns()))
            took = time.monotonic() - began
            self._stop.wait(max(self.interval_s - took, took / MAX_DUTY - took))

    def heard(self, sampler: str, tick: Tick) -> None:
        """A tick of the samplers; those of others than `metrics` are none of ours. Never raises."""
        if sampler != "metrics":
            return
        names = {column[0]: place for place, column in enumerate(tick.layout.columns)}
        if _SCRAPE not in names:
            return
        values = orjson.loads(tick.values)
        told = {meaning: values[names[name]] for meaning, name in _HEARD.items() if name in names}
        took_ms = values[names[_SCRAPE]]
        with self._lock:
            self._took_ms.append(took_ms)
            if "running" in told:
                flight = told["running"] + told.get("waiting", 0.0)
                self._flights.append((tick.t_ns - int(took_ms * 1e6), tick.t_ns, flight))
            for meaning, value in told.items():
                self._gauges[meaning].append(value)

    def _scrape(self) -> Page | None:
        began, cpu = time.monotonic(), time.thread_time()
        reply = try_fetch(self.url or "", headers={**self.headers, "Accept": "text/plain"}, timeout_s=_TIMEOUT_S)
        page = parse(reply.text) if reply is not None and reply.ok else None
        with self._lock:
            if page is None or reply is None:
                self._failed += 1
            else:
                self._bytes = max(self._bytes, len(reply.body))
                self._took_ms.append((time.monotonic() - began) * 1000)
                self._cpu_s += time.thread_time() - cpu
        return page

    def as_dict(self) -> dict[str, Any]:
        """For the outcome of the point; call it after the `with` block."""
        if self.url is None:
            return {"note": "the server has no /metrics: nothing but our own account"}
        told: dict[str, Any] = {"scrape": self._cost()}
        before, after = self._before.page, self._after.page
        if before is None or after is None:
            told["note"] = "the server's /metrics did not answer before and after the point"
            return told
        with self._lock:
            gauges = {name: _span(values) for name, values in self._gauges.items() if values}
            every = -(-len(self._flights) // _FLIGHTS_MAX) or 1
            told["flights"] = [list(flight) for flight in self._flights[::every]]
        told |= {"found": self._before.as_dict(), "left": self._after.as_dict()}
        return {**told, **compared(before, after), "gauges": gauges}

    def _cost(self) -> dict[str, Any]:
        took = sorted(self._took_ms)
        return {
            "count": len(took),
            "failed": self._failed,
            "p50_ms": took[len(took) // 2] if took else None,
            "max_ms": took[-1] if took else None,
            "page_bytes": self._bytes,
            "client_cpu_s": self._cpu_s,
            "share_of_time": sum(took) / 1000 / self._seconds if self._seconds > 0 else None,
        }


def samples(page: Page, t_ns: int) -> list[Sample]:
    """Counters and gauges of the engine; not the histograms, not what the web framework says of itself."""
    found = [
        Sample(t_ns, f"server.{one.name}", one.value, _unit(one.name), dict(one.labels))
        for one in page.series
        if one.kind in ("counter", "gauge") and not one.name.startswith(_SKIPPED) and math.isfinite(one.value)
        if not one.name.endswith(("_created", "_info"))
    ]
    return found[:MAX_SERIES]


def compared(before: Page, after: Page) -> dict[str, Any]:
    """`counters` and `times` by meaning, from the differences; `series` has every counter and sum as it was and is."""
    counters, broken = {}, []
    for name, names in COUNTERS.items():
        old, new = first_of(before, names), first_of(after, names)
        if new is None:
            continue
        if new < (old or 0.0):
            broken.append(name)
            continue
        counters[name] = new - (old or 0.0)
    told: dict[str, Any] = {"counters": counters, "times": _times(before, after), "series": _series(before, after)}
    if broken:
        told["note"] = f"counters went backwards ({', '.join(broken)}): the server was started anew during the point"
    return told


def _times(before: Page, after: Page) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for name, families in TIMES.items():
        family = next((one for one in families if after.total(f"{one}_count") is not None), None)
        if family is None:
            continue
        count = (after.total(f"{family}_count") or 0.0) - (before.total(f"{family}_count") or 0.0)
        total = (after.total(f"{family}_sum") or 0.0) - (before.total(f"{family}_sum") or 0.0)
        if count <= 0:
            continue
        old = before.buckets(family)
        cumulative = [(bound, value - old.get(bound, 0.0)) for bound, value in after.buckets(family).items()]
        found[name] = {
            "family": family,
            "count": count,
            "mean_ms": total / count * 1000,
            "p50_ms": quantile(cumulative, 0.5),
            "p90_ms": quantile(cumulative, 0.9),
            "buckets_ms": [[bound * 1000 if math.isfinite(bound) else None, value] for bound, value in cumulative],
        }
    return found


def quantile(cumulative: list[tuple[float, float]], level: float) -> float | None:
    """In ms, linear inside its bucket (as Prometheus does it); None beyond the last finite bound."""
    if not cumulative or cumulative[-1][1] <= 0:
        return None
    wanted, low, below = level * cumulative[-1][1], 0.0, 0.0
    for bound, value in cumulative:
        if value >= wanted:
            if not math.isfinite(bound):
                return None
            return (low + (bound - low) * (wanted - below) / max(value - below, 1e-12)) * 1000
        low, below = bound, value
    return None


def _series(before: Page, after: Page) -> dict[str, list[float | None]]:
    """[before, after] of all but buckets, the ones that moved first kept."""
    old = {one.key: one.value for one in before.series}
    pairs = {
        one.key: (old.get(one.key), one.value)
        for one in after.series
        if not one.name.endswith(("_bucket", "_created")) and not one.name.startswith(_SKIPPED)
        if math.isfinite(one.value)
    }
    moved = sorted(pairs, key=lambda key: pairs[key][0] == pairs[key][1])[:MAX_SERIES]
    return {key: list(pairs[key]) for key in moved}


def first_of(page: Page, names: tuple[str, ...]) -> float | None:
    return next((value for name in names if (value := page.total(name)) is not None), None)


def gauge_of(page: Page, meaning: str) -> float | None:
    """Of all engines of the page: requests add up, of shares it is the mean."""
    if meaning in SHARES:
        return next((value for name in GAUGES[meaning] if (value := page.mean(name)) is not None), None)
    return first_of(page, GAUGES[meaning])


def _span(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "mean": sum(values) / len(values), "max": max(values)}


def _unit(name: str) -> str:
    return next((unit for word, unit in _UNITS.items() if word in name), "")


_UNITS = {"_seconds": "s", "_bytes": "B", "_perc": "share", "_tokens": "tokens", "_requests": "requests"}
