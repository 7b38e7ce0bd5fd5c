"""Which recorded facts differ between two sides of a comparison, and which of those matter for speed."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from redline.report.evidence import box_rows
from redline.store.rows import RunRow, TrialRow
from redline.store.scrub import Scrubber

_EVERY_TIME = re.compile(
    r"(taken_wall|loadavg|uptime|pressure|throttled_s|available_bytes|usable_bytes|used_bytes|free_bytes|temperature"
    r"|utili[sz]ation|processes|swap_used|power\.now_w|clocks_mhz\.(sm|memory)$|pcie\.generation$)"
)
"""What differs between any two moments of the same box."""

_MATTERS = re.compile(
    r"^(box_hash|cpu\.|memory\.(total|limit|transparent|numa|hugepages)|gpu\.|kernel\.(release|cmdline|mitigations|"
    r"clocksource)|virtualisation\.|torch_build\.|packages\.(torch|transformers|vllm|flashinfer|triton|accelerate|numpy)"
    r"|engine\.|flag\.|hash\.|model$|workload\.|load\.|slo\.)"
)
_LIMIT = 160


@dataclass(frozen=True)
class Differing:
    """One field that is not the same. `matters` marks those that can change a speed."""

    field: str
    a: str
    b: str
    matters: bool


def differing(a: tuple[RunRow, TrialRow], b: tuple[RunRow, TrialRow]) -> list[Differing]:
    """What matters first. Secrets are cut once more: an imported run may hold some."""
    ours, theirs = dict(_fields(*a)), dict(_fields(*b))
    names = [name for name in dict.fromkeys((*ours, *theirs)) if not _EVERY_TIME.search(name)]
    found = [
        Differing(name, *_cut(ours.get(name, "–"), theirs.get(name, "–")), bool(_MATTERS.match(name)))
        for name in names
        if ours.get(name) != theirs.get(name)
    ]
    return sorted(found, key=lambda one: not one.matters)


def _fields(run: RunRow, trial: TrialRow) -> Iterator[tuple[str, str]]:
    scrub = Scrubber()
    experiment = {k: v for k, v in run.experiment.items() if k not in ("engines", "models")}
    spec = {k: v for k, v in trial.spec.items() if k not in ("flags", "name", "port") and v not in ("", None, {})}
    parts: list[tuple[str, Mapping[str, Any]]] = [
        ("", {"model": trial.model}),
        ("engine.", {"version": trial.engine_version, **spec}),
        ("flag.", trial.flags or dict(trial.spec.get("flags") or {})),
        ("hash.", trial.hashes),
        ("", {"experiment." + k: v for k, v in experiment.items() if k not in ("workload", "load", "slo")}),
        ("", {part: experiment.get(part) or {} for part in ("workload", "load", "slo")}),
        ("", {**run.provenance, "redline": {"version": run.redline_version, **_commit(run.provenance)}}),
    ]
    for prefix, tree in parts:
        for name, value in box_rows(scrub.value(dict(tree))):
            yield prefix + name, value


def _cut(a: str, b: str) -> tuple[str, str]:
    """Both as far as they are shown: where one is too long, from a little before the first letter that differs."""
    if max(len(a), len(b)) <= _LIMIT:
        return a, b
    alike = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    start = max(alike - _LIMIT // 4, 0) if alike >= _LIMIT - 1 else 0
    return _shown(a, start), _shown(b, start)


def _shown(text: str, start: int) -> str:
    before, rest = "…" if start else "", text[start:]
    room = _LIMIT - len(before)
    return before + (rest if len(rest) <= room else rest[: room - 1] + "…")


def _commit(provenance: Mapping[str, Any]) -> dict[str, Any]:
    recorded = provenance.get("redline")
    return {"commit": recorded.get("commit", "")} if isinstance(recorded, dict) else {}
