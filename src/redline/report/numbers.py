"""How numbers are written: three significant digits, ∞ for what a failure occupies, – for what is not there."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from redline.analyse.comparison import Pooled, Ratio
from redline.analyse.finding import Interval
from redline.analyse.percentile import is_maximum

NONE = "–"
FEW_MARK = "†"
FEW_NOTE = f"{FEW_MARK} too few values for this percentile: it is their maximum"
STATE_MARK = {"valid": "✓", "degraded": "!", "client-bound": "✗", "invalid": "✗"}

NAMES = {
    "ttft_ms": "TTFT", "ttfat_ms": "TTFT of the answer", "itl_ms": "ITL", "tpot_ms": "TPOT", "e2e_ms": "E2E",
    "output_tokens_per_s": "output throughput", "input_tokens_per_s": "input throughput",
    "total_tokens_per_s": "total throughput",
    "requests_per_s": "requests", "goodput_per_s": "goodput", "startup_s": "start-up", "rss_bytes": "memory",
    "gpu_memory_bytes": "GPU memory",
}  # fmt: skip


def number(value: float) -> str:
    """`0.0123`, `0.123`, `1.23`, `12.3`, `123`, `1,234`."""
    if math.isnan(value):
        return NONE
    if math.isinf(value):
        return "∞" if value > 0 else "-∞"
    size = abs(value)
    if size == 0:
        return "0"
    if size < 0.0995:
        return f"{value:.3g}"  # decimals alone would make a small one 0.000
    digits = 0 if size >= 99.95 else 1 if size >= 9.995 else 2 if size >= 0.9995 else 3
    return f"{value:,.{digits}f}"


def percentile_text(value: float, level: float, of: int) -> str:
    """A percentile of `of` values, marked when it is no more than their maximum; 0 when their number is not known."""
    return number(value) + (FEW_MARK if is_maximum(of, level) and not math.isnan(value) else "")


def few_notes(rows: Iterable[Sequence[str]]) -> tuple[str, ...]:
    """What the mark means, where a table has one."""
    return (FEW_NOTE,) if any(FEW_MARK in cell for row in rows for cell in row) else ()


def data_size(value: float) -> str:
    """Bytes as MB or GB (powers of ten)."""
    if math.isnan(value):
        return NONE
    if value >= 1e9:
        return f"{number(value / 1e9)} GB"
    return f"{value / 1e6:,.0f} MB" if value >= 1e7 else f"{number(value / 1e6)} MB"


def points(share: float) -> str:
    """A difference of shares in percentage points: `0.25`, `3`, `100`; two digits, whole ones beyond them."""
    value = 100 * share
    return f"{value:,.0f}" if abs(value) >= 99.5 else f"{value:.2g}"


def quantity(pooled: Pooled | None) -> str:
    """With its unit where the heading does not say it."""
    if pooled is None:
        return NONE
    if pooled.unit == "B":
        return data_size(pooled.value)
    if pooled.unit == "share":
        return NONE if math.isnan(pooled.value) else f"{pooled.value:.1%}"
    return number(pooled.value)


def band(interval: Interval | None) -> str:
    """`3.10–3.30`; '' without an interval, or with one that says nothing more than the number."""
    return (
        "" if interval is None or interval.low == interval.high else f"{number(interval.low)}–{number(interval.high)}"
    )


def times(value: float) -> str:
    """A ratio: `0.48×`."""
    return NONE if math.isnan(value) else f"{number(value) if value < 0.9995 or value >= 9.995 else f'{value:.2f}'}×"


def ratio_text(ratio: Ratio | None, interval: bool = True) -> str:
    """`3.2× [3.1–3.3]`; `≈ 1.01×` when no difference can be told; `≤ 0.1×` when it is at most
    that; `0.77× ?` when nothing can be said.

    As many digits as the interval allows.
    """
    if ratio is None or math.isnan(ratio.value):
        return NONE
    sure = ratio.interval if ratio.outcome != "unknown" else None
    digits = _digits(sure, 0 if ratio.value >= 10 else 1 if ratio.value >= 1 else 2)
    text = f"{_fixed(ratio.value, digits)}×"
    if ratio.outcome == "no detectable difference":
        text = f"≈ {text}"
    elif ratio.outcome == "unknown":
        return "?" if ratio.value in (0, math.inf) else f"{text} ?"
    text = f"{ratio.bound} {text}" if ratio.bound else text
    return f"{text} [{_fixed(sure.low, digits)}–{_fixed(sure.high, digits)}]" if interval and sure else text


def _digits(interval: Interval | None, fewest: int) -> int | None:
    """Decimals, at least `fewest`, that make the interval two units of the last one wide or more.

    None without a finite interval. An end that is not 1 is not written as 1 either.
    """
    if interval is None or not math.isfinite(interval.high) or interval.high <= interval.low:
        return None
    wide = (digits for digits in range(fewest, 4) if (interval.high - interval.low) * 10**digits >= 2 - 1e-9)
    found = next(wide, 4)
    while found < 4 and any(round(end, found) == 1 != end for end in (interval.low, interval.high)):
        found += 1
    return found


def _fixed(value: float, digits: int | None) -> str:
    return number(value) if digits is None or math.isinf(value) else f"{value:,.{digits}f}"


def metric_name(name: str) -> str:
    """`ttft_ms.p50` as `TTFT p50`."""
    metric, _, rest = name.partition(".")
    return " ".join([NAMES.get(metric, metric), *([rest.replace(".", " ")] if rest else [])])
