"""What crosses from `observe` to `store` and `analyse`: one measured value at one instant."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Sample:
    """`t_ns` is monotonic. `name` is dotted and ends in its unit, e.g. `engine.rss_bytes`, `gpu.memory_used_bytes`."""

    t_ns: int
    name: str
    value: float
    unit: str
    labels: dict[str, str] = field(default_factory=dict)
