"""The load generator on itself: its error on a server that knows the truth, its lags, how busy it was, who stamped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from redline.report.model import Measured, ModelReport, load_label
from redline.report.numbers import number
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

_HEADS = (
    "load", "engine", "stamps", "TTFT error: bias, p99", "ITL error: bias, p99", "p99 off: TTFT, ITL", "send lag p99",
    "user-space stamp late p99", "CPU", "takes chunks/s",
)  # fmt: skip


def client_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when no load point was measured."""
    table, notes = [], list[str]()
    for model in models:
        for engine in model.engines:
            for load, found in engine.points.items():
                for one in found:
                    table.append(_row(load_label(load), engine.label, one))
                    notes += _notes(one)
    if not table:
        return None
    notes.insert(
        0,
        "Errors are those of this client under the same load on the paced server, whose true times are known; what the "
        "engine's work does to the client shows in the lags.",
    )
    return Section("client", "The load generator on itself", _HEADS, tuple(table), tuple(dict.fromkeys(notes)))


def _row(load: str, engine: str, one: Measured) -> tuple[str, ...]:
    outcome = one.outcome
    known: dict[str, Any] = outcome.get("calibration") or {}
    seconds = _measured_s(one)
    return (
        load,
        engine,
        str(outcome.get("stamp", "–")),
        _pair(known, "ttft_bias_ms", "ttft_error_p99_ms"),
        _pair(known, "itl_bias_ms", "itl_error_p99_ms"),
        _shares(known, "ttft_p99_off", "itl_p99_off"),
        _ms(outcome.get("send_lag_ms_p99")),
        _ms(outcome.get("read_lag_ms_p99")),
        f"{outcome['client_cpu_s'] / seconds:.0%}" if outcome.get("client_cpu_s") and seconds else "–",
        number(_value(known, "sustains_chunks_per_s")),
    )


def _measured_s(one: Measured) -> float:
    """From the end of the warm-up to the end of the point, which is what the CPU time is of: the steady window is
    shorter. The first and the last slice of the timeline lie half a slice inside."""
    middles = one.timeline.seconds
    return float(middles[0] + middles[-1])


def _notes(one: Measured) -> list[str]:
    stamps = one.outcome.get("stamps") or {}
    known = one.outcome.get("calibration") or {}
    notes = []
    if stamps.get("why_not"):
        notes.append(f"no better stamps: {stamps['why_not']}")
    if stamps.get("fell_back"):
        lost = f", {stamps['dropped']} segments had no room in the ring" if stamps.get("dropped") else ""
        notes.append(f"{stamps['fell_back']} streams kept the socket's stamps{lost}")
    if not known or known.get("off"):
        notes.append("not calibrated, so the client's own error is not known (--calibrate 2)")
    if not known.get("streamed", True):
        notes.append("answers came in one piece: instead of TTFT the error is that of the time to the whole answer")
    if known.get("failed"):
        notes.append(f"calibration failed: {known['failed']}")
    if known.get("after"):
        notes.append("chunks came faster than calibrated: calibrated again at the real rate, afterwards")
    return notes


def _value(known: dict[str, Any], key: str) -> float:
    value = known.get(key)
    return float(value) if isinstance(value, (int, float)) else math.nan


def _ms(value: object) -> str:
    return f"{value:.3f} ms" if isinstance(value, (int, float)) else "–"


def _pair(known: dict[str, Any], bias: str, tail: str) -> str:
    first, second = _value(known, bias), _value(known, tail)
    return "–" if math.isnan(first) else f"{first:+.3f}, {second:.3f} ms"


def _shares(known: dict[str, Any], *keys: str) -> str:
    values = [_value(known, key) for key in keys]
    return "–" if all(map(math.isnan, values)) else ", ".join(f"{value:+.2%}" for value in values)
