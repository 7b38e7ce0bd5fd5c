from __future__ import annotations

import pytest

from redline.node.coupled import partners, restoring_writes, zeroed_by_partner
from tests.node.memory_box import VM, MemoryBox

SIZE, RATIO = f"{VM}dirty_bytes", f"{VM}dirty_ratio"


@pytest.mark.parametrize("former", [(b"0\n", b"20\n"), (b"65536\n", b"0\n"), (b"0\n", b"0\n")])
@pytest.mark.parametrize("now", [(b"0\n", b"35\n"), (b"1048576\n", b"0\n"), (b"0\n", b"0\n")])
def test_every_state_of_the_pair_leads_back_to_every_other(
    former: tuple[bytes, bytes], now: tuple[bytes, bytes]
) -> None:
    box = MemoryBox()
    box.attributes[SIZE], box.attributes[RATIO] = now
    for path, value in restoring_writes({SIZE: former[0], RATIO: former[1]}):
        box.set_attribute(path, value)
    assert (box.attributes[SIZE], box.attributes[RATIO]) == former


def test_others_are_written_as_they_were_read() -> None:
    assert restoring_writes({"/a": b"x [y]\n", "/b": b"1\t2\n"}) == [("/a", b"y"), ("/b", b"1 2")]


def test_zero_bytes_come_from_the_ratio() -> None:
    assert partners(SIZE) == (RATIO,)
    assert partners("/proc/sys/vm/swappiness") == ()
    assert zeroed_by_partner(SIZE, "0")
    assert not zeroed_by_partner(RATIO, "0")
