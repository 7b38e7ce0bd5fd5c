"""Is it the server that was measured, or the load generator?"""

from __future__ import annotations

import math

from redline.analyse.case import Case, Rule, Said
from redline.analyse.percentile import percentile
from redline.units import NS_PER_MS, NS_PER_S

_LATE_READ_MS = 10.0


def send_lag(case: Case) -> Said:
    """Like against like: the median lag may not move the median TTFT, the lag's tail not the tail."""
    middle, tail = case.number("send_lag_ms_p50"), case.number("send_lag_ms_p99")
    if math.isnan(tail):
        own = case.requests.pick(~case.requests.warmup & (case.requests.sent_ns > 0))
        lags = (own.sent_ns - own.intended_ns) / NS_PER_MS
        middle, tail = percentile(lags, 0.5), percentile(lags, 0.99)
    ttft = case.latencies.good("ttft_ms.sent")
    usual, late = percentile(ttft, 0.5), percentile(ttft, 0.99)
    if middle > max(0.1 * usual, 0.5):
        return (
            "client-bound",
            f"requests left {middle:.1f} ms late at the median, beside a median TTFT of {usual:.1f} ms",
        )
    if not tail > max(0.1 * late, 1.0):
        return None
    state = "client-bound" if tail > 0.5 * late else "degraded"
    return state, f"some requests left late: send lag p99 is {tail:.1f} ms beside a TTFT p99 of {late:.1f} ms"


def client_cpu(case: Case) -> Said:
    busy = _client_busy(case)
    if math.isnan(busy) or busy < 0.85:
        return None
    return "client-bound", f"the load generator kept its core {min(busy, 1):.0%} busy"


def starved(case: Case) -> Said:
    starved, sent = case.number("starved"), case.number("sent")
    if not starved > 0.01 * sent:
        return None
    return "client-bound", f"{starved:.0f} requests were due before the load generator had made them"


def never_left(case: Case) -> Said:
    """A server cannot fail what it was never sent."""
    count = case.number("never_left")
    if not count > 0:
        return None
    return "client-bound", (
        f"{count:.0f} requests never left: this box had no free port or file descriptor for them (see their error)"
    )


def user_stamps(case: Case) -> Said:
    good = case.good
    share = float((good.stamp == "user").mean()) if len(good) else 0.0
    if share <= 0.01:
        return None
    text = f"arrivals of {share:.0%} of the answers were stamped in user space, not by the kernel"
    late = case.number("read_lag_ms_p99")
    if math.isnan(late):
        return "degraded", text
    # that late is a gap of the client's own making
    state = "client-bound" if late > 0.1 * case.latencies.gaps.percentiles([0.5])[0] and late > 1 else "degraded"
    return state, f"{text}: up to {late:.2f} ms late (p99)"


def shared_stamps(case: Case) -> Said:
    """Where each segment has a stamp of its own, tokens that share one were sent together: no fault of the client's."""
    good = case.good.pick(case.good.stamp != "packet")
    chunks = len(good.chunk_ns)
    share = float(good.shared_stamps.sum()) / chunks if chunks else 0.0
    busy = _client_busy(case)
    keeps_up = busy < 0.5 and not case.number("read_lag_ms_p99") > _LATE_READ_MS
    if share <= 0.1 or keeps_up:
        return None
    return "degraded", (
        f"{share:.0%} of the chunks share their arrival stamp with the one before: sent together, or merged while the "
        "client was busy; the ITL between them reads 0"
    )


RULES: tuple[Rule, ...] = (
    send_lag,
    client_cpu,
    starved,
    never_left,
    user_stamps,
    shared_stamps,
)


def _client_busy(case: Case) -> float:
    """CPU seconds of the busiest load worker per second of the point; NaN when not known."""
    begin = case.number("measured_from_ns")
    if math.isnan(begin):
        begin = float(case.requests.intended_ns.min()) if len(case.requests) else 0.0
    seconds = (case.ended_ns - begin) / NS_PER_S
    used = case.number("worker_cpu_s_max")
    used = case.number("client_cpu_s") if math.isnan(used) else used
    return used / seconds if seconds > 0 else math.nan
