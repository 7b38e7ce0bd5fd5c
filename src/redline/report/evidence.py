"""Where a number came from: counts, definitions, and the SQL that gives the same number again."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from redline.analyse.percentile import LEVELS, rank
from redline.analyse.summary import PointSummary
from redline.report.model import Measured
from redline.spec.workload import SLOW_READER

_COUNTED = (
    "point_id = {point} AND NOT warmup AND canary < 0 AND status NOT IN ('cancelled', 'abandoned') "
    f"AND request_class <> '{SLOW_READER}'"
)


@dataclass(frozen=True)
class Proof:
    """One number of one load point, and the statement for `redline sql` that reproduces it."""

    name: str
    value: float
    unit: str
    sql: str


def proofs(measured: Measured) -> Iterator[Proof]:
    """For the numbers that stand in the comparison table."""
    summary = measured.summary
    levels = ("p50", "p99")
    for name in (f"{metric}.{level}" for metric in ("ttft_ms", "e2e_ms") for level in levels):
        metric, _, level = name.partition(".")
        if not math.isnan(summary.value(name)):
            yield Proof(name, summary.value(name), "ms", _latency_sql(measured, metric, LEVELS[level]))
    if not summary.counts.get("failed") and not math.isnan(summary.value("itl_ms.p50")):
        for level in levels:
            yield Proof(f"itl_ms.{level}", summary.value(f"itl_ms.{level}"), "ms", _gap_sql(measured, LEVELS[level]))
    if summary.window.seconds > 0 and _chunks_hold_all(summary):
        rate = summary.value("output_tokens_per_s")
        yield Proof("output_tokens_per_s", rate, "tok/s", _tokens_sql(measured))


def _chunks_hold_all(summary: PointSummary) -> bool:
    """False when the server's count and the chunks disagree: the rate is then scaled request by request."""
    good = summary.counts["counted"] - summary.counts["failed"]
    in_chunks = sum(size * count for size, count in summary.tokens_per_chunk.items())
    return good > 0 and abs(summary.value("output_tokens") * good - in_chunks) < 0.5


def _latency_sql(measured: Measured, metric: str, level: float) -> str:
    n = measured.summary.findings[f"{metric}.p50"].of
    return (
        f"SELECT CASE status WHEN 'ok' THEN {metric} ELSE 9e999 END AS {metric} FROM request_latency "
        f"WHERE {_COUNTED.format(point=measured.point_id)} AND (status <> 'ok' OR {metric} IS NOT NULL) "
        f"ORDER BY 1 LIMIT 1 OFFSET {rank(n, level) - 1}"
    )


def _gap_sql(measured: Measured, level: float) -> str:
    """Sorted gaps of all requests together; chunks of several tokens bring gaps of 0."""
    return (
        "WITH chunk AS (SELECT request.id, t.key AS place, t.value AS at, n.value AS tokens "
        "FROM request, json_each(chunk_times(chunk_ns)) t, json_each(chunk_counts(chunk_tokens)) n "
        f"WHERE t.key = n.key AND n.value > 0 AND {_COUNTED.format(point=measured.point_id)}), "
        "gap AS (SELECT max(0, at - lag(at) OVER (PARTITION BY id ORDER BY place)) / 1e6 AS itl_ms FROM chunk), "
        "ordered AS (SELECT itl_ms, row_number() OVER (ORDER BY itl_ms) AS n FROM gap WHERE itl_ms IS NOT NULL), "
        "total AS (SELECT (SELECT sum(tokens - 1) FROM chunk) AS zeros, (SELECT count(*) FROM ordered) AS real), "
        f"place AS (SELECT ((zeros + real) * {round(level * 100)} + 99) / 100 - zeros AS k FROM total) "
        "SELECT CASE WHEN k < 1 THEN 0.0 ELSE (SELECT itl_ms FROM ordered WHERE n = k) END AS itl_ms FROM place"
    )


