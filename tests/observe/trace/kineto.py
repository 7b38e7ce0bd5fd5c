"""Traces as torch.profiler writes them: its layout, its categories, its oddities."""

from __future__ import annotations

import gzip
from collections.abc import Iterable
from pathlib import Path

HEAD = '{\n  "schemaVersion": 1,\n  "deviceProperties": [],\n  "displayTimeUnit": "ms",\n  "traceEvents": [\n'
TAIL = '\n  ],\n  "traceName": "t.json"\n}\n'


def kernel(name: str, start: float, length: float, *, stream: int = 7, correlation: int = 0) -> str:
    return (
        f'  {{\n    "ph": "X", "cat": "kernel", "name": "{name}", "pid": 0, "tid": {stream},\n'
        f'    "ts": {start:.3f}, "dur": {length:.3f},\n    "args": {{\n      "External id": 1,\n      "device": 0,'
        f' "context": 1,\n      "stream": {stream}, "correlation": {correlation},\n'
        '      "grid": [512, 1, 1]\n    }\n  }'
    )


def host(category: str, name: str, start: float, length: float, *, thread: int = 11, correlation: int = 0) -> str:
    linked = f', "correlation": {correlation}' if correlation else ""
    return (
        f'  {{\n    "ph": "X", "cat": "{category}", "name": "{name}", "pid": 11, "tid": {thread},\n'
        f'    "ts": {start:.3f}, "dur": {length:.3f}\n    ,\n'
        f'    "args": {{\n      "External id": 1{linked}\n    }}\n  }}'
    )


def on_device(name: str, start: float, length: float, *, stream: int = 7) -> str:
    return (
        f'  {{\n    "ph": "X", "cat": "gpu_user_annotation", "name": "{name}", "pid": 0, "tid": {stream},\n'
        f'    "ts": {start:.3f}, "dur": {length:.3f}\n  }}'
    )


def whole(events: Iterable[str]) -> str:
    return HEAD + ",\n".join(events) + TAIL


def written(path: Path, events: Iterable[str]) -> Path:
    """The trace as a file; gzip where the name ends in .gz."""
    data = whole(events).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path
