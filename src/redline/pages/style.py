"""The stylesheet: the report's own, in its colours, and what pages have beyond a report."""

from __future__ import annotations

from pathlib import Path

from redline.pages import desk
from redline.report import palette

REPORT_CSS = Path(palette.__file__).parent / "page" / "report.css"
_DARK = "--paper:#101419;--soft:#1f252d;--good:#3ddc97;--bad:#ff8a80;--warn:#f2c14e;--brand:#ff5c63;--shadow:none;"


def stylesheet() -> str:
    """Light and dark; the reader's choice goes before the system's."""
    light, dark = ("".join(f"{name}:{pair[i]};" for name, pair in palette.variables().items()) for i in (0, 1))
    dark = f"{{color-scheme:dark;{dark}{_DARK}}}"
    return (
        f":root{{color-scheme:light;{light}--brand:#d5202a}}\n{REPORT_CSS.read_text(encoding='utf-8')}\n"
        f"@media (prefers-color-scheme:dark){{:root:not([data-theme=light]){dark}}}\n:root[data-theme=dark]{dark}\n"
        f"{(desk.STATIC / 'pages.css').read_text(encoding='utf-8')}"
    )
