"""Service level objectives as Prometheus sees them, and the alerts on how fast their error budget burns.

Windows and factors are those of Google's SRE workbook, chapter 5 (multiwindow, multi-burn-rate alerts): a factor of
14.4 spends 2 % of a month's budget in an hour. A short window beside the long one ends the alert when the trouble ends.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from redline.observe.meanings import COUNTERS, TIMES
from redline.observe.rules.engine import MORE_TIMES, SERVER, first, rate
from redline.observe.rules.rule import Alert, Group, Record, Severity, Term, seconds
from redline.spec.slo import SloSpec

FEWEST = 10
"""Events in a window that say something about a share."""
MOST = 0.9
"""With a budget of over 6 % a factor of 14.4 would ask for more failures than there are requests."""


@dataclass(frozen=True)
class Objective:
    """`limit_s` seconds must be kept by `1 - budget` of the events; None where an event is bad or not."""

    name: str
    budget: float
    limit_s: float | None = None


@dataclass(frozen=True)
class Burn:
    name: str
    factor: float
    long: str
    short: str
    hold: str
    severity: Severity


BURNS = (
    Burn("SloBurnFast", 14.4, "1h", "5m", "2m", "critical"),
    Burn("SloBurn", 6.0, "6h", "30m", "15m", "critical"),
    Burn("SloBurnSlow", 3.0, "1d", "2h", "1h", "warning"),
    Burn("SloBurnCreeping", 1.0, "3d", "6h", "3h", "warning"),
)
WINDOWS = tuple(sorted({window for burn in BURNS for window in (burn.long, burn.short)}, key=seconds))


def objectives(slo: SloSpec, success: float = 0.99) -> tuple[Objective, ...]:
    """What of an SLO an engine's own histograms can tell, and the share of requests that must succeed at all.

    `itl` is judged on single gaps (99 % of them), since a histogram does not know whose gap it was.
    """
    found = [
        Objective(name.removesuffix("_ms"), 0.01 if name == "itl_ms" else 1 - slo.attainment, limit / 1000)
        for name, limit in slo.terms.items()
    ]
    return (*found, Objective("success", 1 - success), Objective("goodput", 1 - slo.attainment))


def slo_groups(slo: SloSpec, success: float = 0.99) -> tuple[Group, ...]:
    """Records by window and objective, then the alerts on them."""
    wanted = [one for one in objectives(slo, success) if one.budget > 0]
    groups = [
        Group(
            f"slo-{window}",
            tuple(Record(f"slo:bad:ratio{window}", bad_share(one, window), {"slo": one.name}) for one in wanted),
            "15s" if seconds(window) <= 3600 else "1m",
        )
        for window in WINDOWS
    ]
    budgets = tuple(Record("slo:budget:ratio", f"vector({one.budget:.6g})", {"slo": one.name}) for one in wanted)
    alerts = tuple(_alert(burn, one) for burn in BURNS for one in wanted)
    return (Group("slo-budget", budgets, "1m"), *groups, Group("slo-alerts", alerts))


def bad_share(one: Objective, window: str) -> str:
    """Share of the events of a window that broke the objective; nothing when there were fewer than FEWEST."""
    if one.name == "goodput":
        by = "job, instance, model, engine"
        good = f"sum by ({by}) (rate(redline_requests_good_total[{window}]))"
        return _share(f"1 - {good} / ", f"sum by ({by}) (rate(redline_requests_judged_total[{window}]))", window)
    if one.limit_s is None:
        return _failed_share(window)
    families = (TIMES | MORE_TIMES)[one.name]
    total = rate((f"{family}_count" for family in families), window, SERVER)
    by = ", ".join(SERVER)
    # buckets are cumulative: the largest of those within the limit is the widest of them
    within = first(
        f'max by ({by}) (sum by ({by}, le) (rate({family}_bucket{{le=~"{_quoted(at_most(one.limit_s))}"}}[{window}])))'
        for family in families
    )
    return _share(f"1 - (({within}) or 0 * ({total})) / ", total, window)


def _share(before: str, total: str, window: str) -> str:
    return f"{before}(({total}) >= {FEWEST / seconds(window):.6g})"


def _failed_share(window: str) -> str:
    """Answers with an error, refusals, and HTTP 5xx of the server, of all that came."""
    by = "job, instance"
    ended = rate(COUNTERS["requests"], window, ("job", "instance"))
    broken = (
        f'sum by ({by}) (rate(vllm:request_success_total{{finished_reason="error"}}[{window}]))',
        f"sum by ({by}) (rate(redline:requests_refused_total[{window}]))",
        f'sum by ({by}) (rate(http_requests_total{{job="engine", status=~"5.*"}}[{window}]))',
    )
    bad = " + ".join(f"({one} or 0 * ({ended}))" for one in broken)
    return _share(f"({bad}) / ", f"({ended}) + {' + '.join(f'({one} or 0 * ({ended}))' for one in broken[1:])}", window)


def _alert(burn: Burn, one: Objective) -> Alert:
    limit = min(burn.factor * one.budget, MOST)
    terms = (burn.long, burn.short)
    what = "requests" if one.name != "itl" else "gaps between tokens"
    promise = f"within {one.limit_s * 1000:g} ms" if one.limit_s is not None else _PROMISES[one.name]
    return Alert(
        burn.name,
        tuple(Term(f'slo:bad:ratio{window}{{slo="{one.name}"}}', f"> {limit:.6g}") for window in terms),
        burn.hold,
        burn.severity,
        f"{one.name}: {{{{ $value | humanizePercentage }}}} of {what} break the objective ({{{{ $labels.instance }}}})",
        f"{1 - one.budget:.4g} of {what} are to be {promise}; at this rate the budget of a month is gone"
        f" {burn.factor:g} times too early (windows {burn.long} and {burn.short}). Where the limit lies between two of"
        " the engine's buckets, the lower one counts.",
        "look at queue, KV use and preemptions on the engine's dashboard; `redline explain` where a run was recorded",
        labels={"slo": one.name, "window": burn.long},
    )


_PROMISES = {"success": "answered without an error", "goodput": "good by redline's client (every term of the SLO)"}


def at_most(limit: float) -> str:
    """A regular expression of the decimal numerals that are at most `limit`, as `le` has them: 0.5, 1, 1.0, 5e-05.

    Engines and versions differ in their buckets and in how they write them; Prometheus compares labels as text only.
    """
    whole, _, fraction = f"{limit:.9f}".partition(".")
    fraction = fraction.rstrip("0")
    below = _integers_below(whole)
    choices = [rf"(?:{'|'.join(below)})(?:\.\d+)?"] if below else []
    # the same digits as the limit up to a place, then a smaller one, or no more of them
    for place, digit in enumerate(fraction):
        if digit != "0":
            choices.append(rf"{whole}\.{fraction[:place]}[0-{int(digit) - 1}]\d*")
    endings = [fraction[:place] for place in range(1, len(fraction) + 1)]
    choices += [rf"{whole}(?:\.0*)?", *(rf"{whole}\.{ending}0*" for ending in endings[-1:])]
    choices += [rf"{whole}\.{ending}" for ending in endings[:-1]]
    return "|".join((*choices, r"\d(?:\.\d+)?e-\d+"))


def _integers_below(whole: str) -> list[str]:
    """Regular expressions of the whole numbers below one, without leading zeros."""
    found = [rf"[1-9]\d{{{length - 1}}}" for length in range(2, len(whole))]
    if len(whole) > 1:
        found.append(r"\d")
    for place, digit in enumerate(whole):
        low = 1 if place == 0 and len(whole) > 1 else 0
        if int(digit) > low:
            rest = len(whole) - place - 1
            found.append(f"{whole[:place]}[{low}-{int(digit) - 1}]" + (rf"\d{{{rest}}}" if rest else ""))
    return found


def _quoted(pattern: str) -> str:
    return pattern.replace("\\", "\\\\")


def matches(pattern: str, numerals: Iterable[str]) -> list[str]:
    """Those that Prometheus would match: it anchors the whole text."""
    compiled = re.compile(pattern)
    return [numeral for numeral in numerals if compiled.fullmatch(numeral)]
