"""Prompts of an exact number of tokens: plausible running text, a unique start, and if asked a shared prefix."""

from __future__ import annotations

import hashlib
import random
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from redline.load.tokens import Tokenizer
from redline.load.vocabulary import Vocabulary, count_prompts
from redline.load.words import corpus

_SALT_BASE_MAX = 1000
_SALT_BASE_MIN = 100
_SALT_NUMBERS = 10**9
_ROUNDS = 12


@dataclass
class Draft:
    """A prompt being made. `fixed` words at its start (prefix, salt) are never taken away."""

    asked: int
    number: int
    words: list[str] = field(default_factory=list)
    fixed: int = 0
    tail: str = ""
    tokens: int = 0
    prefix: int = -1

    @property
    def text(self) -> str:
        return " ".join(self.words) + self.tail


def _salt_words(vocabulary: Vocabulary) -> tuple[str, ...]:
    """Words to tell prompts apart: of one token each where there are enough of those, else the cheapest."""
    if len(vocabulary.singles) >= _SALT_BASE_MIN:
        return vocabulary.singles[:_SALT_BASE_MAX]
    cheap = sorted(vocabulary.costs, key=lambda word: vocabulary.costs[word])
    return tuple(cheap[:_SALT_BASE_MIN] if len(cheap) >= 8 else tuple(dict.fromkeys(corpus()))[:_SALT_BASE_MAX])


