"""All dashboards by the name that users type."""

from __future__ import annotations

from redline.errors import UsageError
from redline.report.dashboards.board import Board
from redline.report.dashboards.client import CLIENT
from redline.report.dashboards.engine import ENGINE
from redline.report.dashboards.gpu import GPU
from redline.report.dashboards.host import HOST
from redline.spec.faults import did_you_mean

BOARDS: dict[str, Board] = {"engine": ENGINE, "gpu": GPU, "host": HOST, "client": CLIENT}


def board(name: str) -> Board:
    if name not in BOARDS:
        raise UsageError(
            f"there is no dashboard {name!r}", fix=did_you_mean(name, BOARDS) or f"one of {', '.join(BOARDS)}"
        )
    return BOARDS[name]
