"""The page pool alone: counts, the order in which pages are forgotten, and what a hash stands for."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.runtime.pages import PagePool


def named(pool: PagePool, tokens: list[int], salt: bytes = b"") -> list[bytes]:
    names: list[bytes] = []
    pool.name(names, tokens, len(tokens) // pool.page_size, salt)
    return names


def filled(pool: PagePool, tokens: list[int], salt: bytes = b"") -> list[int]:
    """Pages that hold `tokens`, held once and known."""
    names = named(pool, tokens, salt)
    pages = pool.take(len(names))
    for page, name in zip(pages, names, strict=True):
        pool.publish(page, name)
    return pages


def test_page_0_is_never_given_out() -> None:
    pool = PagePool(5, 2)
    assert sorted(pool.take(4)) == [1, 2, 3, 4]
    assert pool.free == 0


def test_taking_more_than_is_free_is_a_bug() -> None:
    pool = PagePool(3, 2)
    with pytest.raises(RuntimeError, match="3 pages were taken of 2"):
        pool.take(3)


def test_dropping_what_nobody_holds_is_a_bug() -> None:
    pool = PagePool(3, 2)
    pages = pool.take(1)
    pool.drop(pages)
    with pytest.raises(RuntimeError, match="nobody held"):
        pool.drop(pages)


@pytest.mark.parametrize(("pages", "size"), [(1, 4), (0, 4), (4, 0)])
def test_a_pool_without_room(pages: int, size: int) -> None:
    with pytest.raises(ValueError, match="a pool needs"):
        PagePool(pages, size)


def test_a_hash_stands_for_the_whole_text_before_it() -> None:
    pool = PagePool(9, 2)
    a, b = named(pool, [1, 2, 3, 4]), named(pool, [9, 2, 3, 4])
    assert a[0] != b[0]
    assert a[1] != b[1], "the same page after another text is another page"
    assert named(pool, [1, 2, 3, 4, 5]) == a, "the unfinished page has no name"
    assert not {*a} & {*named(pool, [1, 2, 3, 4], b"tenant")}


def test_two_pools_name_differently() -> None:
    assert named(PagePool(9, 2), [1, 2]) != named(PagePool(9, 2), [1, 2]), "names must not be guessable"


def test_names_are_extended_not_made_again() -> None:
    pool = PagePool(9, 2)
    names = named(pool, [1, 2, 3, 4])
    pool.name(names, [1, 2, 3, 4, 5, 6, 7, 8], 4)
    assert names == named(pool, [1, 2, 3, 4, 5, 6, 7, 8])


def test_a_dropped_page_is_found_until_it_is_taken() -> None:
    pool = PagePool(4, 2)
    pages = filled(pool, [1, 2, 3, 4])
    pool.drop(pages)
    assert (pool.free, pool.kept) == (3, 2)
    names = named(pool, [1, 2, 3, 4])
    assert pool.lookup(names) == pages
    assert pool.idle(pages) == 2
    pool.hold(pages)
    assert (pool.free, pool.kept) == (1, 0)
    pool.drop(pages)
    pool.take(2)  # the blank one, then the end of the text
    assert pool.lookup(names) == pages[:1]


def test_the_page_that_was_let_go_longest_ago_is_forgotten_first() -> None:
    pool = PagePool(4, 2)
    old, middle, young = (filled(pool, [i, i]) for i in (1, 2, 3))
    for pages in (old, middle, young):
        pool.drop(pages)
    pool.hold(old)  # used again: now the youngest
    pool.drop(old)
    assert pool.take(1) == middle
    assert pool.take(1) == young
    assert pool.take(1) == old


def test_of_two_pages_with_one_text_the_first_stays_known() -> None:
    pool = PagePool(4, 2)
    first, second = filled(pool, [1, 2]), filled(pool, [1, 2])
    assert pool.lookup(named(pool, [1, 2])) == first
    pool.drop(second)
    assert pool.kept == 0, "nothing can hit the second one"
    pool.check([first])


def test_forgotten_pages_are_hit_by_nobody() -> None:
    pool = PagePool(6, 2)
    held, let_go = filled(pool, [1, 2]), filled(pool, [3, 4])
    pool.drop(let_go)
    pool.forget([*held, *let_go])
    assert pool.lookup(named(pool, [1, 2])) == pool.lookup(named(pool, [3, 4])) == []
    pool.check([held])
    pool.drop(held)
    pool.check([])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60), st.integers(3, 9))
def test_books_against_a_count_by_hand(moves: list[tuple[int, int]], pages: int) -> None:
    pool = PagePool(pages, 1)
    held: list[list[int]] = []
    for move, number in moves:
        if move == 0 and pool.free:
            held.append(filled(pool, [number]))
        elif move == 1 and held:
            pool.drop(held.pop(number % len(held)))
        elif move == 2:
            found = pool.lookup(named(pool, [number]))
            pool.hold(found)
            held += [found] if found else []
        elif move == 3 and held:
            pool.forget(held[number % len(held)])
        pool.check(held)
        count = Counter(page for some in held for page in some)
        assert pool.free == pool.usable - len(count)


def test_the_check_sees_a_lost_page() -> None:
    pool = PagePool(4, 2)
    pages = pool.take(1)
    with pytest.raises(AssertionError, match="counts differ"):
        pool.check([])
    with pytest.raises(AssertionError, match="twice"):
        pool.check([pages * 2])
