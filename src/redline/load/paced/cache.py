"""A prefix cache as servers have it: blocks of tokens, each known by itself and all that came before it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class PrefixCache:
    """`blocks` 0 is no limit; else the block that was used longest ago goes.

    As in vLLM only whole blocks count, and the last token of a prompt is always computed. A block can be hit once the
    prompt that brought it is computed, not before.
    """

    def __init__(self, block_tokens: int = 16, blocks: int = 0) -> None:
        self._size, self._limit = block_tokens, blocks
        self._ready_ns: OrderedDict[int, int] = OrderedDict()
        self.queries = 0
        self.hits = 0

    def look_up(self, ids: Sequence[int], now_ns: int) -> int:
        """Tokens of this prompt that need not be computed."""
        found = 0
        for block in self._blocks(ids[:-1]):
            if self._ready_ns.get(block, now_ns + 1) > now_ns:
                break
            self._ready_ns.move_to_end(block)
            found += self._size
        self.queries += len(ids)
        self.hits += found
        return found

    def keep(self, ids: Sequence[int], ready_ns: int) -> None:
        for block in self._blocks(ids):
            self._ready_ns[block] = min(self._ready_ns.get(block, ready_ns), ready_ns)
            self._ready_ns.move_to_end(block)
            if self._limit and len(self._ready_ns) > self._limit:
                self._ready_ns.popitem(last=False)

    def _blocks(self, ids: Sequence[int]) -> list[int]:
        chain, blocks = 0, []
        for start in range(0, len(ids) - self._size + 1, self._size):
            chain = hash((chain, *ids[start : start + self._size]))
            blocks.append(chain)
        return blocks
