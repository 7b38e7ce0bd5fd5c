"""Records as columns, without a results file between."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from redline.load.record import RequestRecord
from redline.store.requests import Requests

_NAMES = ("status", "token_source", "finish_reason", "stamp", "request_class")


def columns_of(records: Sequence[RequestRecord]) -> Requests:
    """What `Reader.requests` would give for these records."""
    whole: dict[str, Any] = {}
    for name in (f.name for f in fields(Requests) if not f.name.startswith("chunk_")):
        kind: Any = np.str_ if name in _NAMES else np.bool_ if name == "warmup" else np.int64
        whole[name] = np.array([getattr(record, name) for record in records], dtype=kind)
    counts = [len(record.chunk_ns) for record in records]
    return Requests(
        **whole,
        chunk_start=np.concatenate(([0], np.cumsum(counts))).astype(np.int64),
        chunk_ns=np.array([at for record in records for at in record.chunk_ns], dtype=np.int64),
        chunk_tokens=np.array([n for record in records for n in record.chunk_tokens], dtype=np.int64),
    )
