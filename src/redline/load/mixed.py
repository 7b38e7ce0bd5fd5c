"""Classes of requests in one stream: who is next, and where its prompt comes from.

The order is dealt in blocks. Over every block each class has exactly its part (the error carries over, so it never
grows); within a block the order is shuffled, so that no class comes in step with the clients or the arrivals.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from redline.load.prompt import Prompt

if TYPE_CHECKING:
    from redline.load.prompts import PromptSource

_BLOCK_MIN, _BLOCK_MAX = 8, 128


@dataclass(frozen=True)
class Part:
    """One class: its prompts are numbered by themselves, so that they are the same whatever the other classes are."""

    name: str
    weight: float
    priority: int
    source: PromptSource


@dataclass
class Deal:
    """The class of each request, by the number of the request. The same seed and key give the same order."""

    weights: Sequence[float]
    _orders: dict[int, list[int]] = field(default_factory=dict)
    _debts: dict[int, list[float]] = field(default_factory=dict)
    _before: dict[int, list[list[int]]] = field(default_factory=dict)
    """By key and block: how many of each class came before it."""

    @property
    def block(self) -> int:
        """As many as give the rarest class a place or two."""
        least = min(self.weights) / sum(self.weights)
        return min(_BLOCK_MAX, max(_BLOCK_MIN, math.ceil(2 / least)))

    def order(self, key: int, count: int) -> list[int]:
        """The classes of the first `count` requests of this key, or more."""
        order = self._orders.setdefault(key, [])
        debts = self._debts.setdefault(key, [0.0] * len(self.weights))
        total = sum(self.weights)
        while len(order) < count:
            block = []
            for _ in range(self.block):
                for i, weight in enumerate(self.weights):
                    debts[i] += weight / total
                most = max(range(len(debts)), key=lambda i: debts[i])
                debts[most] -= 1
                block.append(most)
            random.Random(f"{key}/{len(order)}/classes").shuffle(block)
            before = self._before.setdefault(key, [[0] * len(self.weights)])
            before.append([had + block.count(place) for place, had in enumerate(before[-1])])
            order += block
        return order

    def before(self, key: int, start: int) -> list[int]:
        """How many of each class are among the first `start` requests."""
        order = self.order(key, start)
        block = start // self.block
        counts = list(self._before[key][block]) if block else [0] * len(self.weights)
        for place in order[block * self.block : start]:
            counts[place] += 1
        return counts


def mixed_prompts(
    parts: Sequence[Part], deal: Deal, key: int, start: int, count: int, *, verify: bool = True
) -> list[Prompt]:
    """Prompts `start` to `start + count` of the mix, each with the name and priority of its class."""
    order = deal.order(key, start + count)
    wanted = order[start : start + count]
    had, made = deal.before(key, start), {}
    for place, part in enumerate(parts):
        now = wanted.count(place)
        made[place] = iter(part.source.prompts(key, had[place], now, verify=verify)) if now else iter(())
    return [
        replace(next(made[place]), request_class=parts[place].name, priority=parts[place].priority) for place in wanted
    ]
