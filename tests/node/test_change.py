from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.node.change import Change, as_bytes, as_text, between, settled, value_of
from redline.node.tunables.tunable import Op


@given(st.binary() | st.none())
def test_any_bytes_survive_the_journal(content: bytes | None) -> None:
    change = Change("file", "/etc/x", content, content, ("a", "b"), covers=("/c",), risk=2)
    assert as_bytes(as_text(content)) == content
    assert Change.from_json(json.loads(json.dumps(change.to_json()))) == change


def test_fields_of_a_later_redline_are_left_out() -> None:
    fields = Change("file", "/etc/x", None, b"1", ()).to_json()
    assert Change.from_json({**fields, "invented": 1}).path == "/etc/x"


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        (b"always [madvise] never\n", "madvise"),
        (b"4096\t131072\t6291456\n", "4096 131072 6291456"),
        (b"60\n", "60"),
        (b"\n", ""),
    ],
)
def test_value_of(raw: bytes, value: str) -> None:
    assert value_of(raw) == value


@pytest.mark.parametrize(
    ("path", "op", "written", "raw", "holds"),
    [
        ("/x", "equals", "10", "10\n", True),
        ("/x", "equals", "10", "60\n", False),
        ("/x", "equals", "madvise", "always [madvise] never\n", True),
        ("/x", "equals", "7", "0x0007\n", True),
        ("/x", "equals", "010", "10\n", True),
        ("/x", "at least", "8", "12\n", True),
        ("/x", "at least", "8", "5\n", False),  # huge pages of which a part was granted
        ("/x", "at most", "8", "5\n", True),
        ("/x", "equals", "8", "12\n", False),
        ("/x", "equals", "4096 87380 1", "4096\t87380\t1\n", True),
        ("/sys/module/m/parameters/p", "equals", "1", "Y\n", True),
        ("/proc/irq/9/smp_affinity", "equals", "f", "00000000,0000000f\n", True),
        ("/proc/irq/9/smp_affinity_list", "equals", "0,1,2,3", "0-3\n", True),
        ("/proc/irq/9/smp_affinity_list", "equals", "0-3", "0-2\n", False),
        ("/proc/irq/9/smp_affinity_list", "within", "0-3", "1\n", True),
        ("/proc/irq/9/smp_affinity_list", "within", "0-3", "4\n", False),
        ("/x", "at least", "many", "5\n", False),
    ],
)
def test_settled(path: str, op: Op, written: str, raw: str, holds: bool) -> None:
    assert settled(Change("attribute", path, b"", written.encode(), (), op=op), raw.encode()) is holds


def test_between() -> None:
    assert between(b"0\n", b"8", b"3\n")
    assert not between(b"0\n", b"8", b"9\n")
    assert not between(b"a", b"b", b"c")
