"""An explanation as sections for the terminal, Markdown and HTML, and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from typing import Any

import numpy as np
from rich.console import Console

from redline.analyse.explain.explanation import BLAMED, FALSE_DISCOVERIES, LOST_MIN, NEVER_ON, RATIO_MIN, Blame
from redline.analyse.explain.shares import BASES, PARTS
from redline.analyse.explain.stalls import Stall
from redline.report.explain.read import Explained, PointExplained
from redline.report.markdown import section_lines
from redline.report.numbers import number
from redline.report.section import Section
from redline.report.table import section_parts
from redline.report.versus_page import page

STALLS_SHOWN = 8
_SHARE_HEADS = ("where the time went", "all requests", "slow ones", "ms per slow request")
_CAUSE_HEADS = ("cause", "explains", "times", "covers", "at work", "q", "verdict")
_MORE_HEADS = ("family", "lift", "p", "by")
_STALL_HEADS = ("at s", "lasted ms", "streams", "kind", "at work then")
_MEANINGS = (
    "explains: of the time that streams lost beyond the expected step, what would not have been lost at the rate that "
    "held without the cause, after the causes above it. times: the loss while it was at work over the loss without it. "
    "covers: lost time that falls into it. q: chance of as much overlap by coincidence (circular shifts), corrected "
    f"for the number of causes looked at; blamed from q ≤ {FALSE_DISCOVERIES:g} and {RATIO_MIN:g} times on."
)


def sections(explained: Explained) -> tuple[Section, ...]:
    """For the files: every column."""
    return tuple(section for point in explained.points for section in _point(point, len(explained.points) > 1, True))


def print_explained(explained: Explained, console: Console) -> None:
    for point in explained.points:
        console.print()
        console.print(headline(point), style="bold", markup=False)
        for section in _point(point, several=False, more=False):
            for part in section_parts(section):
                console.print(part)
    for why in explained.skipped:
        console.print(f"not explained: {why}", markup=False)


def markdown(explained: Explained, pictures: tuple[str, ...] = ()) -> str:
    lines = [f"# Why requests of run {explained.run.id} were slow", ""]
    for point in explained.points:
        lines += [f"**{headline(point)}**", ""]
    lines += [line for name in pictures for line in (f"![stalls and what was at work]({name})", "")]
    lines += [line for section in sections(explained) for line in section_lines(section)]
    lines += [f"not explained: {why}" for why in explained.skipped]
    return "\n".join(lines).rstrip() + "\n"


def html(explained: Explained, drawn: tuple[str, ...] = ()) -> str:
    """One page; `drawn` are charts as SVG."""
    notes = [f"not explained: {why}" for why in explained.skipped]
    whole = page(f"Why requests of run {explained.run.id} were slow", sections(explained), notes)
    figures = "".join(f"<figure>{svg}</figure>" for svg in drawn)
    said = "".join(f"<p><b>{escape(headline(point))}</b></p>" for point in explained.points)
    return whole.replace("</h1>", f"</h1>\n{said}{figures}", 1)


def headline(point: PointExplained) -> str:
    """One sentence: how much was lost, who is blamed, how much nobody explains."""
    found = point.explanation
    step = f"{number(found.expected_ms)} ms"
    lost = f"{point.label}: {_percent(found.lost_share)} of streaming time lost beyond steps of {step}"
    if not found.blamed:
        quiet = found.lost_share < LOST_MIN and not found.slow.any()
        return f"{lost}; nobody is blamed" + (", too little is lost and no request is slow" if quiet else "")
    named = ", ".join(f"{one.cause.text} {_percent(one.explains)}" for one in found.blamed[:3])
    return f"{lost}; {named}; unexplained {_percent(found.unexplained)}"


def _point(point: PointExplained, several: bool, more: bool) -> Iterator[Section]:
    suffix = f": {point.label}" if several else ""
    yield _shares(point, suffix)
    yield _causes(point, suffix, more)
    if point.explanation.stalls:
        yield _stalls(point, suffix)


def _shares(point: PointExplained, suffix: str) -> Section:
    found = point.explanation
    everybody = np.ones(len(found.slow), np.bool_)
    whole, slow = found.shares.of(everybody), found.shares.of(found.slow)
    each = found.shares.mean_ms(found.slow)
    some = bool(found.slow.any())
    rows = [
        (name, _percent(whole[name]), _percent(slow[name]) if some else "–", number(each[name]) if some else "–")
        for name in PARTS
    ]
    basis = [BASES[place] for place in np.unique(found.shares.basis)]
    notes = [
        f"{int(found.slow.sum())} of {len(found.slow)} requests are slow for their length"
        + ("" if some else ": none took clearly longer than others of its kind"),
        f"queue and prefill by: {', '.join(basis)}. The shares of each request sum to its time from when it was due",
    ]
    slower = float(found.shares.slow_decode_ns.sum()) / max(float(found.shares.parts["decode"].sum()), 1.0)
    if slower > 0.01:
        notes.append(f"{_percent(slower)} of decode is beyond the expected step, in gaps too short for a stall")
    return Section(
        f"shares-{point.point.id}", f"Where the time went{suffix}", _SHARE_HEADS, tuple(rows), tuple(notes), True
    )


def _causes(point: PointExplained, suffix: str, more: bool) -> Section:
    found = point.explanation
    heads = _CAUSE_HEADS + (_MORE_HEADS if more else ())
    rows = [_cause_row(one)[: len(heads)] for one in found.blames if one.verdict != NEVER_ON]
    rows.append(("unexplained", _percent(found.unexplained), *[""] * (len(heads) - 2)))
    quiet = [one.cause.key for one in found.blames if one.verdict == NEVER_ON]
    notes = [f"{number(found.lost_s)} s of stream time were lost in all. {_MEANINGS}"]
    if quiet:
        notes.append(f"looked at and never at work: {', '.join(quiet)}")
    for one in found.blamed:
        if one.who:
            who = ", ".join(f"{name} {_percent(share)}" for name, share in one.who)
            notes.append(f"{one.cause.key}, who: {who}")
    notes += point.notes
    return Section(
        f"causes-{point.point.id}", f"Who was at it when time was lost{suffix}", heads, tuple(rows), tuple(notes), True
    )


def _cause_row(one: Blame) -> tuple[str, ...]:
    told = one.score
    return (
        one.cause.text,
        _percent(one.explains) if one.verdict == BLAMED else "",
        _times(told.ratio),
        _percent(told.coverage),
        _percent(told.duty),
        _chance(told.q),
        one.verdict,
        one.cause.family,
        _times(told.lift),
        _chance(told.p),
        one.source,
    )


def _stalls(point: PointExplained, suffix: str) -> Section:
    found = point.explanation
    longest = sorted(found.stalls, key=lambda one: one.began_ns - one.ended_ns)[:STALLS_SHOWN]
    rows = [_stall_row(point, one) for one in sorted(longest, key=lambda one: one.began_ns)]
    joint = sum(one.joint for one in found.stalls)
    notes = (
        f"{len(found.stalls)} stalls: {joint} of several streams together, "
        f"{sum(one.held for one in found.stalls)} held back (the tokens were made and came late); the longest "
        f"{len(rows)} are shown",
    )
    return Section(f"stalls-{point.point.id}", f"Longest stalls{suffix}", _STALL_HEADS, tuple(rows), notes, True)


def _stall_row(point: PointExplained, one: Stall) -> tuple[str, ...]:
    grid = point.explanation.grid
    first = max(int((one.began_ns - grid.start_ns) // grid.bucket_ns), 0)
    last = max(int((one.ended_ns - grid.start_ns) // grid.bucket_ns), first) + 1
    at_work = [
        (float(shown.level[first:last].mean()), shown.cause.key)
        for shown in point.explanation.shown
        if first < grid.size and shown.level[first:last].any()
    ]
    told = [f"{key} {_percent(share)}" for share, key in sorted(at_work, reverse=True)[:4]]
    kind = (
        "held back" if one.held else "all stood still" if one.joint else "one alone" if one.of > 1 else "the only one"
    )
    return (
        f"{(one.began_ns - grid.start_ns) / 1e9:.2f}",
        number((one.ended_ns - one.began_ns) / 1e6),
        f"{one.streams} of {one.of}",
        kind,
        ", ".join(told) or "nothing",
    )


def as_dict(explained: Explained) -> dict[str, Any]:
    """Everything a program could want; only JSON types."""
    return {
        "run": explained.run.id,
        "points": [_point_dict(point) for point in explained.points],
        "skipped": list(explained.skipped),
    }


def _point_dict(point: PointExplained) -> dict[str, Any]:
    found = point.explanation
    everybody = np.ones(len(found.slow), np.bool_)
    return {
        "engine": point.trial.engine,
        "model": point.trial.model,
        "point": point.point.label,
        "headline": headline(point),
        "requests": len(found.slow),
        "slow_requests": found.shares.index[found.slow].tolist(),
        "shares": {"all": found.shares.of(everybody), "slow": found.shares.of(found.slow)},
        "mean_ms": {"all": found.shares.mean_ms(everybody), "slow": found.shares.mean_ms(found.slow)},
        "basis": [BASES[place] for place in np.unique(found.shares.basis)],
        "expected_step_ms": _finite(found.expected_ms),
        "lost_share": found.lost_share,
        "lost_s": found.lost_s,
        "causes": [_blame_dict(one) for one in found.blames],
        "unexplained": found.unexplained,
        "stalls": [
            {
                "began_s": (one.began_ns - found.grid.start_ns) / 1e9, "lasted_ms": (one.ended_ns - one.began_ns) / 1e6,
                "streams": one.streams, "of": one.of, "joint": one.joint, "held": one.held,
            }
            for one in found.stalls
        ],
        "spans": point.spans,
        "notes": list(point.notes),
    }  # fmt: skip


def _blame_dict(one: Blame) -> dict[str, Any]:
    told = one.score
    return {
        "key": one.cause.key, "family": one.cause.family, "text": one.cause.text, "verdict": one.verdict,
        "explains": one.explains, "lift": _finite(told.lift), "ratio": _finite(told.ratio),
        "coverage": _finite(told.coverage), "duty": told.duty,
        "p": _finite(told.p), "q": _finite(told.q), "by": one.source,
        "who": [{"name": name, "share": share} for name, share in one.who],
    }  # fmt: skip


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _percent(share: float) -> str:
    if math.isnan(share):
        return "–"
    return f"{share:.0%}" if share >= 0.1 or share == 0 else f"{share:.1%}"


def _times(value: float) -> str:
    if math.isnan(value):
        return "–"
    return f"{number(value)}×" if value < 1000 else ">1000×"


def _chance(value: float) -> str:
    return "–" if math.isnan(value) else "<0.001" if value < 0.001 else f"{value:.2g}"
