"""An engine's log: its end, and its new lines as they come."""

from __future__ import annotations

import re
from pathlib import Path

ANSI = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)|\x1b[@-_]")


def clean(line: str) -> str:
    """A line as a terminal would show it at the end: no colours, only the last state of a progress bar."""
    return ANSI.sub("", line).rstrip("\r\n").rpartition("\r")[2].rstrip()


def tail(path: Path, lines: int = 40, most_bytes: int = 256 * 1024) -> str:
    """The last `lines` lines, cleaned; empty when there is no file."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - most_bytes))
            data = file.read()
    except FileNotFoundError:
        return ""
    return "\n".join([clean(line) for line in data.decode("utf-8", "replace").splitlines()][-lines:])


class Follower:
    """The complete lines, and states of progress bars, that were added to a file since the last call."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offset = 0
        self._rest = b""

    def new_lines(self) -> list[str]:
        try:
            with self.path.open("rb") as file:
                file.seek(self._offset)
                data = file.read()
        except FileNotFoundError:
            return []
        self._offset += len(data)
        # A progress bar ends its states with a carriage return: each is news.
        *whole, self._rest = (self._rest + data).replace(b"\r", b"\n").split(b"\n")
        return [clean(line.decode("utf-8", "replace")) for line in whole]
