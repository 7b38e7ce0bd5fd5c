"""How often tokens occur in a request, and what the repetition, frequency and presence penalties make of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from redline.runtime.request import Sampling
    from redline.runtime.sampler import Row


class Counts:
    """The tokens of one request: every id that occurs, and how often it occurs in the answer.

    Kept between steps, a step costs its new tokens; a request's tokens only ever grow.
    """

    def __init__(self, tokens: Sequence[int], prompt_len: int) -> None:
        self.prompt_len = prompt_len
        self.seen = min(prompt_len, len(tokens))
        self._ids = np.unique(np.asarray(tokens[: self.seen], dtype=np.int64))
        self._answer = np.zeros(len(self._ids), dtype=np.float32)
        self._place = {int(token): place for place, token in enumerate(self._ids)}
        self.update(tokens)

    def update(self, tokens: Sequence[int]) -> None:
        for token in tokens[self.seen :]:
            place = self._place.setdefault(token, len(self._place))
            if place >= len(self._ids):
                room = max(64, len(self._ids))
                self._ids = np.concatenate([self._ids, np.zeros(room, dtype=np.int64)])
                self._answer = np.concatenate([self._answer, np.zeros(room, dtype=np.float32)])
            self._ids[place] = token
            self._answer[place] += 1
        self.seen = max(self.seen, len(tokens))

    def arrays(self, draft: Sequence[int] = ()) -> tuple[np.ndarray, np.ndarray]:
        """Ids, int64, and their counts in the answer, float32, as if `draft` belonged to the answer."""
        size = len(self._place)
        ids, answer = self._ids[:size], self._answer[:size]
        if not draft:
            return ids, answer
        fresh = [token for token in dict.fromkeys(draft) if token not in self._place]
        ids = np.concatenate([ids, np.asarray(fresh, dtype=np.int64)])
        answer = np.concatenate([answer, np.zeros(len(fresh), dtype=np.float32)])
        extra = {token: size + place for place, token in enumerate(fresh)}
        for token in draft:
            answer[self._place[token] if token in self._place else extra[token]] += 1
        return ids, answer


def penalises(s: Sampling) -> bool:
    return s.repetition_penalty != 1 or s.frequency_penalty != 0 or s.presence_penalty != 0


def counts(row: Row) -> Counts:
    if row.counts is None:
        row.counts = Counts(row.tokens, row.prompt_len)
    elif len(row.tokens) > row.counts.seen:
        row.counts.update(row.tokens)
    return row.counts


def penalise(logits: torch.Tensor, places: Sequence[int], rows: Sequence[Row]) -> None:
    """Changes `logits` [R, V] in place at `places`, one per row of `rows`.

    Repetition (prompt and answer) divides what is above zero and multiplies what is below; then frequency times the
    count and presence, once, are taken off what the answer has. The same three as in vLLM, in its order.
    """
    found = [counts(row).arrays(row.draft) for row in rows]
    sizes = [len(ids) for ids, _ in found]
    device = logits.device

    def spread(numbers: Sequence[float]) -> torch.Tensor:
        return torch.from_numpy(np.repeat(np.asarray(numbers, dtype=np.float32), sizes)).to(device)

    at = torch.from_numpy(np.repeat(np.asarray(places, dtype=np.int64), sizes)).to(device)
    ids = torch.from_numpy(np.concatenate([ids for ids, _ in found])).to(device)
    answer = torch.from_numpy(np.concatenate([count for _, count in found])).to(device)
    repetition = spread([row.sampling.repetition_penalty for row in rows])
    values = logits[at, ids]
    values = torch.where(values > 0, values / repetition, values * repetition)
    values -= spread([row.sampling.frequency_penalty for row in rows]) * answer
    values -= spread([row.sampling.presence_penalty for row in rows]) * (answer > 0)
    logits[at, ids] = values
