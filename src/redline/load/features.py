"""Is this text an answer, or what a broken server says? Cheap looks at a text that know no language.

A model that is asked to go on behind its end may loop or babble in good health, one with random weights always does.
So the features of answers under load are compared with those of answers that were had alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

ODD_SHARE = 0.1
LOOP_SHARE = 0.5
_LONGEST = 1000
_LOOP = re.compile(r"(.{1,24}?)\1{5,}", re.DOTALL)
_ODD = re.compile("[\ufffd\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ue000-\uf8ff]")


@dataclass(frozen=True)
class Features:
    """`odd_share` of the characters are none that a text has (replacement, control, private use); `loop_share` lies
    in the longest stretch that repeats one short piece six times or more; `distinct_share` of the words differ."""

    characters: int
    odd_share: float
    loop_share: float
    distinct_share: float

    @property
    def garbled(self) -> bool:
        return self.odd_share > ODD_SHARE

    @property
    def looping(self) -> bool:
        return self.loop_share > LOOP_SHARE and self.characters >= 16


def features(text: str) -> Features:
    text = text[:_LONGEST]
    if not text:
        return Features(0, 0.0, 0.0, 0.0)
    longest = max((match.end() - match.start() for match in _LOOP.finditer(text)), default=0)
    words = text.split()
    return Features(
        len(text),
        len(_ODD.findall(text)) / len(text),
        longest / len(text),
        len(set(words)) / len(words) if words else 0.0,
    )


class Census:
    """Counts features over many answers; keeps no text."""

    def __init__(self) -> None:
        self.answers = self.garbled = self.looping = 0
        self._distinct = 0.0

    def add(self, found: Features) -> None:
        self.answers += 1
        self.garbled += found.garbled
        self.looping += found.looping
        self._distinct += found.distinct_share

    def as_dict(self) -> dict[str, float]:
        mean = self._distinct / self.answers if self.answers else 0.0
        return {
            "answers": self.answers, "garbled": self.garbled, "looping": self.looping, "distinct_share": mean,
        }  # fmt: skip


def census(texts: Iterable[str]) -> Census:
    found = Census()
    for text in texts:
        found.add(features(text))
    return found
