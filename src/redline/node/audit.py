"""Every row of the table against a box."""

from __future__ import annotations

from collections.abc import Collection

from redline.errors import UsageError
from redline.node.judge import Judged, judge
from redline.node.remember import Remembering
from redline.node.sys import Sys, SysFault
from redline.node.tunables.table import TUNABLES
from redline.node.tunables.tunable import Place, Profile, Tunable

BAD = frozenset({"drift", "overridden", "blocked"})
"""States that mean: this box is not as the profile wants it."""


def audit(sys: Sys, profile: Profile = "latency", only: Collection[str] = ()) -> list[Judged]:
    """One `Judged` per place, in the table's order. `only`: ids, or their beginnings up to a dot (`vm`, `net.tcp`).

    Raises UsageError for a name that no row has. Reads only.
    """
    seen = Remembering(sys)
    return [judged for tunable in chosen(only) for judged in _rows(seen, tunable, profile)]


def chosen(only: Collection[str]) -> list[Tunable]:
    """The rows that `only` names; all when it is empty."""
    for name in only:
        if not any(_named(tunable, name) for tunable in TUNABLES):
            raise UsageError(f"no setting is called {name!r}", fix="`redline node audit --all` lists them")
    return [tunable for tunable in TUNABLES if not only or any(_named(tunable, name) for name in only)]


def _named(tunable: Tunable, name: str) -> bool:
    return tunable.id == name or tunable.id.startswith(name.rstrip(".") + ".") or tunable.group == name


def _rows(sys: Sys, tunable: Tunable, profile: Profile) -> list[Judged]:
    try:
        places = tunable.places(sys)
    except SysFault as error:
        return [Judged(tunable, Place(error.path), "unknown", None, None, str(error))]
    if not places:
        return [Judged(tunable, Place(""), "not applicable", None, None, tunable.absent)]
    return [judge(sys, tunable, place, profile) for place in places]
