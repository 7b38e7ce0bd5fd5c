"""What is watched beside a trial when the experiment asks for it: kernel events and spans, into the store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from redline.errors import Skipped
from redline.observe.event import Event
from redline.observe.kernel_faults import KernelFaults
from redline.observe.kernel_trace import KernelTrace, open_trace
from redline.observe.otlp import OtlpReceiver
from redline.observe.samplers import EXPLAINING, Plan
from redline.observe.sampling import Watch
from redline.spec.observe import ObserveSpec
from redline.store.store import Store
from redline.tune.sampled import sampled


@contextmanager
def span_receiver(store: Store, trial: int, asked: ObserveSpec) -> Iterator[OtlpReceiver | None]:
    """Listens before the engine starts, since it must be told where."""
    if not asked.spans:
        yield None
        return
    with OtlpReceiver(lambda spans: store.add_spans(trial, spans)) as receiver:
        yield receiver


@contextmanager
def watched(
    store: Store, trial: int, plan: Plan, asked: ObserveSpec, receiver: OtlpReceiver | None, url: str
) -> Iterator[Watch]:
    """The samplers, and what explaining needs beside them. `url` is where the engine answers."""
    wider = replace(plan, samplers=EXPLAINING) if asked.explain else plan
    with sampled(store, trial, wider) as watch, kernel_watch(store, trial, wider.pids, asked, port_of(url)) as kernel:
        if kernel:
            watch.beside["kernel"] = kernel
        try:
            yield watch
        finally:
            if receiver is not None:
                watch.beside["spans"] = {"received": receiver.received, "notes": receiver.notes}


@contextmanager
def kernel_watch(
    store: Store, trial: int, pids: tuple[int, ...], asked: ObserveSpec, port: int
) -> Iterator[dict[str, Any]]:
    """What it yields is what it says of itself: `kinds` of event watched for, `counts`, `notes`; complete at the end.
    Empty when explaining was not asked for."""
    if not asked.explain:
        yield {}
        return
    told: dict[str, Any] = {"kinds": [], "counts": {}, "notes": []}

    def keep(events: list[Event]) -> None:
        store.add_events(trial, events)

    watching: list[KernelFaults | KernelTrace] = []
    with ExitStack() as stack:
        log, opened = KernelFaults.open(keep), open_trace(pids, keep, port=port)
        told["notes"] += [str(one) for one in (log, opened) if isinstance(one, Skipped)]
        if isinstance(log, KernelFaults):
            told["kinds"].append("xid")
            watching.append(stack.enter_context(log))
        if isinstance(opened, KernelTrace):
            watching.append(stack.enter_context(opened))
            told["kinds"] += opened.kinds
        yield told
    for one in watching:
        told["notes"] += one.notes
    if isinstance(opened, KernelTrace):
        told["counts"], told["cpu_s"] = dict(opened.counts), opened.cpu_s


def port_of(url: str) -> int:
    parts = urlsplit(url)
    return parts.port or (443 if parts.scheme == "https" else 80)
