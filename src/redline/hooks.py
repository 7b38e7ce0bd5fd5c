"""Everything that a plug-in can bring, on one page. Built-ins are listed by dotted name and use the same door.

A plug-in is any installed distribution with an entry point in the group named here; the entry point's name is the
name that users type.

    engines     group `redline.engines`: a class with the protocol `redline.engines.engine.Engine`
"""

from __future__ import annotations

import importlib
from importlib.metadata import entry_points
from typing import Any

ENGINES: dict[str, str] = {
    "redline": "redline.engines.redline:RedlineEngine",
    "transformers": "redline.engines.transformers:TransformersEngine",
    "vllm": "redline.engines.vllm:VllmEngine",
    "url": "redline.engines.url:UrlEngine",
}


def engine_kinds() -> list[str]:
    """Every adapter name that can be typed, built-in ones first."""
    return [*ENGINES, *(point.name for point in entry_points(group="redline.engines") if point.name not in ENGINES)]


def load_engine(kind: str) -> Any:
    """The adapter class for `kind`. KeyError when there is none."""
    if kind in ENGINES:
        module, _, name = ENGINES[kind].partition(":")
        return getattr(importlib.import_module(module), name)
    for point in entry_points(group="redline.engines"):
        if point.name == kind:
            return point.load()
    raise KeyError(kind)
