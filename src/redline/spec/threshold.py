"""Thresholds: what a run must reach, as one line of text. `ttft_ms.p99 < 500 @ 8 clients`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from redline.spec.faults import did_you_mean
from redline.spec.record import fault

_LATENCIES = ("ttft_ms", "ttft_ms.sent", "ttfat_ms", "itl_ms", "tpot_ms", "e2e_ms", "e2e_ms.sent")
_LEVELS = ("p50", "p90", "p95", "p99")
_RATES = ("output_tokens_per_s", "total_tokens_per_s", "requests_per_s", "goodput_per_s")
_SHARES = ("failed_share", "cut_off_share", "slo_attainment", "cached_share")
_RATIOS = (
    *_RATES, *(f"{name}.{level}" for name in ("ttft_ms", "ttft_ms.sent", "itl_ms", "tpot_ms", "e2e_ms")
               for level in ("p50", "p99")),
)  # fmt: skip
METRICS = (
    *(f"{name}.{level}" for name in _LATENCIES for level in _LEVELS), *_RATES, "in_flight", *_SHARES,
    *(f"ratio.{name}" for name in _RATIOS),
)  # fmt: skip
"""What a threshold can be about; `ratio.` is this engine / the first one."""

_NUMBER = r"[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?"
_SHAPE = re.compile(
    rf"\s*(?P<metric>[\w.]+)\s*(?P<sign><=|>=|<|>)\s*(?P<limit>{_NUMBER})\s*(?P<percent>%?)\s*"
    rf"(?:@\s*(?P<load>{_NUMBER})\s*(?P<unit>clients?|req/s)?\s*)?(?:on\s+(?P<engine>\S.*?)\s*)?",
    re.IGNORECASE,
)
EXAMPLE = "such as  ttft_ms.p99 < 500  or  output_tokens_per_s > 1000 @ 8 clients  or  ratio.itl_ms.p50 < 1.05 on vllm"


@dataclass(frozen=True)
class Threshold:
    """`metric` must stay on the given side of `limit`. `load` None means every load point, `engine` '' every engine."""

    text: str
    metric: str
    sign: Literal["<", ">"]
    limit: float
    load: float | None = None
    unit: Literal["", "clients", "req/s"] = ""
    engine: str = ""

    def applies(self, kind: str, value: float, engine: str) -> bool:
        """To this load point of this engine?"""
        if self.engine and self.engine != engine:
            return False
        if self.load is None:
            return True
        closed = kind == "closed"
        return abs(value - self.load) < 1e-9 and (not self.unit or closed == (self.unit == "clients"))


def parse_threshold(text: str) -> Threshold:
    """Raises a validation fault that says what is wrong with the text, and what it should look like."""
    found = _SHAPE.fullmatch(text)
    if not found:
        raise fault(f"{text!r} is no threshold", fix=_advice(text))
    metric = found["metric"]
    if metric not in METRICS:
        raise fault(f"{text!r}: there is no metric {metric!r}", fix=_near(metric))
    if found["percent"] and not metric.endswith(("_share", "attainment")):
        raise fault(f"{text!r}: only a share is a percentage", fix=f"{metric} {found['sign']} {found['limit']}")
    unit = (found["unit"] or "").lower()
    return Threshold(
        text=" ".join(text.split()),
        metric=metric,
        sign="<" if found["sign"].startswith("<") else ">",
        limit=float(found["limit"]) / (100 if found["percent"] else 1),
        load=None if found["load"] is None else float(found["load"]),
        unit="req/s" if unit == "req/s" else "clients" if unit else "",
        engine=found["engine"] or "",
    )


def _near(metric: str) -> str:
    if f"{metric}.p50" in METRICS:
        return f"say which percentile: {metric}.p50, {metric}.p90, {metric}.p95 or {metric}.p99"
    return did_you_mean(metric, METRICS) or "redline's names are on the page of definitions, such as ttft_ms.p99"


def _advice(text: str) -> str:
    if "==" in text or re.search(r"(?<![<>])=", text):
        return "a measured number is never exactly equal: write < or >"
    return EXAMPLE
