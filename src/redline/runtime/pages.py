"""The page pool: who holds which page of KV, and which pages hold text that somebody may ask for again.

A page is in one of three states. Held: one request or more point at it, and its count says how many. Kept: nobody
points at it, but its hash is known, so that a request with the same text takes it as it is. Blank: nothing worth
keeping. New pages come from the blank ones first, then the kept one that was let go longest ago is forgotten.

A full page is named by a hash of the page before it and of its own tokens, so one name stands for the whole text up
to there. Names are 128 bits of BLAKE2b over a secret of this process: nobody can make a text that hits another's page.
"""

from __future__ import annotations

import os
from array import array
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from hashlib import blake2b


class PagePool:
    """`pages` pages of `page_size` tokens; page 0 is never given out, since padding points at it.

    Not thread-safe: the engine's thread owns it. Misuse (taking more than is free, dropping what nobody holds)
    raises `RuntimeError`, since it would let two requests write into one page.
    """

    __slots__ = ("_blank", "_kept", "_names", "_owners", "_refs", "_root", "page_size", "pages", "prefix_caching")

    def __init__(self, pages: int, page_size: int, *, prefix_caching: bool = True) -> None:
        if pages < 2 or page_size < 1:
            raise ValueError(f"a pool needs two pages of one token, page 0 not counting: got {pages} of {page_size}")
        self.pages = pages
        self.page_size = page_size
        self.prefix_caching = prefix_caching
        self._refs = [0] * pages
        self._names: list[bytes | None] = [None] * pages
        self._owners: dict[bytes, int] = {}
        self._blank = list(range(pages - 1, 0, -1))
        self._kept: OrderedDict[int, None] = OrderedDict()
        self._root = os.urandom(32)

    @property
    def usable(self) -> int:
        """Pages that can be given out at all."""
        return self.pages - 1

    @property
    def free(self) -> int:
        """Pages that nobody holds, kept ones too."""
        return len(self._blank) + len(self._kept)

    @property
    def kept(self) -> int:
        """Free pages that a prefix may still hit."""
        return len(self._kept)

    def pages_for(self, tokens: int) -> int:
        return -(-tokens // self.page_size)

    def take(self, count: int) -> list[int]:
        """`count` pages that hold nothing, held once."""
        if count > self.free:
            raise RuntimeError(f"{count} pages were taken of {self.free} free ones")
        taken = []
        for _ in range(count):
            page = self._blank.pop() if self._blank else self._evict()
            self._refs[page] = 1
            taken.append(page)
        return taken

    def _evict(self) -> int:
        page, _ = self._kept.popitem(last=False)
        self._unname(page)
        return page

    def _unname(self, page: int) -> None:
        name = self._names[page]
        if name is not None:
            del self._owners[name]
            self._names[page] = None

    def hold(self, pages: Iterable[int]) -> None:
        """One more holder for pages that `lookup` gave."""
        refs = self._refs
        for page in pages:
            if refs[page] == 0:
                del self._kept[page]
            refs[page] += 1

    def drop(self, pages: Sequence[int]) -> None:
        """One holder less. The last pages are let go first: without its beginning, the end of a text hits nothing."""
        refs = self._refs
        for page in reversed(pages):
            if refs[page] <= 0:
                raise RuntimeError(f"page {page} was dropped and nobody held it")
            refs[page] -= 1
            if refs[page] == 0:
                if self._names[page] is None:
                    self._blank.append(page)
                else:
                    self._kept[page] = None

    def lookup(self, names: Sequence[bytes]) -> list[int]:
        """Pages of the longest beginning that is known."""
        owners = self._owners
        found = []
        for name in names:
            page = owners.get(name)
            if page is None:
                break
            found.append(page)
        return found

    def idle(self, pages: Iterable[int]) -> int:
        """How many of these nobody holds: what `hold` would take from `free`."""
        refs = self._refs
        return sum(refs[page] == 0 for page in pages)

    def publish(self, page: int, name: bytes) -> None:
        """The page is full and computed. Of two with the same text the first one stays known."""
        if name not in self._owners and self._names[page] is None:
            self._owners[name] = page
            self._names[page] = name

    def forget(self, pages: Iterable[int]) -> None:
        """Nobody may hit these any more: what they hold is not to be trusted."""
        for page in pages:
            self._unname(page)
            if page in self._kept:
                del self._kept[page]
                self._blank.append(page)

    def name(self, names: list[bytes], tokens: Sequence[int], count: int, salt: bytes = b"") -> None:
        """Extends `names` to the first `count` pages of `tokens`. Texts of different `salt` never share."""
        size = self.page_size
        previous = names[-1] if names else blake2b(salt, key=self._root, digest_size=16).digest()
        for i in range(len(names), count):
            text = array("I", tokens[i * size : (i + 1) * size]).tobytes()
            previous = blake2b(previous + text, digest_size=16).digest()
            names.append(previous)

    def check(self, holders: Iterable[Sequence[int]]) -> None:
        """Raises `AssertionError` unless the books agree with `holders`, the page lists of all requests. For tests."""
        refs = [0] * self.pages
        for pages in holders:
            assert len(set(pages)) == len(pages), f"a request holds a page twice: {pages}"
            for page in pages:
                refs[page] += 1
        assert refs == self._refs, "counts differ from what the requests hold"
        free = {*self._blank, *self._kept}
        assert len(free) == self.free, "a page is free twice"
        assert free == {page for page in range(1, self.pages) if refs[page] == 0}, "free and held are not all pages"
        assert 0 not in free, "page 0 was given out"
        assert {page: name for name, page in self._owners.items()} == {
            page: name for page, name in enumerate(self._names) if name is not None
        }, "a hash points at a page of another name"
        assert all(self._names[page] is not None for page in self._kept), "a page is kept that nothing can hit"
