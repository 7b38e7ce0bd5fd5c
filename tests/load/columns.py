"""Records as the store gives them back: columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from redline.load.record import RequestRecord
from redline.store.requests import Requests

_TIMES = ("intended_ns", "sent_ns", "connected_ns", "first_byte_ns", "answer_first_ns", "finished_ns")
_COUNTS = (
    "index", "prompt_tokens", "cached_tokens", "asked_prompt_tokens", "output_tokens", "asked_output_tokens",
    "http_status", "shared_stamps", "session", "turn", "canary",
)  # fmt: skip
_NAMES = ("status", "token_source", "finish_reason", "stamp", "request_class")


def columns_of(records: Sequence[RequestRecord]) -> Requests:
    ordered = sorted(records, key=lambda record: record.index)
    values: dict[str, Any] = {
        name: np.array([getattr(r, name) for r in ordered], dtype=np.int64) for name in (*_TIMES, *_COUNTS)
    }
    values |= {name: np.array([str(getattr(r, name)) for r in ordered], dtype=np.str_) for name in _NAMES}
    counts = [len(record.chunk_ns) for record in ordered]
    return Requests(
        **values,
        warmup=np.array([record.warmup for record in ordered], dtype=np.bool_),
        chunk_start=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        chunk_ns=np.array([at for record in ordered for at in record.chunk_ns], dtype=np.int64),
        chunk_tokens=np.array([count for record in ordered for count in record.chunk_tokens], dtype=np.int64),
    )
