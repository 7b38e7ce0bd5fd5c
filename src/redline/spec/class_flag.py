"""`--class NAME=FIELD:VALUE,...`: a class of a mixed workload in one flag.

--class chat=weight:3,prompt_tokens:128,slo.ttft_ms:200 --class rag=prompt_tokens:4000,priority:1
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redline.errors import SpecError
from redline.spec.tree import read_scalar

_FIX = "such as  --class chat=weight:3,prompt_tokens:128,slo.ttft_ms:200"


def class_rows(texts: Sequence[str]) -> list[dict[str, Any]]:
    """One mapping per flag, as a file would hold it. SpecError for what is not in this form."""
    return [_row(text) for text in texts]


def _row(text: str) -> dict[str, Any]:
    name, equals, rest = text.partition("=")
    if not name.strip():
        raise SpecError(f"{text!r} names no class", field="--class", fix=_FIX)
    row: dict[str, Any] = {"name": name.strip()}
    for part in filter(None, (part.strip() for part in rest.split(","))) if equals else ():
        field, colon, value = part.partition(":")
        if not colon or not field.strip() or not value.strip():
            raise SpecError(f"{part!r} is not FIELD:VALUE", field="--class", fix=_FIX)
        _put(row, field.strip(), read_scalar(value.strip(), f"--class {text}"))
    return row


def _put(row: dict[str, Any], field: str, value: Any) -> None:
    """`slo.ttft_ms` goes into `slo`; a length's mean is the length itself until another part of it is given."""
    first, dot, rest = field.partition(".")
    if not dot:
        row[first] = {"mean": value} if first in ("prompt_tokens", "output_tokens") else value
        return
    inner = row.setdefault(first, {})
    if not isinstance(inner, dict):
        raise SpecError(f"{first} has no part {rest!r}", field="--class", fix=_FIX)
    inner[rest] = value
