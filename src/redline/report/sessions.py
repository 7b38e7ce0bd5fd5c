"""Conversations turn by turn, and the clients that did not behave."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from redline.analyse.latency import first_chunk_ns
from redline.analyse.percentile import percentile
from redline.analyse.turns import TurnNumbers, by_turn
from redline.report.model import Measured, ModelReport, load_label, whose
from redline.report.numbers import NONE, few_notes, number, percentile_text
from redline.report.section import Section
from redline.spec.workload import SLOW_READER
from redline.store.read import Reader
from redline.store.requests import Requests
from redline.store.rows import RunRow
from redline.units import NS_PER_MS

_TURN_HEADS = (
    "engine", "load", "turn", "requests", "prompt tokens", "cached", "TTFT ms p50", "p99", "ITL ms p50", "failed",
)  # fmt: skip
_CLIENT_HEADS = ("engine", "load", "clients", "requests", "with a token", "TTFT ms p50", "E2E ms p50")
_SLOW = "slow readers are in no headline percentile; what they cost the others is in there"
_GONE = "a client that hung up is neither a failure nor a success; its answer is in no headline percentile"


def turns_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when no request was part of a session."""
    table: list[tuple[str, ...]] = []
    notes: list[str] = []
    for who, load, one in _points(models):
        counts = (one.outcome.get("traffic") or {}).get("sessions")
        if not counts:
            continue
        table += [_turn(who, load, turn) for turn in by_turn(reader.requests(one.point_id))]
        early = [f"{counts[key]} {said}" for key, said in _EARLY.items() if counts.get(key)]
        tail = f" ({', '.join(early)})" if early else ""
        notes.append(f"{who} at {load}: {counts['begun']} sessions begun, {counts['finished']} held to their end{tail}")
    notes += few_notes(table)
    return Section("turns", "Turn by turn", _TURN_HEADS, tuple(table), tuple(notes), brief=True) if table else None


_EARLY = {
    "broken": "ended by a failed or abandoned turn",
    "cut_short": "ended because the next prompt would not have fitted",
}


def clients_section(reader: Reader, rows: Sequence[RunRow], models: Sequence[ModelReport]) -> Section | None:
    """None when every client behaved."""
    wanted = {
        row.id for row in rows
        if any((row.experiment.get("workload") or {}).get(name) for name in ("cancel_share", "slow_share"))
    }  # fmt: skip
    table: list[tuple[str, ...]] = []
    for who, load, one in _points(models):
        if one.run_id not in wanted:
            continue
        requests = reader.requests(one.point_id)
        own = ~requests.warmup
        kinds = (("hung up", requests.status == "abandoned"), ("read slowly", requests.request_class == SLOW_READER))
        for kind, which in kinds:
            if (own & which).any():
                table.append((who, load, kind, *_client(requests.pick(own & which))))
    if not table:
        return None
    said = {row[2] for row in table}
    notes = (
        *(note for kind, note in (("hung up", _GONE), ("read slowly", _SLOW)) if kind in said),
        *few_notes(table),
    )
    return Section("clients", "Clients that did not behave", _CLIENT_HEADS, tuple(table), notes, brief=True)


def _points(models: Sequence[ModelReport]) -> Iterator[tuple[str, str, Measured]]:
    for model in models:
        for engine in model.engines:
            for load, many in engine.points.items():
                for one in many:
                    yield whose(models, model.name, engine.label), load_label(load), one


def _turn(who: str, load: str, turn: TurnNumbers) -> tuple[str, ...]:
    return (
        who,
        load,
        turn.label,
        str(turn.requests),
        number(turn.prompt_tokens),
        NONE if math.isnan(turn.cached_share) else f"{turn.cached_share:.0%}",
        percentile_text(turn.ttft_ms_p50, 0.5, turn.requests),
        percentile_text(turn.ttft_ms_p99, 0.99, turn.requests),
        percentile_text(turn.itl_ms_p50, 0.5, turn.gaps),
        str(turn.failed),
    )


def _client(requests: Requests) -> tuple[str, ...]:
    first = first_chunk_ns(requests)
    began = first > 0
    ttft = (first[began] - requests.intended_ns[began]) / NS_PER_MS
    over = (requests.status == "ok") & (requests.finished_ns > 0)
    e2e = (requests.finished_ns[over] - requests.intended_ns[over]) / NS_PER_MS
    return (
        str(len(requests)),
        str(int(np.count_nonzero(began))),
        percentile_text(percentile(ttft, 0.5), 0.5, len(ttft)),
        percentile_text(percentile(e2e, 0.5), 0.5, len(e2e)),
    )
