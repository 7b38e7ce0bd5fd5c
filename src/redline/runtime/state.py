"""What the device knows about each running request, and how the host changes it.

Every number of every row lies in one int32 tensor, so that all changes between two steps travel as one list of (place,
value). A decode step advances rows by itself; the host keeps a mirror of what the device will have when the steps in
flight are through, and sends only what differs: a new row, a new page, another membership.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from redline.runtime.request import Request, Sampling
from redline.runtime.sampler import GREEDY_BELOW, Row
from redline.runtime.step import Chunk

ALIGN = 64
"""Sections begin at multiples of so many entries, so that kernels may take every pointer as aligned."""
FIELDS = ("token", "position", "top_k", "seed_low", "seed_high")
REALS = ("temperature", "top_p", "min_p")


class Tables:
    """Device side. Row `padding_row`, the last, belongs to nobody: token 0 at position 0 in page 0, greedy.

    `token` [rows + 1] int32 is the last token, at `position`, whose KV is not written yet. `pages` [rows + 1, P].
    `active`: the rows of a decode step, packed to the front, then padding.
    """

    token: torch.Tensor
    position: torch.Tensor
    top_k: torch.Tensor
    seed_low: torch.Tensor
    seed_high: torch.Tensor
    temperature: torch.Tensor
    top_p: torch.Tensor
    min_p: torch.Tensor

    def __init__(self, rows: int, pages_per_row: int, page_size: int, device: torch.device) -> None:
        section, row = _aligned(rows + 1), _aligned(pages_per_row)
        self.padding_row, self.pages_per_row, self.page_size = rows, row, page_size
        self.starts = {name: i * section for i, name in enumerate((*FIELDS, *REALS))}
        self.starts["active"] = section * len(self.starts)
        self.starts["pages"] = self.starts["active"] + section
        self.flat = torch.zeros(self.starts["pages"] + (rows + 1) * row, dtype=torch.int32, device=device)
        for name in FIELDS:
            setattr(self, name, self._section(name, rows + 1))
        for name in REALS:
            setattr(self, name, self._section(name, rows + 1).view(torch.float32))
        self.top_p.fill_(1.0)
        self.active = self._section("active", rows)
        self.active.fill_(rows)
        self.pages = self._section("pages", (rows + 1) * row).view(rows + 1, row)

    def _section(self, name: str, length: int) -> torch.Tensor:
        return self.flat[self.starts[name] : self.starts[name] + length]


def _aligned(n: int) -> int:
    return -(-n // ALIGN) * ALIGN


@dataclass(eq=False)
class Known:
    """What the device has, or will have, for one row. `position` -1: it has no usable token."""

    request: Request | None = None
    pages: int = 0
    position: int = -1
    chosen: dict[int, int] = field(default_factory=dict)
    """Tokens that the host chose, by position, while the request may not have them yet."""
    sampler: Row | None = None


class Mirror:
    """Host side. Collects changes; `take` hands them over, the last value of every place."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables
        self.rows = [Known() for _ in range(tables.padding_row)]
        self.active: list[int] = [tables.padding_row] * tables.padding_row
        self._changes: dict[int, int] = {}

    def occupy(self, request: Request) -> Known:
        """The row of a request, with its sampling and all its pages sent."""
        known = self.rows[request.row]
        if known.request is not request:
            known = self.rows[request.row] = Known(request)
            self._send_sampling(request.row, request.sampling)
        have = len(request.pages)
        if known.pages < have:
            start = self.tables.starts["pages"] + request.row * self.tables.pages_per_row
            for i in range(known.pages, have):
                self._changes[start + i] = request.pages[i]
            known.pages = have
        return known

    def decode(self, chunks: Sequence[Chunk], bucket: int) -> None:
        """Makes the device ready to decode these rows, and notes that it will be one token further."""
        active = self.active
        padding = self.tables.padding_row
        start = self.tables.starts["active"]
        for i, chunk in enumerate(chunks):
            request = chunk.request
            row = request.row
            known = self.rows[row]
            if known.request is not request or known.pages < len(request.pages):
                known = self.occupy(request)
            if known.position != chunk.start:
                self.place(row, request.tokens[chunk.start], chunk.start)
            known.position = chunk.start + 1
            if active[i] != row:
                active[i] = row
                self._changes[start + i] = row
        for i in range(len(chunks), bucket):
            if active[i] != padding:
                active[i] = padding
                self._changes[start + i] = padding

    def place(self, row: int, token: int, position: int) -> None:
        """The row's last token, which the host knows."""
        starts = self.tables.starts
        self._changes[starts["token"] + row] = token
        self._changes[starts["position"] + row] = position
        self.rows[row].position = position

    def chose(self, request: Request, token: int, position: int) -> None:
        """The host chose for a row: what the device has there is replaced."""
        self.place(request.row, token, position)
        chosen = self.rows[request.row].chosen
        chosen[position] = token
        for old in [at for at in chosen if at < len(request.tokens)]:
            del chosen[old]

    def release(self, request: Request) -> None:
        if 0 <= request.row < len(self.rows) and self.rows[request.row].request is request:
            self.rows[request.row] = Known()

    def take(self) -> np.ndarray | None:
        """Changes so far as int32 [2, n] (places, values), or None."""
        if not self._changes:
            return None
        changes = np.empty((2, len(self._changes)), dtype=np.int32)
        changes[0] = np.fromiter(self._changes.keys(), dtype=np.int32, count=len(self._changes))
        changes[1] = np.fromiter(self._changes.values(), dtype=np.int32, count=len(self._changes))
        self._changes.clear()
        return changes

    def _send_sampling(self, row: int, sampling: Sampling) -> None:
        starts, changes = self.tables.starts, self._changes
        heat = sampling.temperature if sampling.temperature >= GREEDY_BELOW else 0.0
        for name, value in zip(REALS, (heat, sampling.top_p, sampling.min_p), strict=True):
            changes[starts[name] + row] = int(np.float32(value).view(np.int32))
        changes[starts["top_k"] + row] = min(sampling.top_k, (1 << 31) - 1)
        changes[starts["seed_low"] + row] = _signed32(sampling.seed)
        changes[starts["seed_high"] + row] = _signed32(sampling.seed >> 32)