class Composer:
    """Makes drafts for one tokenizer; the same seed, key and number give the same draft."""

    def __init__(
        self,
        vocabulary: Vocabulary,
        *,
        seed: int,
        salt: bool,
        prefix_tokens: int = 0,
        salt_key: str = "",
        warm_share: float = 0.0,
        prefixes: int = 1,
        prefix_skew: float = 0.0,
    ):
        self.vocabulary = vocabulary
        self._seed = seed
        self._salt = salt
        self._salt_key = salt_key
        self._salting = _salt_words(vocabulary)
        self._salt_length = next(n for n in range(1, 40) if len(self._salting) ** n >= _SALT_NUMBERS)
        self._warm_share = warm_share
        self._warm: dict[int, list[str]] = {}
        self._prefix_tokens = prefix_tokens
        self._made: dict[int, list[str]] = {}
        popularity = [1 / (rank + 1) ** prefix_skew for rank in range(prefixes)]
        self._popularity = list(accumulate(popularity)) if prefix_tokens else []

    def prefix_of(self, key: int, number: int) -> int:
        """Which of the shared prefixes a prompt begins with; -1 without any."""
        if not self._popularity:
            return -1
        if len(self._popularity) == 1:
            return 0
        point = random.Random(f"{self._seed}/{key}/{number}/prefix").random() * self._popularity[-1]
        return bisect_right(self._popularity, point)

    def prefix(self, which: int) -> list[str]:
        """The words of one shared prefix. Where there are several, each begins with its own number in words."""
        if which < 0:
            return []
        if which not in self._made:
            several = len(self._popularity) > 1
            start: list[str] = []
            rest, base = which, len(self._salting)
            while several and (rest or not start):
                rest, digit = divmod(rest, base)
                start.append(self._salting[digit])
            while start and self._cost(start) > self._prefix_tokens:
                start.pop()
            rng = random.Random(f"{self._seed}/prefix/{which}" if which else f"{self._seed}/prefix")
            self._made[which] = start + self._run_of_words(rng, self._prefix_tokens - self._cost(start))
        return self._made[which]

    def salt(self, key: int, number: int, budget: int = 1_000) -> list[str]:
        """Words that no other number under this key gets, as far as `budget` tokens allow.

        The first of them changes from one number to the next.
        """
        base = len(self._salting)
        told = f"{self._seed}/{key}/{self._salt_key}".encode()
        value = int.from_bytes(hashlib.blake2b(told, digest_size=8).digest()) + number
        digits = []
        for _ in range(self._salt_length):
            value, digit = divmod(value, base)
            budget -= self._cost([self._salting[digit]])
            if budget < 0:
                break
            digits.append(self._salting[digit])
        return digits

    def draft(self, key: int, number: int, tokens: int) -> Draft:
        vocabulary = self.vocabulary
        rng = random.Random(f"{self._seed}/{key}/{number}")
        budget = max(0, tokens - vocabulary.overhead)
        which = self.prefix_of(key, number)
        start = self._warm_prefix(tokens) if self._warm_share else list(self.prefix(which))
        budget -= self._cost(start)
        shared = len(start)
        if self._salt:
            start += self.salt(key, number, budget)
            budget -= self._cost(start[shared:])
        body = self._run_of_words(rng, budget) if budget > 0 else []
        return Draft(tokens, number, start + body, len(start), prefix=which)

    def _warm_prefix(self, tokens: int) -> list[str]:
        """The start of one long text, for `warm_share` of the tokens: every shorter start is a start of the longer."""
        if tokens not in self._warm:
            rng = random.Random(f"{self._seed}/{self._salt_key}/warm")
            wanted = max(1, round(tokens * self._warm_share) - self.vocabulary.overhead)
            self._warm[tokens] = self._run_of_words(rng, wanted)
        return list(self._warm[tokens])

    def _cost(self, words: Sequence[str]) -> int:
        costs, usual = self.vocabulary.costs, self.vocabulary.tokens_per_word
        return round(sum(costs.get(word, usual) for word in words))

    def _run_of_words(self, rng: random.Random, budget: int) -> list[str]:
        """Consecutive words of the corpus that cost exactly `budget`; about as much when costs are not known."""
        text, vocabulary = corpus(), self.vocabulary
        at = rng.randrange(len(text))
        if not vocabulary.singles:
            count = max(1, int(budget / vocabulary.tokens_per_word))
            return [text[(at + i) % len(text)] for i in range(count)]
        words: list[str] = []
        misses = 0
        while budget > 0 and misses < 50:
            word = text[at % len(text)]
            at += 1
            cost = vocabulary.costs.get(word, 0)
            if 0 < cost <= budget:
                words.append(word)
                budget -= cost
            else:
                misses += 1
        return words + rng.choices(vocabulary.singles, k=budget)

    def repair(self, draft: Draft, turn: int = 0) -> None:
        """Brings a draft nearer to its length; `draft.tokens` is what it was found to cost.

        `turn` counts the attempts: later ones also change the last word, since its cost may depend on what follows it.
        """
        vocabulary = self.vocabulary
        rng = random.Random(f"{self._seed}/{draft.number}/{turn}")
        delta = draft.asked - draft.tokens
        if delta < 0 and draft.tail and vocabulary.atom:
            cut = min(-delta, len(draft.tail) // len(vocabulary.atom))
            draft.tail = draft.tail[: len(draft.tail) - cut * len(vocabulary.atom)]
            return
        while (delta < 0 or (turn > 1 and vocabulary.singles)) and len(draft.words) > draft.fixed:
            delta += vocabulary.costs.get(draft.words.pop(), max(1, round(vocabulary.tokens_per_word)))
            turn = 0
        if delta <= 0:
            return
        if vocabulary.singles and not draft.tail:
            draft.words += rng.choices(vocabulary.singles, k=delta)
        elif delta > 2 * vocabulary.tokens_per_word:
            text = corpus()
            extra = int(delta / vocabulary.tokens_per_word)
            draft.words += [text[(draft.number + i) % len(text)] for i in range(extra)]
        else:
            draft.tail += vocabulary.atom * delta

    def settle(self, drafts: Sequence[Draft], tokenizer: Tokenizer, *, chat: bool) -> int:
        """Verify every draft, repair those that are off, and return how many could not be brought to their length."""
        off = list(drafts)
        for turn in range(_ROUNDS):
            for draft, count in zip(off, count_prompts(tokenizer, [d.text for d in off], chat), strict=True):
                draft.tokens = count
            off = [draft for draft in off if draft.tokens != draft.asked]
            if not off or turn == _ROUNDS - 1:
                break
            for draft in off:
                self.repair(draft, turn)
        return len(off)
