"""Colours: engines told apart by colour-blind readers too (Okabe and Ito's set, the pale ones last), light and dark.

Charts are drawn once, in the light colours; in HTML each of them is replaced by a CSS variable of its own, so that the
same picture follows the reader's theme.
"""

from __future__ import annotations

ENGINES = ("#0072b2", "#d55e00", "#009e73", "#a8488a", "#b7870b", "#3aa0d8", "#7a5c3e", "#5f6b7a")
ENGINES_DARK = ("#4fb0f0", "#ff8f4a", "#2fcf9f", "#e08cc4", "#f0c04a", "#8ed0f5", "#c9a27c", "#a9b4c2")
SHAPES = ("circle", "square", "triangle-up", "diamond", "cross", "triangle-down", "triangle-right", "triangle-left")
DASHES = ([1, 0], [6, 3])
"""Of p50 and p99."""

TEXT, MUTED, LINE, BACKGROUND, ALARM = "#1b1f24", "#5b6571", "#dfe3e8", "#ffffff", "#b3261e"
DARK = {TEXT: "#e6e9ee", MUTED: "#9aa4b0", LINE: "#2e353e", BACKGROUND: "#191e25", ALARM: "#ff8a80"}
VARIABLES = {TEXT: "--ink", MUTED: "--muted", LINE: "--line", BACKGROUND: "--card", ALARM: "--alarm"}


def engine(place: int) -> str:
    return ENGINES[place % len(ENGINES)]


def shape(place: int) -> str:
    return SHAPES[place % len(SHAPES)]


def variables() -> dict[str, tuple[str, str]]:
    """Every colour of a chart as a CSS variable: name to (light, dark)."""
    pairs = zip(ENGINES, ENGINES_DARK, strict=True)
    return {VARIABLES[light]: (light, dark) for light, dark in DARK.items()} | {
        f"--e{i}": pair for i, pair in enumerate(pairs)
    }
