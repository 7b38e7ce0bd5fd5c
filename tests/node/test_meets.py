from __future__ import annotations

import pytest

from redline.node.meets import is_met
from redline.node.tunables.rows import want
from redline.node.tunables.tunable import Op


@pytest.mark.parametrize(
    ("op", "values", "value", "met"),
    [
        ("equals", ("1",), "1", True),
        ("equals", ("1",), "01", False),
        ("one of", ("a", "b"), "b", True),
        ("at least", ("10",), "10", True),
        ("at least", ("10",), "9", False),
        ("at least", ("10",), "max", True),
        ("at least", ("10",), "unlimited", True),
        ("at most", ("10",), "max", False),
        ("at least", ("10",), "", None),
        ("at least", ("10",), "ten", None),
        ("contains", ("a", "b"), "b c a", True),
        ("contains", ("a", "b"), "a", False),
        ("within", ("0-7",), "2,5-6", True),
        ("within", ("0-7",), "7-8", False),
        ("within", ("0-7",), "", None),
    ],
)
def test_is_met(op: Op, values: tuple[str, ...], value: str, met: bool | None) -> None:
    assert is_met(value, want(op, *values)) is met
