"""Records of the load generator as the columns that are analysed, without a results file between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from redline.analyse.finding import Verdict
from redline.analyse.summary import summarise_point
from redline.load.record import RequestRecord
from redline.store.requests import Requests
from tests.load.servers import Result


def columns(records: Sequence[RequestRecord]) -> Requests:
    ordered = sorted(records, key=lambda record: record.index)
    found: dict[str, Any] = {}
    for field in fields(Requests):
        if not field.name.startswith("chunk_"):
            values = [getattr(record, field.name) for record in ordered]
            text = values and isinstance(values[0], str)
            found[field.name] = np.array([str(value) for value in values] if text else values)
    lengths = [len(record.chunk_ns) for record in ordered]
    return Requests(
        **found,
        chunk_start=np.concatenate(([0], np.cumsum(lengths))).astype(np.int64),
        chunk_ns=np.array([t for record in ordered for t in record.chunk_ns], dtype=np.int64),
        chunk_tokens=np.array([n for record in ordered for n in record.chunk_tokens], dtype=np.int64),
    )


def verdict(result: Result, **outcome: Any) -> Verdict:
    """Of a load point, with what else was found about it."""
    return summarise_point(
        columns(result.records),
        window_hint=(result.outcome.measured_from_ns, result.outcome.ended_ns),
        slo={},
        attainment=0.95,
        outcome=result.outcome.as_dict() | outcome,
        seed=1,
        run_id="run",
    ).verdict


def reasons(found: Verdict, word: str) -> list[tuple[str, str]]:
    """(state, reason) of the reasons with this word in them."""
    return [(level, text) for level, text in zip(found.levels, found.reasons, strict=True) if word in text]
