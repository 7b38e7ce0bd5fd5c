"""What a request asks beyond the likeliest token, row by row of one batch. Greedy rows pass through untouched.

Sampling adds Gumbel noise to the scaled, filtered scores, so the argmax that transformers takes afterwards is a draw
from the softmax. The same code serves `generate()` and continuous batching, whose own sampling is one setting for all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from .job import Job, TokenLogprob


class Row:
    """A job's sampling state; `produced` counts the tokens chosen so far."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.produced = 0
        self.generator: Any = None

    @property
    def needed(self) -> bool:
        """False when the likeliest token is all it wants."""
        sampling = self.job.sampling
        blocked = sampling.min_tokens > 0 and bool(self.job.eos_ids or self.job.sampling.stop_token_ids)
        return sampling.temperature > 0 or sampling.top_logprobs is not None or blocked


def choose(scores: Any, rows: Sequence[Row | None]) -> Any:
    """`scores`: [len(rows), vocabulary] float32 logits. Returns scores whose argmax is each row's next token."""
    import torch

    raw = scores
    scores = _keep_going(scores, rows)
    drawn = [number for number, row in enumerate(rows) if row and row.job.sampling.temperature > 0]
    if drawn:
        index = torch.tensor(drawn, device=scores.device)
        chosen = [row for number in drawn if (row := rows[number])]
        scores = scores.index_copy(0, index, _draw(scores[index], chosen))
    if any(row and row.job.sampling.top_logprobs is not None for row in rows):
        _record(raw, scores.argmax(-1), rows)
    for row in rows:
        if row:
            row.produced += 1
    return scores


def _keep_going(scores: Any, rows: Sequence[Row | None]) -> Any:
    """Below `min_tokens` nothing that ends the answer can be chosen."""
    copied = False
    for number, row in enumerate(rows):
        if row and row.produced < row.job.sampling.min_tokens:
            ends = sorted(row.job.eos_ids | row.job.sampling.stop_token_ids)
            if ends:
                scores = scores if copied else scores.clone()
                copied = True
                scores[number, ends] = float("-inf")
    return scores


def _draw(scores: Any, rows: Sequence[Row]) -> Any:
    import torch

    def column(values: list[float], dtype: Any = torch.float32) -> Any:
        return torch.tensor(values, dtype=dtype, device=scores.device)[:, None]

    sampling = [row.job.sampling for row in rows]
    scores = scores / column([one.temperature for one in sampling])
    if any(one.top_k > 0 or one.top_p < 1 for one in sampling):
        width = scores.shape[-1]
        ordered, place = scores.sort(dim=-1, descending=True)
        kept = [min(one.top_k, width) if one.top_k > 0 else width for one in sampling]
        rank = torch.arange(width, device=scores.device)
        ordered = ordered.masked_fill(rank >= column(kept, torch.int64), float("-inf"))
        share = ordered.softmax(-1)
        before = share.cumsum(-1) - share
        nucleus = column([one.top_p if one.top_p < 1 else 2.0 for one in sampling])
        ordered = ordered.masked_fill(before >= nucleus, float("-inf"))
        scores = torch.empty_like(scores).scatter_(-1, place, ordered)
    noise = torch.empty_like(scores).exponential_()
    for number, row in enumerate(rows):
        if row.job.sampling.seed is not None:
            noise[number] = torch.empty_like(noise[number]).exponential_(generator=_generator(row, scores.device))
    return scores - noise.log()


def _generator(row: Row, device: Any) -> Any:
    import torch

    if row.generator is None:
        row.generator = torch.Generator(device=device)
        row.generator.manual_seed((row.job.sampling.seed or 0) % 2**63)
    return row.generator


def _record(raw: Any, tokens: Any, rows: Sequence[Row | None]) -> None:
    import torch

    wanted = [number for number, row in enumerate(rows) if row and row.job.sampling.top_logprobs is not None]
    index = torch.tensor(wanted, device=raw.device)
    logs = raw[index].log_softmax(-1)
    mine = tokens[index]
    values = logs.gather(-1, mine[:, None])[:, 0].tolist()
    most = max(row.job.sampling.top_logprobs or 0 for number in wanted if (row := rows[number]))
    top = logs.topk(min(max(1, most), logs.shape[-1]), dim=-1)
    ids, tops = top.indices.tolist(), top.values.tolist()
    for place, (number, token) in enumerate(zip(wanted, mine.tolist(), strict=True)):
        row = rows[number]
        assert row is not None
        count = row.job.sampling.top_logprobs or 0
        pairs = tuple(zip(ids[place][:count], tops[place][:count], strict=True))
        row.job.logprobs.append(TokenLogprob(token, values[place], pairs))
