"""Sampling into the store: what every trial of a comparison has beside it, and an engine that is only served."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from urllib.parse import urlsplit

from redline.engines.endpoint import Endpoint
from redline.observe.samplers import Plan
from redline.observe.sampling import Watch, sampling
from redline.observe.signals import listener_pids
from redline.spec.engine import EngineSpec
from redline.store.store import Store

SERVING_S, SERVING_METRICS_S = 1.0, 5.0
"""Days of serving at ten looks a second would make a file of gigabytes."""
_HERE = ("127.0.0.1", "::1", "localhost")


@contextmanager
def sampled(store: Store, trial: int, plan: Plan) -> Iterator[Watch]:
    """What the samplers say of themselves is with the trial at the end, also when the block fails."""
    watch: Watch | None = None
    try:
        with sampling(plan, lambda ticks: store.add_ticks(trial, ticks)) as watch:
            watch.tell = lambda told: store.keep_telemetry(trial, told)
            yield watch
    finally:
        if watch is not None:
            store.keep_telemetry(trial, watch.told())


def plan_for(endpoint: Endpoint, spec: EngineSpec, *, serving: bool = False) -> Plan:
    """A server of somebody else on this box is known by who listens on its port."""
    pids = tuple(endpoint.pids) or pids_behind(endpoint.base_url)
    plan = Plan(pids=pids, metrics_url=endpoint.metrics_url, headers=key_header(spec))
    return replace(plan, interval_s=SERVING_S, metrics_interval_s=SERVING_METRICS_S) if serving else plan


def pids_behind(url: str) -> tuple[int, ...]:
    """Processes of this box that listen where `url` points; () elsewhere and where that may not be known."""
    parts = urlsplit(url)
    return listener_pids(parts.port or 80) if parts.hostname in _HERE else ()


def key_header(spec: EngineSpec) -> dict[str, str]:
    key = os.environ.get(spec.api_key_env) if spec.api_key_env else None
    return {"Authorization": f"Bearer {key}"} if key else {}
