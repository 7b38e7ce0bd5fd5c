"""One line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

State = Literal["ok", "warn", "missing", "fail"]


@dataclass(frozen=True)
class Check:
    """`warn`: works, but costs accuracy or speed; `missing`: a part that is not there; `fail`: redline cannot work."""

    name: str
    state: State
    found: str
    meaning: str = ""
    how: str = ""
