"""Plausible text without a download: words in the order in which Python's own reference manual uses them."""

from __future__ import annotations

import re
from collections import Counter
from functools import cache

_WORD = re.compile(r"[a-z]{2,12}")
_FALLBACK = (
    "the server reads a request and gives back an answer as soon as the first word is known each line of text is made "
    "from many small parts that follow one after another so that the reader can see what was meant before the end of "
    "the page comes into view when all of the work is done it can start again with a new question about some other "
    "thing that people want to know more about in less time than it took to write this down"
)


@cache
def corpus() -> tuple[str, ...]:
    """Words in running order (some 60,000; PSF licence), or a short text where Python came without its manual."""
    try:
        from pydoc_data.topics import topics
    except ImportError:
        return tuple(_WORD.findall(_FALLBACK))
    return tuple(_WORD.findall(" ".join(text for _, text in sorted(topics.items())).lower()))


@cache
def common_words(count: int = 1500) -> tuple[str, ...]:
    """Distinct words of the corpus, most frequent first."""
    return tuple(word for word, _ in Counter(corpus()).most_common(count))
