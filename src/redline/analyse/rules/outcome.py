"""How the point went: did it end by itself, did requests succeed, and are there enough of them."""

from __future__ import annotations

import math

import numpy as np

from redline.analyse.case import Case, Rule, Said
from redline.analyse.censoring import kaplan_meier, with_cut_off
from redline.analyse.embedding import embeddings
from redline.analyse.percentile import FEW_FOR_P99, percentile


def nothing_finished(case: Case) -> Said:
    if len(case.latencies) and not case.latencies.failed.all():
        return None
    if len(case.latencies):
        return "invalid", f"all {len(case.latencies)} requests failed{_commonest(case)}"
    why = f": all {case.cut_off} were cut off; give the point more time (duration_s, drain_s)" if case.cut_off else ""
    return "invalid", f"no request finished{why}"


def engine_died(case: Case) -> Said:
    by = str(case.outcome.get("stopped_by", ""))
    if "died" not in by and "dead" not in by:
        return None
    return "invalid", "the engine died under this load; what it answered before is kept"


def given_up(case: Case) -> Said:
    why = {"refused": "the server refused connections", "failing": "request after request failed"}
    by = str(case.outcome.get("stopped_by", ""))
    return ("invalid", f"given up early: {why[by]}") if by in why else None


def no_tokens(case: Case) -> Said:
    good = case.good
    if len(good) == 0 or good.output_tokens.sum() > 0 or embeddings(good).all():
        return None
    return "invalid", "requests finished, and not one of them carried a token"


def failures(case: Case) -> Said:
    failed, n = int(case.latencies.failed.sum()), len(case.latencies)
    if failed == 0 or failed == n or failed / n <= 0.01:
        return None
    state = "invalid" if failed / n > 0.1 else "degraded"
    return state, f"{failed} of {n} requests failed ({failed / n:.1%}){_commonest(case)}"


def interrupted(case: Case) -> Said:
    by = str(case.outcome.get("stopped_by", ""))
    if "interrupt" not in by and by not in ("cancelled", "signal", "user", "stop"):
        return None
    return "degraded", "interrupted before the point was over"


def cut_off(case: Case) -> Said:
    """Speaks when the requests that were cut off would have moved a median or a p99 by a tenth or more."""
    total = len(case.latencies) + case.cut_off
    if case.cut_off == 0 or len(case.latencies) == 0 or case.latencies.failed.all():
        return None
    for metric in ("ttft_ms", "e2e_ms"):
        durations, ended = with_cut_off(case.requests, metric, case.ended_ns)
        for name, level in (("p50", 0.5), ("p99", 0.99)):
            shown = percentile(case.latencies.headline(metric), level)
            likely = kaplan_meier(durations, ended, level)
            if math.isfinite(shown) and likely > 1.1 * shown:
                beyond = "cannot be told" if math.isinf(likely) else f"is rather {likely:,.0f} ms"
                label = f"{metric.removesuffix('_ms').upper()} {name}"
                return "degraded", (
                    f"{case.cut_off} of {total} requests were cut off when the point ended, the slow ones first: "
                    f"{label} reads {shown:,.0f} ms and {beyond}; give the point more time"
                )
    return None


def not_steady(case: Case) -> Said:
    if len(case.latencies) == 0 or (case.window.found and not case.window.note):
        return None
    return "degraded", f"no steady state: {case.window.note}" if not case.window.found else case.window.note


def few(case: Case) -> Said:
    n = int((~case.latencies.failed).sum())
    if n == 0 or len(case.latencies) >= FEW_FOR_P99:
        return None
    return "degraded", f"p99 of {len(case.latencies)} requests is their maximum (it needs {FEW_FOR_P99})"


RULES: tuple[Rule, ...] = (
    nothing_finished,
    engine_died,
    given_up,
    no_tokens,
    failures,
    interrupted,
    cut_off,
    not_steady,
    few,
)


def _commonest(case: Case) -> str:
    """ ": mostly timeout" of the failed requests."""
    failed = case.requests.status[case.latencies.row[case.latencies.failed]]
    names, counts = np.unique(failed, return_counts=True)
    if len(names) == 0:
        return ""
    return f": {'mostly ' if len(names) > 1 else 'all '}{names[counts.argmax()]}"
