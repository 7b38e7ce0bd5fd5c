"""The ceilings of cards, one file for each: GPU (or CPU), driver and torch are its key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import orjson

from redline.errors import EnvironmentFault
from redline.spec.shapes import default_cache

VERSION = 1
DTYPES = {
    "bfloat16": "bf16", "float16": "fp16", "float32": "tf32", "bf16": "bf16", "fp16": "fp16", "fp8": "fp8",
    "tf32": "tf32", "fp32": "fp32", "int8": "bf16",
}  # fmt: skip
"""From an engine's word for a type to that of a ceiling. Weights of 8 and 4 bits that are taken apart first are
multiplied as bf16."""


@dataclass(frozen=True)
class Ceilings:
    """Measured on random data. `read` and `copy` in bytes/s, `flops` in FLOP/s by type, `spread` the distance of the
    median round from the best by the same names; `skipped` says why a type is missing."""

    card: str
    driver: str
    torch: str
    read: float
    copy: float
    flops: dict[str, float]
    spread: dict[str, float] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    measured_wall: str = ""
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return hashlib.sha256(f"{VERSION}\0{self.card}\0{self.driver}\0{self.torch}".encode()).hexdigest()[:16]

    def flops_of(self, dtype: str) -> tuple[float, str] | None:
        """(FLOP/s, type that was measured) for weights of this type; None where there is no such number."""
        wanted = DTYPES.get(dtype.lower(), dtype.lower())
        others = ("fp32", "tf32") if wanted in ("fp32", "tf32") else (wanted,)
        return next(((self.flops[name], name) for name in others if name in self.flops), None)

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def from_dict(told: Mapping[str, Any]) -> Ceilings:
    return Ceilings(**{name: told[name] for name in Ceilings.__dataclass_fields__ if name in told})


def folder(cache: Path | None = None) -> Path:
    return (cache or default_cache()) / "ceilings"


def keep(ceilings: Ceilings, cache: Path | None = None) -> Path:
    """Writes them over those of the same card, driver and torch."""
    path = folder(cache) / f"{ceilings.key}.json"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_suffix(".part")
        draft.write_bytes(orjson.dumps(ceilings.as_dict(), option=orjson.OPT_INDENT_2))
        draft.replace(path)
    except OSError as error:
        raise EnvironmentFault(
            f"{path} cannot be written: {error.strerror or error}",
            fix="point XDG_CACHE_HOME at a folder that can be written",
        ) from error
    return path


def kept(cache: Path | None = None) -> list[Ceilings]:
    """All that were kept, newest first; a damaged file is left out."""
    found = []
    for path in folder(cache).glob("*.json"):
        try:
            found.append(from_dict(orjson.loads(path.read_bytes())))
        except (OSError, ValueError, TypeError):
            continue
    return sorted(found, key=lambda one: one.measured_wall, reverse=True)


def ceilings_of(card: str, driver: str = "", cache: Path | None = None) -> Ceilings | None:
    """The newest ones of a card; those of the same driver come first."""
    same = [one for one in kept(cache) if one.card == card]
    return next((one for one in same if one.driver == driver), same[0] if same else None)


def card_of(provenance: Mapping[str, Any]) -> tuple[str, str]:
    """(card, driver) that a run's facts of the box name: the first GPU, else the CPU. ('', '') where they do not."""
    gpu = provenance.get("gpu") or {}
    devices = gpu.get("devices") if isinstance(gpu, Mapping) else None
    if devices:
        return str(devices[0].get("name") or ""), str(gpu.get("driver") or "")
    return cpu_card(provenance.get("cpu") or {}), ""


def known_ceilings(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """`ceilings` of the card that these facts name, short enough to stand beside them; empty when none were kept."""
    card, driver = card_of(provenance)
    found = ceilings_of(card, driver) if card else None
    if found is None:
        return {}
    names = ("card", "driver", "torch", "read", "copy", "flops")
    return {"ceilings": {name: getattr(found, name) for name in names}}


def cpu_card(cpu: Mapping[str, Any]) -> str:
    """`AMD EPYC × 2`: a CPU with another number of hardware threads is another card."""
    model, threads = str(cpu.get("model") or ""), cpu.get("threads")
    return f"{model} × {threads}" if model and threads else model
