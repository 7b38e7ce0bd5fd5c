"""Guessing with a smaller model of the same vocabulary, on the target's pages with a KV storage of its own.

A page id means the same tokens in both storages, so nothing is allocated here: a request's page table serves both, and
a page that the prefix cache hands to another request is good for the draft model, too, when the draft model wrote it.
What it lacks (after a prefill, a preemption, or a while without guessing) it computes first, at most `budget` tokens
per call; a request that is not caught up gets no guess yet.

Guesses are drawn from the draft's distribution at the request's settings, which `draft_probs` holds, and the sampler
applies the rejection rule: the distribution of the text is exact, and at high temperatures more guesses stand than of
the draft's most likely token. But such a text depends on when there were guesses. So where the answer is greedy, or the
seed was asked for, the guess is the most likely token, which leaves the text as it is without speculation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch

from redline.runtime.batch import Batch
from redline.runtime.draws import Purpose, draws
from redline.runtime.kernels import KV
from redline.runtime.ngram import room_for
from redline.runtime.ranking import pick
from redline.runtime.request import Request
from redline.runtime.sampler import Row, distribution, sample

BUDGET = 2048


class DraftModel(Protocol):
    """What is used of `runtime.model.Model`."""

    def forward(self, batch: Batch, kv: Sequence[KV]) -> torch.Tensor: ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor: ...

    def allocate_kv(
        self, pages: int, page_size: int, device: torch.device | str, dtype: torch.dtype | None = None
    ) -> list[KV]: ...


@dataclass
class _Known:
    """What the draft model has of one request: KV of the first `valid` tokens, then of guesses, `fed`."""

    row: Row
    valid: int = 0
    fed: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    """Chained hashes of the tokens in its full pages."""
    probs: list[torch.Tensor] = field(default_factory=list)


class _Piece(NamedTuple):
    """Tokens of one request to compute, from a position on; `last` says that their logits are needed."""

    request: Request
    start: int
    tokens: list[int]
    last: bool


class DraftProposer:
    """See `step.Proposer`. `pages` and `page_size` are the target's."""

    def __init__(
        self,
        model: DraftModel,
        *,
        pages: int,
        page_size: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
        budget: int = BUDGET,
    ) -> None:
        self._model, self._page_size, self._device = model, page_size, torch.device(device)
        self._kv = model.allocate_kv(pages, page_size, device, dtype)
        self._budget = budget
        self._known: dict[str, _Known] = {}
        self._written: dict[int, int] = {}
        """Page to the key of the tokens whose KV it holds, where it is full."""

    @torch.inference_mode()
    def propose(self, requests: Sequence[Request], most: int) -> None:
        rooms: dict[str, int] = {}
        behind = []
        for request in requests:
            request.draft, request.draft_probs = [], None
            known = self._settle(request)
            known.probs = []
            held = len(request.pages) * self._page_size - len(request.tokens) + 1
            rooms[request.id] = min(room_for(request, most), held)
            if rooms[request.id] > 0:
                behind.append(request)
        going, logits = self._catch_up(behind)
        while going:
            self._guess(going, logits)
            on = [(i, request) for i, request in enumerate(going) if self._goes_on(request, rooms[request.id])]
            going = [request for _, request in on]
            if going:
                logits = self._forward([self._fed(request) for request in going])
        for request in behind:
            drawn_from, self._known[request.id].probs = self._known[request.id].probs, []
            request.draft_probs = torch.stack(drawn_from) if drawn_from else None

    def release(self, request: Request) -> None:
        self._known.pop(request.id, None)

    def _settle(self, request: Request) -> _Known:
        """Takes in which guesses stood, and finds what the storage has of a request that is new here."""
        known = self._known.get(request.id)
        if known is None or known.pages != request.pages[: len(known.pages)]:
            known = self._known[request.id] = _Known(self._row(request))
            self._find(request, known)
        known.pages = list(request.pages)
        tokens = request.tokens
        for token in known.fed:
            if known.valid >= len(tokens) - 1 or tokens[known.valid] != token:
                break
            known.valid += 1
        # The last token is computed again where no step has come between: its logits are gone.
        known.valid = min(known.valid, len(tokens) - 1)
        known.fed = []
        self._record(request, known)
        return known

    def _row(self, request: Request) -> Row:
        s = replace(request.sampling, logprobs=None, prompt_logprobs=None)
        if s.seeded:
            s = replace(s, temperature=0.0)
        return Row(s, request.tokens, request.prompt_len, request.matcher)

    def _find(self, request: Request, known: _Known) -> None:
        for page in request.pages[: (len(request.tokens) - 1) // self._page_size]:
            key = self._key(request, known.keys)
            if self._written.get(page) != key:
                return
            known.keys.append(key)
            known.valid += self._page_size

    def _record(self, request: Request, known: _Known) -> None:
        while (len(known.keys) + 1) * self._page_size <= known.valid:
            known.keys.append(self._key(request, known.keys))
            self._written[request.pages[len(known.keys) - 1]] = known.keys[-1]

    def _key(self, request: Request, before: list[int]) -> int:
        start = len(before) * self._page_size
        return hash((before[-1] if before else 0, *request.tokens[start : start + self._page_size]))

    def _catch_up(self, behind: list[Request]) -> tuple[list[Request], torch.Tensor]:
        """Computes what is missing, those that lack least first. The requests that may guess, and their logits."""
        left, pieces = self._budget, []
        for request in sorted(behind, key=lambda one: len(one.tokens) - self._known[one.id].valid):
            start = self._known[request.id].valid
            tokens = request.tokens[start : start + left]
            left -= len(tokens)
            if tokens:
                pieces.append(_Piece(request, start, tokens, start + len(tokens) == len(request.tokens)))
        if not pieces:
            return [], torch.empty(0)
        logits = self._forward(pieces)
        for piece in pieces:
            known = self._known[piece.request.id]
            known.valid = piece.start + len(piece.tokens)
            self._record(piece.request, known)
        return [piece.request for piece in pieces if piece.last], logits

    def _guess(self, going: list[Request], logits: torch.Tensor) -> None:
        """One more guess for each. `logits` [requests, V]."""
        rows = []
        for request in going:
            row = self._known[request.id].row
            row.draft = tuple(request.draft)
            rows.append(row)
        likely = [i for i, row in enumerate(rows) if row.greedy]
        if likely:
            best = sample(logits[likely], [rows[i] for i in likely])
            for i, drawn in zip(likely, best, strict=True):
                if not drawn.fault:
                    going[i].draft.append(drawn.token)
        if len(likely) < len(rows):
            self._draw(going, logits, [i for i, row in enumerate(rows) if not row.greedy], rows)

    def _draw(self, going: list[Request], logits: torch.Tensor, at: list[int], rows: list[Row]) -> None:
        """Of the requests `at`: what is drawn from is what is kept, in float32, which halves the memory."""
        some = [rows[i] for i in at]
        probs = distribution(logits[at], some).float()
        seeds, positions = [row.sampling.seed for row in some], [row.position for row in some]
        tokens = pick(probs, draws(seeds, positions, Purpose.DRAFT, probs.device)).tolist()
        useless = probs[:, 0].isnan().tolist()
        for place, i in enumerate(at):
            if not useless[place]:
                going[i].draft.append(tokens[place])
                self._known[going[i].id].probs.append(probs[place])

    def _goes_on(self, request: Request, room: int) -> bool:
        """False when it has enough, got no guess this time, or the answer would end with the last one."""
        draft = request.draft
        grew = len(draft) > len(self._known[request.id].row.draft)
        return grew and len(draft) < room and draft[-1] not in request.sampling.stop_ids

    def _fed(self, request: Request) -> _Piece:
        known = self._known[request.id]
        place = len(request.tokens) + len(known.fed)
        known.fed.append(request.draft[-1])
        return _Piece(request, place, [request.draft[-1]], True)

    def _forward(self, pieces: list[_Piece]) -> torch.Tensor:
        """Logits after the pieces that need them, [L, V]; their KV is written."""
        for piece in pieces:
            first, after = piece.start // self._page_size, piece.start + len(piece.tokens)
            for page in piece.request.pages[first : -(-after // self._page_size)]:
                self._written.pop(page, None)
        batch = _batch(pieces, self._page_size, self._device)
        hidden = self._model.forward(batch, self._kv)
        return self._model.logits(hidden) if hidden.shape[0] else hidden


def _batch(pieces: list[_Piece], page_size: int, device: torch.device) -> Batch:
    starts, lengths, slots, positions, logits_at = [0], list[int](), list[int](), list[int](), list[int]()
    tables: list[list[int]] = []
    for piece in pieces:
        span = range(piece.start, piece.start + len(piece.tokens))
        pages = piece.request.pages
        positions += span
        slots += [pages[place // page_size] * page_size + place % page_size for place in span]
        tables.append(pages[: -(-span.stop // page_size)])
        lengths.append(span.stop)
        starts.append(starts[-1] + len(span))
        if piece.last:
            logits_at.append(starts[-1] - 1)
    width = max(map(len, tables))
    int32 = torch.int32
    return Batch(
        ids=torch.tensor([token for piece in pieces for token in piece.tokens], device=device),
        positions=torch.tensor(positions, device=device),
        slots=torch.tensor(slots, device=device),
        starts=torch.tensor(starts, dtype=int32, device=device),
        seq_lens=torch.tensor(lengths, dtype=int32, device=device),
        page_tables=torch.tensor(
            [[*table, *[0] * (width - len(table))] for table in tables], dtype=int32, device=device
        ),
        logits_at=torch.tensor(logits_at, dtype=torch.int64, device=device),
        max_query=max(len(piece.tokens) for piece in pieces),
        max_seq=max(lengths),
        host_starts=starts,
        host_seq_lens=lengths,
    )
