"""What words cost in a model's tokens, learnt with a handful of questions, so that prompts can be added up exactly.

Words in running text cost the same wherever they stand for nearly every tokenizer: pieces do not cross blanks. One
text "the the w1 the w2 the …" therefore tells the cost of hundreds of words, since the ids between two "the" are those
of the word between them. Nothing relies on it blindly: prompts are verified afterwards, and repaired when off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from redline.errors import Unsupported
from redline.load.record import TokenSource
from redline.load.tokens import Tokenizer
from redline.load.words import common_words, corpus

_BATCH = 300
_ATOMS = (" the", " a", " of", "a", ".", "!", "1", "\n")
_USAGE_WORDS = 48
_SAMPLE = 24


@dataclass
class Vocabulary:
    """`costs` of " word" in running text; `singles` are those of one token; `overhead` is what every prompt costs
    besides its words (BOS, chat template). `atom` adds one token each time it is appended; '' when none was found.
    """

    costs: dict[str, int] = field(default_factory=dict)
    singles: tuple[str, ...] = ()
    overhead: int = 0
    atom: str = ""
    tokens_per_word: float = 1.5
    questions: int = 0


def learn(tokenizer: Tokenizer, *, chat: bool) -> Vocabulary:
    """Ask the tokenizer what words cost. Unsupported when it cannot answer at all."""
    asked = _Counting(tokenizer, chat)
    if tokenizer.source is TokenSource.USAGE:
        costs = _by_groups(asked, common_words()[:_USAGE_WORDS])
    else:
        costs = _by_sentinel(asked, tokenizer, common_words())
    singles = tuple(word for word, cost in costs.items() if cost == 1)
    sample = list(singles[:_SAMPLE]) or list(corpus()[:_SAMPLE])
    if singles:
        overhead = asked.count(" ".join(sample)) - len(sample)
        return Vocabulary(costs, singles, overhead, " " + singles[0], _mean_cost(costs), asked.questions)
    return _without_singles(asked, sample)


def _mean_cost(costs: dict[str, int]) -> float:
    known = [costs[word] for word in corpus()[:5000] if word in costs]
    return sum(known) / len(known) if known else 1.0


def _without_singles(asked: _Counting, sample: list[str]) -> Vocabulary:
    """An odd tokenizer: learn the average, and one atom that always adds one token."""
    half = asked.count(" ".join(sample[: len(sample) // 2]))
    whole = asked.count(" ".join(sample))
    per_word = max(0.2, (whole - half) / (len(sample) - len(sample) // 2))
    overhead = max(0, round(whole - per_word * len(sample)))
    base = " ".join(sample)
    atom = next((atom for atom in _ATOMS if asked.count(base + atom * 5) == whole + 5), "")
    return Vocabulary({}, (), overhead, atom, per_word, asked.questions)


class _Counting:
    """Counts texts as prompts of the endpoint in question."""

    def __init__(self, tokenizer: Tokenizer, chat: bool) -> None:
        self._tokenizer = tokenizer
        self._chat = chat
        self.questions = 0

    def count(self, text: str) -> int:
        return self.counts([text])[0]

    def counts(self, texts: Sequence[str]) -> list[int]:
        self.questions += len(texts)
        return count_prompts(self._tokenizer, texts, self._chat)


def count_prompts(tokenizer: Tokenizer, texts: Sequence[str], chat: bool) -> list[int]:
    """Tokens of each text as the whole prompt: special tokens, and for chat the template around one user message."""
    if chat:
        return tokenizer.chat_counts([[{"role": "user", "content": text}] for text in texts])
    return tokenizer.counts(texts)


def _by_sentinel(asked: _Counting, tokenizer: Tokenizer, words: Sequence[str]) -> dict[str, int]:
    costs: dict[str, int] = {}
    the = tokenizer.ids("the the the the", special=False)
    asked.questions += 1
    if not the or the[-1] != the[-2]:
        return {}
    sentinel = the[-1]
    others = [word for word in words if not word.startswith("the")]  # " these" may be " the" and "se"
    for start in range(0, len(others), _BATCH):
        batch = others[start : start + _BATCH]
        ids = tokenizer.ids("the the" + "".join(f" {word} the" for word in batch), special=False)
        asked.questions += 1
        places = [i for i, token in enumerate(ids or ()) if token == sentinel][-len(batch) - 1 :]
        if len(places) != len(batch) + 1:
            return {}
        between = [b - a - 1 for a, b in pairwise(places)]
        if min(between) < 1:
            return {}
        costs |= zip(batch, between, strict=True)
    return {"the": 1, **costs}


def _by_groups(asked: _Counting, words: Sequence[str]) -> dict[str, int]:
    """Single-token words, by halving groups of words that cost more than one token each."""
    base = asked.count("the the") - 1
    groups, found = [list(words)], []
    while groups:
        group = groups.pop()
        cost = asked.count("the " + " ".join(group)) - base
        if cost == len(group):
            found += group
        elif len(group) >= 4:
            groups += [group[: len(group) // 2], group[len(group) // 2 :]]
        if asked.questions > 60:
            break
    if len(found) < 8:
        raise Unsupported("too few words of one token each were found")
    return dict.fromkeys(found, 1)
