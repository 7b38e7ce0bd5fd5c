"""Stylesheet and script: the report's own, and what pages have beyond a report."""

from __future__ import annotations

from pathlib import Path

from redline.report import palette

STATIC = Path(__file__).parent / "static"
REPORT = Path(palette.__file__).parent / "page"
_DARK = "--paper:#101419;--soft:#1f252d;--good:#3ddc97;--bad:#ff8a80;--warn:#f2c14e;--brand:#ff5c63;--shadow:none;"


def stylesheet() -> str:
    """Light and dark; the reader's choice goes before the system's."""
    light, dark = ("".join(f"{name}:{pair[i]};" for name, pair in palette.variables().items()) for i in (0, 1))
    dark = f"{{color-scheme:dark;{dark}{_DARK}}}"
    return (
        f":root{{color-scheme:light;{light}--brand:#d5202a}}\n{_text(REPORT / 'report.css')}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){dark}}}\n:root[data-theme=dark]{dark}\n"
        f"{_text(STATIC / 'pages.css')}"
    )


def script() -> str:
    return _text(REPORT / "copy.js") + _text(STATIC / "pages.js")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8")
