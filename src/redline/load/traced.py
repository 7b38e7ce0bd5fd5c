"""Prompts that follow a trace: its lengths, and the prefix blocks that its requests share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from redline.load.conversations import Conversation, Turn, opening_turn
from redline.load.prompt import Prompt
from redline.load.synthetic import Draft
from redline.load.trace import BLOCK_TOKENS, Row

if TYPE_CHECKING:
    from redline.load.prompts import PromptSource


class TracePrompts:
    """`first` is the number of the request that gets row 0; after the last row it begins again.

    Requests with the same `hash_ids` in front begin with the same text, block by block; all others begin differently.
    """

    def __init__(self, source: PromptSource, rows: Sequence[Row], first: int) -> None:
        self._source = source
        self._rows = rows
        self._first = first
        self._blocks: dict[int, list[str]] = {}

    def prompts(self, key: int, start: int, count: int, *, verify: bool = True) -> list[Prompt]:
        """Requests `start` to `start + count`."""
        rows = [self._rows[(number - self._first) % len(self._rows)] for number in range(start, start + count)]
        return self.of_rows(key, start, rows, verify=verify)

    def of_rows(self, key: int, start: int, rows: Sequence[Row], *, verify: bool) -> list[Prompt]:
        drafts = [self._draft(key, start + i, row) for i, row in enumerate(rows)]
        made = self._source.of_drafts(drafts, [row.output_tokens for row in rows], verify)
        return [
            replace(prompt, request_class=row.request_class) if row.request_class else prompt
            for prompt, row in zip(made, rows, strict=True)
        ]

    def _draft(self, key: int, number: int, row: Row) -> Draft:
        composer = self._source.composer
        if not row.hash_ids:
            return composer.draft(key, number, row.prompt_tokens)
        left = max(row.prompt_tokens - composer.vocabulary.overhead, 1)
        words: list[str] = []
        fixed = 0
        for block in row.hash_ids:
            fixed = len(words)
            words += self._block(key, block, min(left, BLOCK_TOKENS))
            left -= BLOCK_TOKENS
            if left <= 0:
                break
        if left > 0:  # more tokens than its blocks hold: the rest is its own
            fixed = len(words)
            words += composer.text(f"{key}/{number}/rest", left).split(" ")
        return Draft(row.prompt_tokens, number, words, fixed)

    def _block(self, key: int, block: int, tokens: int) -> list[str]:
        if tokens < BLOCK_TOKENS:
            return self._source.composer.text(f"{key}/block {block}", tokens).split(" ")
        if block not in self._blocks:
            self._blocks[block] = self._source.composer.text(f"{key}/block {block}", BLOCK_TOKENS).split(" ")
        return self._blocks[block]


class Recalled:
    """The sessions of a trace, to be held again: its lengths and think times, with text of our own and live answers.

    A request without a session is a session of one turn.
    """

    def __init__(self, source: PromptSource, rows: Sequence[Row], seed: int, offset: int) -> None:
        self._source, self._seed, self._offset = source, seed, offset
        self._prompts = TracePrompts(source, rows, offset)
        by_session: dict[str, list[Row]] = {}
        for number, row in enumerate(rows):
            by_session.setdefault(row.session or f"#{number}", []).append(row)
        self._sessions = sorted(by_session.values(), key=lambda turns: turns[0].at_s)

    @property
    def starts_s(self) -> list[float]:
        return [turns[0].at_s for turns in self._sessions]

    def conversations(self, first: int, count: int, *, under_load: bool) -> list[Conversation]:
        sessions = self._sessions[first : first + count]
        verify = self._source.verifies(under_load=under_load)
        openings = self._prompts.of_rows(
            self._seed, self._offset + first, [rows[0] for rows in sessions], verify=verify
        )
        return [
            Conversation(first + i, self._turns(first + i, rows, opening))
            for i, (rows, opening) in enumerate(zip(sessions, openings, strict=True))
        ]

    def _turns(self, number: int, rows: Sequence[Row], opening: Prompt) -> list[Turn]:
        turns = [opening_turn(opening)]
        for before, row in pairwise(rows):
            # what the recorded prompt has beyond the conversation so far is what the user said, in its template
            overhead = self._source.composer.vocabulary.overhead
            tokens = max(row.prompt_tokens - before.prompt_tokens - before.output_tokens - overhead, 1)
            text = self._source.composer.text(f"{self._seed}/{number}/{row.turn}", tokens)
            said = ({"role": "user", "content": text},)
            turns.append(Turn(said, row.output_tokens, said_tokens=tokens, think_ns=round(row.think_s * 1e9)))
        return turns
