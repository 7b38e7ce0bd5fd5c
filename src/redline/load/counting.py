"""How many tokens each chunk carried, and who says so.

In order of trust: the usage on every event; the usage of the whole answer; a tokenizer; one token per chunk.

With only a total, each chunk is one token when the numbers agree. When they do not, events without visible text are
looked at first: a server that sends one event per token also sends those for tokens that print nothing, such as
end-of-sequence. What then remains is spread over the chunks in proportion to a tokenizer's counts of their texts, or
to the lengths of their texts when there is no tokenizer; every chunk keeps at least one token if there are enough.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from redline.load.answer import Answer, Chunk
from redline.load.record import TokenSource

CountTexts = Callable[[Sequence[str]], list[int]]
"""Token counts of texts, no special tokens added."""


def resolve_chunks(
    answer: Answer, count: CountTexts | None = None, source: TokenSource = TokenSource.TOKENIZER
) -> tuple[list[Chunk], list[int], int, TokenSource]:
    """(content chunks, tokens in each, output tokens, who counted). The counts sum up to the output tokens."""
    visible = [chunk for chunk in answer.chunks if chunk.text]
    total = answer.completion_tokens
    if total < 0 or (total == 0 and visible):
        return _without_usage(visible, count, source)
    exact = _by_increments(answer.chunks, total)
    if exact is not None:
        return (*exact, total, TokenSource.USAGE)
    chunks = _with_silent(answer.chunks, visible, total)
    if len(chunks) == total:
        return chunks, [1] * total, total, TokenSource.USAGE
    if not chunks:
        return [], [], total, TokenSource.USAGE
    weights = count([chunk.text for chunk in chunks]) if count else [len(chunk.text) for chunk in chunks]
    return chunks, apportion(total, weights), total, TokenSource.USAGE


def was_spread(answer: Answer, chunks: Sequence[Chunk], tokens: Sequence[int]) -> bool:
    """Whether only the total is the server's, and the tokens of each chunk an estimate."""
    return len(chunks) > 1 and sum(tokens) != len(chunks) and all(chunk.tokens_so_far < 0 for chunk in answer.chunks)


def _by_increments(chunks: list[Chunk], total: int) -> tuple[list[Chunk], list[int]] | None:
    """Exact counts where every event has its own usage. None when one lacks it or the numbers run backwards."""
    kept: list[Chunk] = []
    tokens: list[int] = []
    before = 0
    for chunk in chunks:
        if chunk.tokens_so_far < before:
            if chunk.tokens_so_far < 0 and not chunk.text:
                continue
            return None
        carried = chunk.tokens_so_far - before
        before = chunk.tokens_so_far
        if chunk.text or carried:
            kept.append(chunk)
            tokens.append(carried)
    if not kept or before > total:
        return None
    tokens[-1] += total - before
    return kept, tokens


def _with_silent(chunks: list[Chunk], visible: list[Chunk], total: int) -> list[Chunk]:
    """The visible chunks, or more of them when events without text make up exactly what is missing."""
    silent = len(chunks) - len(visible)
    if silent and len(visible) < total:
        if len(chunks) == total or not visible:
            return chunks
        before_finish = [chunk for chunk in chunks if chunk.text or not chunk.last]
        if len(before_finish) == total:
            return before_finish
        at_finish = [chunk for chunk in chunks if chunk.text or chunk.last]
        if len(at_finish) == total:
            return at_finish
    return visible


def _without_usage(
    visible: list[Chunk], count: CountTexts | None, source: TokenSource
) -> tuple[list[Chunk], list[int], int, TokenSource]:
    if not visible:
        return [], [], 0, TokenSource.NONE
    if count is None:
        return visible, [1] * len(visible), len(visible), TokenSource.CHUNKS
    whole, *each = count(["".join(chunk.text for chunk in visible), *(chunk.text for chunk in visible)])
    return visible, apportion(whole, each), whole, source


def apportion(total: int, weights: Sequence[int]) -> list[int]:
    """`total` split in proportion to `weights` (largest remainder), at least one each when there are enough."""
    count = len(weights)
    least = 1 if total >= count else 0
    rest = total - least * count
    wanted = [max(0, weight - least) for weight in weights]
    scale = sum(wanted)
    if scale == 0:
        wanted, scale = [1] * count, count
    floors = [rest * weight // scale for weight in wanted]
    missing = rest - sum(floors)
    by_remainder = sorted(range(count), key=lambda i: (-(rest * wanted[i] % scale), i))
    for i in by_remainder[:missing]:
        floors[i] += 1
    return [least + floor for floor in floors]
