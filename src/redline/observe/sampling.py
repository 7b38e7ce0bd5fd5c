"""Sampling beside a run: in a process of its own, from the `with` to its end. Nothing is raised into the block."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from redline.errors import Skipped
from redline.observe.apart import Apart
from redline.observe.sample import Layouts, Sample, Tick
from redline.observe.samplers import Overhead, Plan, Samplers

Keep = Callable[[list[Tick]], None]
TELL_EVERY_S = 5.0
_ODD = ("gpu", "metrics")
"""What is missed when it is not there. DCGM is a luxury where NVML tells the same."""


class Watch:
    """What `sampling` gives: what the samplers say of themselves, complete after the block."""

    def __init__(self, keep: Keep, source: Apart | Samplers | None = None) -> None:
        self._keep = keep
        self._source = source
        self._notes: list[str] = []
        self._lock = threading.Lock()
        self.heard: Callable[[str, Tick], None] | None = None
        """Gets every tick with its sampler's name, for whoever follows the run."""
        self.tell: Callable[[dict[str, Any]], None] | None = None
        """Gets what the samplers say of themselves, at first and now and then."""
        self._told_s = -math.inf
        self.beside: dict[str, Any] = {}
        """What others who watch say of themselves; told with the rest."""

    def take(self, sampler: str, tick: Tick) -> None:
        try:
            self._keep([tick])
        except Exception as error:  # the run is worth more than its samples
            self.note(f"samples are not kept: {type(error).__name__}: {error}")
        if (heard := self.heard) is not None:
            heard(sampler, tick)

    def renewed(self) -> None:
        if self.tell is None or time.monotonic() - self._told_s < TELL_EVERY_S:
            return
        self._told_s = time.monotonic()
        try:
            self.tell(self.told())
        except Exception as error:
            self.note(f"what the samplers say is not kept: {type(error).__name__}: {error}")

    def note(self, text: str) -> None:
        with self._lock:
            if text not in self._notes:
                self._notes.append(text)

    def told(self) -> dict[str, Any]:
        """Cost of each sampler, what was skipped and why, notes."""
        source = self._source
        told = dict(source.told if isinstance(source, Apart) else source.told() if source is not None else {})
        mine = [*told.get("notes", ()), *(source.notes if isinstance(source, Apart) else ()), *self._notes]
        return {"samplers": {}, "skipped": {}, **told, **self.beside, "notes": list(dict.fromkeys(mine))}

    @property
    def skipped(self) -> list[Skipped]:
        """Those that would have told something about this engine on this box."""
        return [Skipped(**one) for name, one in self.told()["skipped"].items() if name in _ODD]

    @property
    def notes(self) -> list[str]:
        found: list[str] = self.told()["notes"]
        return found

    @property
    def overhead(self) -> dict[str, Overhead]:
        fields = Overhead.__dataclass_fields__
        return {
            name: Overhead(**{key: value for key, value in cost.items() if key in fields})
            for name, cost in self.told()["samplers"].items()
        }


@contextmanager
def sampling(plan: Plan, keep: Keep, *, apart: bool = True, nvml_library: Any = None) -> Iterator[Watch]:
    """Samples what `plan` says until the block ends; `keep` gets the ticks, in a thread of ours.

    `apart` False puts the samplers into threads of this process, as `nvml_library` (in tests, instead of the real one)
    does.
    """
    plan = replace(plan, client=plan.client or os.getpid())
    watch = Watch(keep)
    source: Apart | Samplers | None = None
    try:
        if apart and nvml_library is None:
            source = Apart(plan, watch.take, watch.renewed)
        else:
            source = Samplers(plan, _in_thread(watch), nvml_library)
            source.start()
    except OSError as error:
        watch.note(f"the sampler process does not start: {error}")
    watch._source = source
    try:
        yield watch
    finally:
        if source is not None:
            source.stop()


def _in_thread(watch: Watch) -> Callable[[str, list[Sample]], None]:
    layouts, lock = Layouts(), threading.Lock()

    def emit(sampler: str, samples: list[Sample]) -> None:
        with lock:
            ticks = layouts.ticks(samples)
        for tick in ticks:
            watch.take(sampler, tick)

    return emit