def _signed32(value: int) -> int:
    value &= 0xFFFFFFFF
    return value - (1 << 32) if value >> 31 else value


class Sender:
    """Copies numbers to the device without waiting: pinned buffers in a ring, each free when its copy is through.

    On the CPU it copies at once.
    """

    def __init__(self, device: torch.device, slots: int = 4, capacity: int = 1 << 16) -> None:
        self.device = device
        self.pinned = device.type == "cuda"
        self._slots = [torch.empty(capacity, dtype=torch.int32, pin_memory=self.pinned) for _ in range(slots)]
        self._done: list[torch.cuda.Event | None] = [None] * slots
        self._next = 0

    def send(self, numbers: np.ndarray) -> torch.Tensor:
        """An int32 array, flattened, on the device."""
        return self.into(numbers, torch.empty(numbers.size, dtype=torch.int32, device=self.device))

    def into(self, numbers: np.ndarray, target: torch.Tensor) -> torch.Tensor:
        """The same, to a tensor of as many numbers."""
        flat = numbers.reshape(-1)
        slot = self._next
        self._next = (slot + 1) % len(self._slots)
        done = self._done[slot]
        if done is not None:
            done.synchronize()
        if len(flat) > len(self._slots[slot]):
            self._slots[slot] = torch.empty(2 * len(flat), dtype=torch.int32, pin_memory=self.pinned)
        part = self._slots[slot][: len(flat)]
        part.numpy()[:] = flat
        target.copy_(part, non_blocking=True)
        if self.pinned:
            done = torch.cuda.Event()  # type: ignore[no-untyped-call]
            done.record()
            self._done[slot] = done
        return target

    def apply(self, changes: np.ndarray | None, tables: Tables) -> None:
        """Writes a mirror's changes into the tables."""
        if changes is not None:
            places, values = self.send(changes).view(2, -1)
            tables.flat.index_copy_(0, places.long(), values)
