"""The curves behind a load point, on the time axis of its requests: from the start of the measurement, in seconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from redline.analyse.curves import Timeline
from redline.analyse.telemetry import Line, Panel, sliced
from redline.store.read import Reader
from redline.store.rows import Series

MOST = 4
"""Curves of one name in a panel, e.g. of the GPUs; more of them are shown as their mean."""
PANELS: tuple[tuple[str, str, tuple[tuple[str, str], ...]], ...] = (
    ("requests", "", (
        ("in flight", "client.in_flight"), ("running", "engine.requests_running"),
        ("waiting", "engine.requests_waiting"),
    )),
    ("cache", "share", (("KV cache", "engine.kv_usage_share"), ("prefix hits", "engine.prefix_hit_share"),
        ("drafts accepted", "engine.draft_accepted_share"))),
    ("preemptions", "1/s", (("preemptions", "engine.preemptions_per_s"),)),
    ("GPU activity", "share", (
        ("SMs active", "gpu.sm_active_share"), ("tensor", "gpu.tensor_active_share"),
        ("DRAM", "gpu.dram_active_share"), ("a kernel resident", "gpu.utilisation_share"),
    )),
    ("GPU power", "W", (("power", "gpu.power_w"),)),
    ("GPU clock", "MHz", (("SM clock", "gpu.sm_clock_mhz"),)),
    ("PCIe", "B/s", (("to the GPU", "gpu.pcie_rx_bytes_per_s"), ("from the GPU", "gpu.pcie_tx_bytes_per_s"))),
    ("CPU", "cores", (("engine", "engine.cpu_cores"), ("redline", "client.cpu_cores"))),
    ("ready, no CPU", "ms/s", (("engine's threads", "engine.run_queue_ms_per_s"),)),
    ("pressure", "share", (
        ("host CPU busy", "host.cpu_busy_share"), ("CPU", "host.cpu_pressure_share"),
        ("memory", "host.memory_pressure_share"), ("disk", "host.io_pressure_share"),
    )),
    ("disk", "B/s", (("read", "host.disk_read_bytes_per_s"), ("written", "host.disk_written_bytes_per_s"))),
    ("major faults", "1/s", (("host", "host.major_faults_per_s"),)),
)  # fmt: skip
_ALWAYS = {"requests", "cache", "GPU activity", "CPU", "pressure"}
"""The others are shown where something moved."""


def panels(reader: Reader, run_id: str, trial_id: int, start_ns: int, end_ns: int) -> tuple[Panel, ...]:
    """Those that have something to show in this stretch of time."""
    names = [name for _, _, lines in PANELS for _, name in lines]
    found: dict[str, list[Series]] = {}
    if end_ns > start_ns:
        for series in reader.run_samples(run_id, names, start_ns, end_ns):
            if series.trial_id == trial_id and "mig" not in series.labels:
                found.setdefault(series.name, []).append(series)
    made = []
    for title, unit, wanted in PANELS:
        lines = [line for said, name in wanted for line in _lines(said, found.get(name, []), start_ns, end_ns)]
        lines = [line for line in lines if len(line.value) > 1]
        if lines and (title in _ALWAYS or any(line.value.max() > line.value.min() for line in lines)):
            made.append(Panel(title, unit, tuple(lines)))
    return tuple(made)


def latency_panels(timeline: Timeline) -> tuple[Panel, ...]:
    """Of the requests themselves, to look at the others by."""
    told = (
        ("output", "tok/s", (("tokens", timeline.tokens_per_s),)),
        ("TTFT", "ms", (("p50", timeline.ttft_p50), ("longest", timeline.ttft_max))),
        ("ITL", "ms", (("p50", timeline.itl_p50), ("p99", timeline.itl_p99))),
    )
    made = []
    for title, unit, curves in told:
        known = [(name, value, np.isfinite(value)) for name, value in curves]
        lines = tuple(Line(name, timeline.seconds[ok], value[ok]) for name, value, ok in known if ok.sum() > 1)
        if lines:
            made.append(Panel(title, unit, lines))
    return tuple(made)


def _lines(said: str, series: Sequence[Series], start_ns: int, end_ns: int) -> list[Line]:
    if not series:
        return []
    if len(series) > MOST:
        times, values = (np.concatenate([getattr(one, what) for one in series]) for what in ("t_ns", "value"))
        return [sliced(f"{said}, mean of {len(series)}", times, values, start_ns, end_ns)]
    shared = [set(one.labels.items()) for one in series]
    common = set.intersection(*shared)
    names = [" ".join([said, *(f"{k} {v}" for k, v in sorted(own - common))]) for own in shared]
    return [sliced(name, one.t_ns, one.value, start_ns, end_ns) for name, one in zip(names, series, strict=True)]
