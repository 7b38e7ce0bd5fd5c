"""What an embeddings answer says: is there one vector per input, and is it one?"""

from __future__ import annotations

import base64
import binascii
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redline.load.answer import Answer, json_body
from redline.load.response import Response

FINISHED = "embedding"
"""The finish reason of these answers: they have no token that could be late or missing."""


def read_embeddings(response: Response, at_ns: int, inputs: int, dimension: int = 0) -> tuple[Answer, int]:
    """The answer, and how long its vectors are. `dimension` is what others were, 0 for the first answer."""
    answer = Answer()
    found, answer.problem = json_body(response, "data", _has_data)
    if answer.problem:
        return answer, dimension
    if isinstance(found.get("usage"), dict):
        answer.take_usage({"completion_tokens": 0, **found["usage"]})
    answer.problem, dimension = _check(found["data"], inputs, dimension)
    if not answer.problem:
        answer.finish_reason, answer.done_ns = FINISHED, at_ns
    return answer, dimension


def _has_data(found: dict[str, Any]) -> bool:
    return not found.get("error") and isinstance(found.get("data"), list)


def _check(data: list[Any], inputs: int, dimension: int) -> tuple[str, int]:
    """What is wrong with the vectors, and their length."""
    if len(data) != inputs:
        return f"{len(data)} vectors came back for {inputs} inputs", dimension
    for place, entry in enumerate(data):
        vector = _vector(entry.get("embedding") if isinstance(entry, dict) else None)
        if vector is None or vector.ndim != 1 or len(vector) == 0:
            return f"vector {place} is no list of numbers and no base64 of them", dimension
        if dimension and len(vector) != dimension:
            return f"vector {place} holds {len(vector)} numbers where others hold {dimension}", dimension
        dimension = len(vector)
        if not np.isfinite(vector).all():
            return f"vector {place} holds numbers that are none (NaN or infinite)", dimension
        if not vector.any():
            return f"vector {place} is zero in every place", dimension
    return "", dimension


def _vector(value: Any) -> NDArray[np.float64] | None:
    """From a list of numbers, or from base64 of little-endian 32-bit floats."""
    try:
        if isinstance(value, str):
            return np.frombuffer(base64.b64decode(value, validate=True), "<f4").astype(np.float64)
        return np.asarray(value, np.float64) if isinstance(value, list) else None
    except (ValueError, TypeError, binascii.Error):
        return None
