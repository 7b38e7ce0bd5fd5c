"""What `redline node prove` found, as sections of the report: a row per setting, and every metric and signal below."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from redline.report.model import ModelReport
from redline.report.numbers import metric_name, number, points, times
from redline.report.section import Section
from redline.store.read import Reader
from redline.store.rows import RunRow

ARTIFACT = KEY = "node-proof"
HEADS = ("setting", "now → tried", "verdict", "effect", "signal")
MARKS = {"helps": "▲", "hurts": "▼", "helps and hurts": "▲▼", "no measurable effect": "="}
_CHANGED = ("helps", "hurts")
_MOST = 3

Proof = Mapping[str, Any]


def is_proof(row: RunRow) -> bool:
    return any(artifact.kind == ARTIFACT for artifact in row.artifacts)


def stored(row: RunRow) -> dict[str, Any] | None:
    """What the run found; None when it is no run of prove, or its file is gone."""
    path = next((artifact.path for artifact in row.artifacts if artifact.kind == ARTIFACT), None)
    try:
        found: dict[str, Any] = orjson.loads(path.read_bytes()) if path else {}
    except (OSError, ValueError):
        return None
    return found or None


def verdict_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """A row per setting."""
    found = [proof for row in rows for proof in (stored(row) or {}).get("settings", [])]
    return verdicts(found) if found else None


def detail_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """Every metric and every signal of every setting."""
    found = [proof for row in rows for proof in (stored(row) or {}).get("settings", [])]
    return details(found) if any(proof["effects"] for proof in found) else None


def verdicts(proofs: Sequence[Proof]) -> Section:
    lines = tuple(
        (
            proof["id"] + (f" ({proof['where']})" if proof["where"] else ""),
            f"{proof['present'] or '?'} → {proof['wanted'] or '?'}",
            f"{MARKS.get(proof['verdict'], '?')} {proof['verdict']}",
            "; ".join(_told(one) for one in _telling(proof)) or "–",
            signal_text(proof),
        )
        for proof in proofs
    )
    remarks = tuple(f"{proof['id']}: {remark}" for proof in proofs if (remark := _remark(proof)))
    tested = sum(len(proof["effects"]) for proof in proofs)
    notes = (
        "the tried value against the present one, in turns, with 95 % intervals; `finds`: the smallest change that "
        "these rounds find four times in five",
        f"{tested} effects were judged together: at most 5 % chance of any false alarm among them (Holm)",
    )
    return Section(KEY, "Does it help here?", HEADS, lines, (*remarks, *(notes if tested else ())), brief=True)


def details(proofs: Sequence[Proof]) -> Section:
    lines = [
        (proof["id"], one["load"], _metric(one), _number(one["a"]), _number(one["b"]), *_change(one),
         one["verdict"], one["note"])
        for proof in proofs
        for one in proof["effects"]
    ]  # fmt: skip
    lines += [
        (proof["id"], "", _signal_name(one["name"]), _number(one["present"]), _number(one["wanted"]),
         _signed(one["difference"]), _range(one["low"], one["high"]), "", "moved" if one["moved"] else "", "")
        for proof in proofs
        for one in proof["shifts"]
        if one["present"] or one["wanted"]
    ]  # fmt: skip
    heads = ("setting", "load", "metric or signal", "now", "tried", "change", "95 % interval", "detectable", "", "note")
    return Section("node-proof-details", "Every metric and signal of each setting", heads, tuple(lines))


def signal_text(proof: Proof) -> str:
    """The setting's own signal, and others that moved."""
    own = [one for one in proof["shifts"] if one["name"] == proof["signal"]]
    moved = [one for one in proof["shifts"] if one["moved"] and one not in own]
    texts = [f"{_signal_name(one['name'])} {_number(one['present'])} → {_number(one['wanted'])}" for one in own + moved]
    if not own and proof["signal"] and proof["effects"]:
        texts.insert(0, f"{_signal_name(proof['signal'])}: not told here")
    return "; ".join(texts[:_MOST]) or "–"


def _telling(proof: Proof) -> list[Mapping[str, Any]]:
    """What changed; the first that is known when nothing did."""
    changed = [one for one in proof["effects"] if one["verdict"] in _CHANGED]
    known = [one for one in proof["effects"] if one["verdict"] == "no measurable effect"]
    return changed[:_MOST] or known[:1]


def _told(one: Mapping[str, Any]) -> str:
    change, interval, detectable = _change(one)
    tail = f"[{interval}]" if one["verdict"] in _CHANGED else f"(finds {detectable})"
    return f"{_metric(one)} {change} {tail}"


def _change(one: Mapping[str, Any]) -> tuple[str, str, str]:
    """(change, its interval, smallest detectable change), of a ratio as percents, of a share as points."""
    ratio, interval, detectable = one["ratio"], one["interval"], one["detectable"]
    if ratio is None or interval is None:
        difference, between = one["difference"], one["difference_interval"]
        if difference is None or between is None:
            return "–", "–", "–"
        low, high = _plus(between["low"]), _plus(between["high"])
        return f"{_plus(difference)} points", f"{low} … {high}", f"±{points(detectable)} points"
    if not 0.5 <= ratio <= 2:
        return times(ratio), f"{times(interval['low'])} … {times(interval['high'])}", _percent(detectable)
    percents = (100 * (ratio - 1), 100 * (interval["low"] - 1), 100 * (interval["high"] - 1))
    return f"{percents[0]:+.1f} %", f"{percents[1]:+.1f} … {percents[2]:+.1f} %", _percent(detectable)


def _plus(share: float) -> str:
    """In points, with its sign."""
    return ("+" if share > 0 else "") + points(share)


def _percent(share: float | None) -> str:
    return "–" if share is None else f"±{number(100 * share)} %"


def _remark(proof: Proof) -> str:
    rounds = f"{proof['rounds']} rounds, {proof['how']}" if proof["effects"] else ""
    return "; ".join(part for part in (rounds, proof["why"]) if part)


def _metric(one: Mapping[str, Any]) -> str:
    return metric_name(one["metric"]).replace("_", " ")


def _signal_name(name: str) -> str:
    return name.replace("_", " ")


def _number(value: float | None) -> str:
    return "–" if value is None else number(value)


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.3g}"


def _range(low: float | None, high: float | None) -> str:
    return "–" if low is None or high is None else f"{low:+.3g} … {high:+.3g}"
