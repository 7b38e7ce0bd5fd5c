"""How long a model takes to load: from the disk, from the page cache, from another path, and into an engine.

Every way runs `repeats` times, interleaved and each time in another order, so that what the box does meanwhile falls on
all of them alike.
"""

from __future__ import annotations

import mmap
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.errors import EnvironmentFault, Skipped, UsageError
from redline.node.prewarm import STAYED, cannot_fit, read_through
from redline.node.residency import drop, resident_bytes
from redline.node.sys import Sys, text
from redline.node.weights import model_files

COLD = 0.01
"""A share of resident bytes up to which a file counts as dropped."""
_PIECE = 16 << 20

Prepare = Callable[[], Skipped | None]
Said = Callable[[str], None]


@dataclass(frozen=True)
class Way:
    """`load` returns seconds, or why this way cannot be had; `prepare` brings the page cache into the state that the
    way is about and is not timed."""

    name: str
    how: str
    size: int
    prepare: Prepare
    load: Callable[[], float | Skipped]


@dataclass(frozen=True)
class Timed:
    """A way's measurements, in the order in which they were made; none when it was skipped."""

    name: str
    how: str
    size: int
    seconds: tuple[float, ...]
    skipped: Skipped | None = None

    @property
    def median(self) -> float | None:
        return statistics.median(self.seconds) if self.seconds else None

    @property
    def spread(self) -> tuple[float, float] | None:
        return (min(self.seconds), max(self.seconds)) if self.seconds else None

    @property
    def gb_per_s(self) -> float | None:
        return self.size / self.median / 1e9 if self.median else None

    def as_dict(self) -> dict[str, Any]:
        skipped = {"skipped": self.skipped.reason, "how": self.skipped.how_to_get_it} if self.skipped else {}
        return {
            "name": self.name, "how": self.how, "bytes": self.size, "seconds": list(self.seconds),
            "median_s": self.median, "spread_s": self.spread, "gb_per_s": self.gb_per_s, **skipped,
        }  # fmt: skip


def load_time(ways: Sequence[Way], *, repeats: int = 3, said: Said = lambda line: None) -> list[Timed]:
    """Measures `ways`. One that cannot be had is skipped with its reason from then on."""
    if repeats < 1:
        raise UsageError(f"{repeats} repeats make no sense", fix="--repeats 3")
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    skipped: dict[str, Skipped] = {}
    for repeat in range(repeats):
        # turned by one each time: no way always runs after the same other one
        for way in [*ways[repeat % len(ways) :], *ways[: repeat % len(ways)]] if ways else ():
            if way.name in skipped:
                continue
            said(f"{way.name}, {repeat + 1} of {repeats}")
            missing = way.prepare()
            took = way.load() if missing is None else missing
            if isinstance(took, Skipped):
                skipped[way.name] = took
            else:
                seconds[way.name].append(took)
    return [Timed(way.name, way.how, way.size, tuple(seconds[way.name]), skipped.get(way.name)) for way in ways]


def file_ways(
    sys: Sys, folder: Path, others: Sequence[Path] = (), *, workers: int = 8, root: Path = Path("/")
) -> list[Way]:
    """Reading `folder`'s files cold, cold through a mapping (as lazy loaders do) and warm, and those of `others` cold.

    Raises ModelNotFound for a folder without weights.
    """
    cold = [(folder, "cold"), *((other, f"cold {other}") for other in others)]
    ways = []
    for place, name in cold:
        files = model_files(place)
        size = sum(path.stat().st_size for path in files)
        how = f"{filesystem(sys, place)}, {workers} readers, nothing in the page cache"
        ways.append(Way(name, how, size, lambda files=files: make_cold(files), _reader(files, workers)))  # type: ignore[misc]
    files = model_files(folder)
    size = sum(path.stat().st_size for path in files)
    lazy = Way(
        "cold, mapped", "one thread through mmap, as lazy loaders do", size, lambda: make_cold(files), _mapper(files)
    )
    warm = Way(
        "warm", f"{workers} readers, all of it in the page cache", size,
        lambda: make_warm(files, workers, root), _reader(files, workers),
    )  # fmt: skip
    return [ways[0], lazy, warm, *ways[1:]]


def make_cold(files: Sequence[Path]) -> Skipped | None:
    """Puts the files, and no others, out of the page cache."""
    left = 0
    for path in files:
        try:
            there = drop(path)
        except OSError as error:
            return Skipped(f"{path.name} cannot be dropped: {error.strerror}", "run as a user who may read it")
        if there is None:
            return Skipped(f"the kernel does not tell what is cached of {path.name}", "run as its owner, or as root")
        left += there
    if left > COLD * sum(path.stat().st_size for path in files):
        how = "stop the process that has them mapped (fuser -m names it); tmpfs has nothing else than the cache"
        return Skipped(f"{left / 1e6:,.0f} MB stay in the page cache", how)
    return None


def make_warm(files: Sequence[Path], workers: int = 8, root: Path = Path("/")) -> Skipped | None:
    """Reads the files until all of them are in the page cache."""
    sizes = [(path, path.stat().st_size) for path in files]
    size = sum(size for _, size in sizes)
    before = sum(resident_bytes(path) or 0 for path in files)
    if why := cannot_fit(size, before, root):
        return Skipped(f"the files do not fit into the page cache: {why}", "more memory, or a higher limit")
    if before < STAYED * size:
        _, interrupted = read_through(sizes, workers)
        if interrupted:
            raise KeyboardInterrupt
    there = [resident_bytes(path) for path in files]
    if None in there:
        return Skipped("the kernel does not tell what is cached", "run as the files' owner, or as root")
    if sum(found or 0 for found in there) < STAYED * size:
        return Skipped("the files do not stay in the page cache", "a filesystem with a page cache (no FUSE direct_io)")
    return None


def _reader(files: Sequence[Path], workers: int) -> Callable[[], float]:
    sizes = [(path, path.stat().st_size) for path in files]

    def load() -> float:
        began = time.perf_counter()
        _, interrupted = read_through(sizes, workers)
        if interrupted:
            raise KeyboardInterrupt
        return time.perf_counter() - began

    return load


def _mapper(files: Sequence[Path]) -> Callable[[], float]:
    def load() -> float:
        buffer = bytearray(_PIECE)
        began = time.perf_counter()
        for path in files:
            with path.open("rb") as file:
                if not path.stat().st_size:
                    continue
                with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                    for start in range(0, len(view), _PIECE):
                        part = view[start : start + _PIECE]
                        buffer[: len(part)] = part
                        part.release()
        return time.perf_counter() - began

    return load


def filesystem(sys: Sys, folder: Path) -> str:
    """`ext4`, `nfs4`: what is mounted where `folder` lies."""
    where, kind = "", "an unknown filesystem"
    try:
        real = str(folder.resolve(strict=True))
    except OSError as error:
        raise EnvironmentFault(f"{folder} cannot be read: {error.strerror}") from error
    for line in (text(sys, "/proc/self/mounts") or "").splitlines():
        words = line.split()
        if len(words) > 2 and len(words[1]) >= len(where):
            mount = words[1].replace("\\040", " ")
            if real == mount or real.startswith(mount.rstrip("/") + "/"):
                where, kind = mount, words[2]
    return kind