def _tokens_sql(measured: Measured) -> str:
    window = measured.summary.window
    return (
        f"SELECT sum(n.value) / {window.seconds!r} AS output_tokens_per_s "
        "FROM request, json_each(chunk_times(chunk_ns)) t, json_each(chunk_counts(chunk_tokens)) n "
        f"WHERE point_id = {measured.point_id} AND t.key = n.key "
        f"AND t.value >= {window.start_ns} AND t.value < {window.end_ns}"
    )


def counts_text(summary: PointSummary) -> str:
    """`290 measured: 284 ok, 4 reset, 2 cancelled · 10 warm-up`."""
    counts = summary.counts
    known = ("measured", "counted", "failed", "warmup")
    parts = [f"{count} {status}" for status, count in counts.items() if status not in known and count]
    text = f"{counts['measured']} measured: {', '.join(parts) or 'none'}"
    return text + (f" · {counts['warmup']} warm-up" if counts["warmup"] else "")


def window_text(measured: Measured) -> str:
    """Where the steady window lies, in seconds from the start of the measurement."""
    start, end = measured.timeline.steady
    window = measured.summary.window
    found = "found" if window.found else "not found, the whole point is taken"
    text = f"{start:.2f} s – {end:.2f} s ({window.seconds:.2f} s, {found})"
    return text + (f": {window.note}" if window.note else "")


def chunks_text(summary: PointSummary) -> str:
    """`1 token: 97.0 %, 2 tokens: 3.0 %`."""
    total = sum(summary.tokens_per_chunk.values())
    largest = sorted(summary.tokens_per_chunk.items(), key=lambda entry: -entry[1])[:6]
    return ", ".join(f"{size} token{'' if size == 1 else 's'}: {count / total:.1%}" for size, count in sorted(largest))


def tally_text(tally: dict[str, int]) -> str:
    """`usage` alone, or `usage 284, chunks 6`."""
    return next(iter(tally)) if len(tally) == 1 else ", ".join(f"{name} {count}" for name, count in tally.items())


def box_rows(provenance: dict[str, Any]) -> list[tuple[str, str]]:
    """The box as (name, value), nested names joined by dots; what could not be read says why."""
    return list(_flat("", provenance))


def _flat(name: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, dict) and "skipped" in value:
        yield name, f"not read: {value['skipped']}"
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _flat(f"{name}.{key}" if name else str(key), entry)
    elif isinstance(value, list) and any(isinstance(entry, dict) for entry in value):
        for i, entry in enumerate(value):
            yield from _flat(f"{name}.{i}", entry)
    elif isinstance(value, list):
        yield name, ", ".join(map(str, value))
    elif isinstance(value, bool):
        yield name, "yes" if value else "no"
    else:
        yield name, "–" if value is None else f"{value:,}" if isinstance(value, int) else str(value)


def box_line(provenance: dict[str, Any]) -> str:
    """CPU, memory, GPU, kernel in one line."""
    if not provenance.keys() & {"cpu", "memory", "gpu", "kernel"}:
        return "box not known"  # of an import: whether it had a GPU nobody said
    cpu, gpu = provenance.get("cpu") or {}, provenance.get("gpu")
    cores = cpu.get("usable_cores") or cpu.get("cores")
    memory = (provenance.get("memory") or {}).get("usable_bytes") or (provenance.get("memory") or {}).get("total_bytes")
    parts = [
        f"{cores:g} cores {cpu.get('model', '')}".strip() if cores else str(cpu.get("model", "")),
        f"{memory / 1e9:.0f} GB" if isinstance(memory, (int, float)) else "",
        _gpu_line(gpu),
        f"Linux {(provenance.get('kernel') or {}).get('release', '')}".strip(),
    ]
    return " · ".join(part for part in parts if part)


def _gpu_line(gpu: Any) -> str:
    if not isinstance(gpu, dict) or "skipped" in gpu:
        return "no GPU"
    devices = gpu.get("devices") or gpu.get("gpus") or []
    names = [str(device.get("name", "GPU")) for device in devices if isinstance(device, dict)]
    return ", ".join(f"{names.count(name)} × {name}" for name in dict.fromkeys(names)) or "GPU"
