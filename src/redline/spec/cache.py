"""What a prefix cache may hold of the prompts: `cold`, `natural` or `warm:X%`."""

from __future__ import annotations

import re
from typing import Annotated, Any

from pydantic import BeforeValidator

from redline.spec.record import fault

_WARM = re.compile(r"warm:(\d+(?:\.\d+)?)%?")


def _cache(value: Any) -> Any:
    """`warm:50` is `warm:50%`."""
    if not isinstance(value, str):
        return value
    if value in ("cold", "natural"):
        return value
    found = _WARM.fullmatch(value)
    if found is None or not 0 < float(found[1]) < 100:
        raise fault(f"cache {value!r} is none of cold, natural, warm:X%", fix="for example warm:50%")
    return f"warm:{float(found[1]):g}%"


CacheState = Annotated[str, BeforeValidator(_cache)]
