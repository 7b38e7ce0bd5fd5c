"""How a look is shown: four panels, two beside each other from 76 columns on."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from redline.node.nvml import reason_names
from redline.report.telemetry import bars, value_text
from redline.tune.watch import Gauge, Snapshot

TWO_COLUMNS = 76
STALE_S = 5.0
MANY_GPUS = 2
_SLICES_MAX = 40
Row = tuple[str, str, Gauge | None]
"""Name, value, and whose last minute is drawn."""


def view(seen: Snapshot, width: int, *, moving: bool = False) -> RenderableType:
    head = Text.assemble((seen.title, "bold"), f" · {seen.status}", overflow="ellipsis", no_wrap=True)
    if seen.engine and seen.engine not in seen.title:
        head.append(f" · {seen.engine}")
    if seen.point:
        head.append(f" · {seen.point}")
    columns = 2 if width >= TWO_COLUMNS else 1
    each = width // columns
    panels = [_panel(title, list(make(seen)), each) for title, make in _PANELS]
    grid = Table.grid(expand=True)
    for _ in range(columns):
        grid.add_column(ratio=1)
    for start in range(0, len(panels), columns):
        grid.add_row(*panels[start : start + columns])
    return Group(
        head, grid, *[Text(note, style="yellow") for note in _notes(seen)], Text(_foot(seen, moving), style="dim")
    )


def _panel(title: str, rows: list[Row], width: int) -> Panel:
    """Name, value, and as much of the last minute as there is room for."""
    inside = width - 4
    names = max((len(name) for name, _, _ in rows), default=0)
    values = max((len(value) for _, value, gauge in rows if gauge is not None), default=0)
    room = min(inside - names - values - 2, _SLICES_MAX)
    lines = []
    for name, value, gauge in rows:
        line = Text(no_wrap=True, overflow="ellipsis")
        if names:
            line.append(f"{name:<{names}} ", style="dim")
        if gauge is None:
            line.append(value)
        else:
            stale = gauge.age_s > STALE_S
            line.append(f"{value:>{values}} ", style="dim" if stale else "bold")
            if room > 3:
                line.append(_drawn(gauge, room), style="dim" if stale else "cyan")
        lines.append(line)
    return Panel(Group(*lines) if lines else Text("nothing yet", style="dim"), title=title, title_align="left")


def _drawn(gauge: Gauge, room: int) -> str:
    """The last minute, newest at the right; shares from 0 to 1, others from 0 to their highest."""
    slices: list[list[float]] = [[] for _ in range(room)]
    for ago, value in gauge.recent:
        place = room - 1 - int(ago / 60 * room)
        if 0 <= place < room:
            slices[place].append(value)
    means = [sum(one) / len(one) if one else None for one in slices]
    highest = 1.0 if gauge.unit == "share" else max((mean for mean in means if mean is not None), default=0.0)
    return "".join(" " if mean is None else bars([mean], 0.0, highest) for mean in means)


def _of(seen: Snapshot, name: str, title: str, **labels: str) -> Iterator[Row]:
    """A row for the first series of this name with these labels."""
    for gauge in seen.find(name):
        if all(gauge.labels.get(key) == value for key, value in labels.items()):
            yield title, value_text(name, gauge.value, gauge.unit), gauge
            return


def _gpu(seen: Snapshot) -> Iterator[Row]:
    gpus = sorted({gauge.labels["gpu"] for gauge in seen.gauges if "gpu" in gauge.labels}, key=lambda n: (len(n), n))
    if not gpus:
        skipped = (seen.telemetry.get("skipped") or {}).get("gpu")
        yield "", skipped["reason"] if skipped else "no GPU was sampled", None
    for gpu in gpus if len(gpus) <= MANY_GPUS else []:
        mark = f"{gpu} " if len(gpus) > 1 else ""
        for name, title in (
            ("utilisation_share", "busy"), ("sm_active_share", "SMs active"), ("tensor_active_share", "tensor"),
            ("dram_active_share", "DRAM"), ("power_w", "power"), ("memory_used_bytes", "memory"),
            ("sm_clock_mhz", "SM clock"), ("temperature_c", "heat"), ("pcie_rx_bytes_per_s", "PCIe in"),
        ):  # fmt: skip
            yield from _of(seen, f"gpu.{name}", mark + title, gpu=gpu)
        yield from _slowed(seen, gpu, mark)
    for gpu in gpus if len(gpus) > MANY_GPUS else []:
        told = [
            value_text(found[0].name, found[0].value)
            for name in ("power_w", "memory_used_bytes", "dram_active_share")
            if (found := [one for one in seen.find(f"gpu.{name}") if one.labels == {"gpu": gpu}])
        ]
        for _, busy, gauge in _of(seen, "gpu.utilisation_share", "", gpu=gpu):
            yield f"{gpu} {' · '.join(told)}", busy, gauge


def _slowed(seen: Snapshot, gpu: str, mark: str) -> Iterator[Row]:
    for gauge in seen.find("gpu.slowed"):
        if gauge.labels.get("gpu") == gpu and gauge.value:
            bits = [one.value for one in seen.find("gpu.clock_event_bits") if one.labels == gauge.labels]
            yield f"{mark}slowed by", ", ".join(reason_names(int(bits[0]) if bits else 0)), None


def _host(seen: Snapshot) -> Iterator[Row]:
    yield from _of(seen, "host.cpu_busy_share", "CPU")
    cores = sorted(seen.find("host.cpu_core_busy_share"), key=lambda one: int(one.labels["cpu"]))
    if cores:
        yield "cores", bars([one.value for one in cores], 0.0, 1.0), None
    for name, title in (
        ("host.cpu_pressure_share", "wait CPU"), ("host.memory_pressure_share", "wait memory"),
        ("host.io_pressure_share", "wait disk"), ("host.memory_available_bytes", "available"),
        ("host.major_faults_per_s", "major faults"), ("host.interrupts_per_s", "interrupts"),
    ):  # fmt: skip
        yield from _of(seen, name, title)
    for title, name in (("disk read", "host.disk_read_bytes_per_s"), ("disk write", "host.disk_written_bytes_per_s")):
        busiest = max(seen.find(name), key=lambda one: one.value, default=None)
        if busiest is not None:
            yield title, value_text(name, busiest.value), busiest


def _engine(seen: Snapshot) -> Iterator[Row]:
    if not any(gauge.name.startswith("engine.") for gauge in seen.gauges):
        skipped = (seen.telemetry.get("skipped") or {}).get("metrics")
        yield "", skipped["reason"] if skipped and seen.engine else "no engine is looked at", None
    for name, title in (
        ("engine.requests_running", "running"), ("engine.requests_waiting", "waiting"),
        ("engine.kv_usage_share", "KV cache"), ("engine.generation_tokens_per_s", "output"),
        ("engine.preemptions_per_s", "preemptions"), ("engine.prefix_hit_share", "prefix hits"),
        ("engine.draft_accepted_share", "accepted"),
    ):  # fmt: skip
        yield from _of(seen, name, title)
    for name, title in (("engine.queue_ms", "queue"), ("engine.ttft_ms", "TTFT"), ("engine.itl_ms", "ITL")):
        yield from _of(seen, name, title, stat="mean")
    for name, title in (
        ("engine.cpu_cores", "CPU"), ("engine.run_queue_ms_per_s", "no CPU"), ("engine.rss_bytes", "memory"),
        ("engine.gpu_memory_bytes", "GPU memory"),
    ):  # fmt: skip
        yield from _of(seen, name, title)


def _client(seen: Snapshot) -> Iterator[Row]:
    rows = [
        row
        for name, title in (
            ("client.in_flight", "in flight"), ("client.finished", "finished"), ("client.failed", "failed"),
            ("client.output_tokens_per_s", "output"), ("client.ttft_p50_ms", "TTFT p50"),
            ("client.ttft_p99_ms", "TTFT p99"), ("client.tpot_p50_ms", "TPOT p50"),
            ("client.send_lag_ms", "send lag"), ("client.busy_share", "worker CPU"),
        )
        for row in _of(seen, name, title)
    ]  # fmt: skip
    yield from rows or [("", "no load of ours", None)]


_PANELS: tuple[tuple[str, Callable[[Snapshot], Iterator[Row]]], ...] = (
    ("GPU", _gpu), ("engine", _engine), ("host", _host), ("client", _client),
)  # fmt: skip


def _notes(seen: Snapshot) -> list[str]:
    return list(seen.telemetry.get("notes") or [])[-3:]


def _foot(seen: Snapshot, moving: bool) -> str:
    costs = seen.telemetry.get("samplers") or {}
    parts = [f"{name} {cost['cpu_share']:.1%} of a core" for name, cost in costs.items() if cost.get("cpu_share")]
    said = ["sampling: " + ", ".join(parts)] if parts else []
    return " · ".join([*said, "Ctrl-C leaves"] if moving else said)
