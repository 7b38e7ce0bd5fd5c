"""Labels of the roofline: none lies over another, and whoever is alone keeps one."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from redline.report.draw_roofline import LETTER_PX, LINE_PX, _name

ACROSS, UP = 120.0, 80.0
PLACES = st.lists(
    st.tuples(st.floats(0.5, 2e4), st.floats(0.1, 1e3), st.sampled_from(["1 × 512", "64 × 16,384"])), max_size=30
)


def rows(places: list[tuple[float, float, str]]) -> list[dict[str, Any]]:
    return [{"intensity": x, "tflops": y, "text": text} for x, y, text in places]


def overlap(one: dict[str, Any], other: dict[str, Any]) -> bool:
    left, right = sorted((one, other), key=lambda row: float(row["intensity"]))
    between = ACROSS * math.log10(right["intensity"] / left["intensity"])
    apart = UP * abs(math.log10(one["tflops"] / other["tflops"]))
    return between < LETTER_PX * len(left["text"]) - 1e-6 and apart < LINE_PX - 1e-6


@given(PLACES)
def test_no_label_lies_over_another(places: list[tuple[float, float, str]]) -> None:
    made = rows(places)
    _name(made, ACROSS, UP)
    named = [row for row in made if row["text"]]
    assert not any(overlap(one, other) for at, one in enumerate(named) for other in named[at + 1 :])
    for row, (x, y, text) in zip(made, places, strict=True):
        alone = {"intensity": x, "tflops": y, "text": text}
        assert row["text"] or any(overlap(alone, other) for other in named)


def test_dots_far_apart_keep_theirs_and_of_two_close_ones_the_higher() -> None:
    made = rows([(1.0, 2.0, "1 × 512"), (1.1, 2.1, "1 × 1,024"), (4000.0, 500.0, "1 × 4,096")])
    _name(made, ACROSS, UP)
    assert [row["text"] for row in made] == ["", "1 × 1,024", "1 × 4,096"]
