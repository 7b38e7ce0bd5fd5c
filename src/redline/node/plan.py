"""From what the audit found to the exact changes: live values, which the kernel may refuse, then what keeps them."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

from redline.node.blast import blast_radius
from redline.node.change import Change, value_of
from redline.node.coupled import partners, zeroed_by_partner
from redline.node.judge import Judged
from redline.node.meets import is_met
from redline.node.persist.cmdline import cmdline
from redline.node.persist.form import Form, Setting
from redline.node.persist.lines import limits, modules, sysctls, tmpfiles, udev
from redline.node.persist.nic import nics
from redline.node.persist.unit import units
from redline.node.sys import Sys, SysFault
from redline.node.tunables.table import BY_ID
from redline.node.tunables.tunable import Persist

FORMS: dict[Persist, Callable[[Sys, Sequence[Setting]], Form]] = {
    "sysctl": sysctls,
    "tmpfiles": tmpfiles,
    "udev": udev,
    "limits": limits,
    "unit": units,
    "nic": nics,
    "module": modules,
    "cmdline": cmdline,
}
"""In the order in which they are carried out: what may keep the box from booting comes last."""


@dataclass(frozen=True)
class Plan:
    """`reboot`: ids that take effect at the next boot. `blast`: what else is hit. `warnings`: what does not go the way
    one would think. `manual`: (id, what a person has to do)."""

    changes: tuple[Change, ...]
    reboot: tuple[str, ...] = ()
    blast: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    manual: tuple[tuple[str, str], ...] = ()

    @property
    def risk(self) -> int:
        return max((change.risk for change in self.changes), default=0)

    def diff(self) -> str:
        """Unified diff of everything that changes, live values too; commands as lines of their own."""
        return "".join(map(_diff, self.changes))

    def to_json(self) -> dict[str, Any]:
        return {
            "changes": [change.to_json() for change in self.changes],
            "risk": self.risk,
            "reboot": self.reboot,
            "blast": self.blast,
            "warnings": self.warnings,
            "manual": [{"id": id_, "do": do} for id_, do in self.manual],
            "diff": self.diff(),
        }


def plan(sys: Sys, judged: Sequence[Judged], *, persist: bool = True, skip: Collection[str] = ()) -> Plan:
    """What to change so that rows that drift or are overridden hold, now and (`persist`) after a reboot. Reads only.

    `skip`: ids to leave out. A value that a daemon would set back is not fought over: it is a warning.
    """
    todo, warnings, manual = [], [], []
    for one in judged:
        if one.tunable.id in skip or one.state not in ("drift", "overridden") or one.want is None:
            continue
        if one.state == "overridden" and not one.owner.startswith("/"):
            warnings.append(f"{_name(one)}: {one.why}; it is left alone until {one.owner} is told otherwise")
        elif one.tunable.write == "none" and one.tunable.persist == "none":
            manual.append((one.tunable.id, one.tunable.advice or one.why))
        else:
            todo.append(one)
    live, refused = _live(sys, todo, judged)
    settings = [Setting(one.tunable, one.place, _written(one)) for one in todo if _name(one) not in refused]
    form = _kept(sys, settings) if persist else Form()
    changes = (*live, *form.changes)
    fleeting = [one.tunable.id for one in settings if not persist or one.tunable.persist == "none"]
    if fleeting:
        warnings.append(f"until the next boot only: {', '.join(dict.fromkeys(fleeting))}")
    reboot = dict.fromkeys(id_ for change in changes if change.needs_reboot for id_ in change.tunable_ids)
    said = (*warnings, *refused.values(), *form.warnings)
    return Plan(
        changes,
        tuple(reboot),
        tuple(blast_radius(sys, changes)),
        tuple(dict.fromkeys(said)),
        tuple(dict.fromkeys(manual)),
    )


def _name(one: Judged) -> str:
    return f"{one.tunable.id} {one.place.name}".strip()


def _written(one: Judged) -> str:
    assert one.want is not None
    return one.want.written


def _kept(sys: Sys, settings: Sequence[Setting]) -> Form:
    form = Form()
    for kind, make in FORMS.items():
        those = [one for one in settings if one.tunable.persist == kind]
        if those:
            form.add(make(sys, those))
    return form


def _live(sys: Sys, todo: Sequence[Judged], judged: Sequence[Judged]) -> tuple[list[Change], dict[str, str]]:
    """Writes of attributes whose value is not as wanted, and why some were left out, by name of the row and place."""
    changes: dict[str, Change] = {}
    refused = {}
    for one in todo:
        if one.tunable.write == "none" or one.want is None or (one.value is not None and is_met(one.value, one.want)):
            continue
        path, value = one.place.path, _written(one)
        if zeroed_by_partner(path, value):
            refused[_name(one)] = f"{_name(one)}: 0 cannot be written; it comes with a value of {partners(path)[0]}"
            continue
        try:
            before = sys.read(path)
        except SysFault as fault:
            refused[_name(one)] = f"{_name(one)}: {fault}"
            continue
        if path in changes:
            continue
        changes[path] = Change(
            *("attribute", path, before, value.encode(), (one.tunable.id,)),
            coupled=_coupled(sys, one, judged),
            op=one.want.op,
            risk=one.tunable.risk,
            owners=one.tunable.owners,
        )
    return list(changes.values()), refused


def _coupled(sys: Sys, one: Judged, judged: Sequence[Judged]) -> tuple[str, ...]:
    """Other attributes of this place that the kernel changes along."""
    found = [path for path in partners(one.place.path) if sys.exists(path)]
    for id_ in one.tunable.coupled:
        places = [other.place for other in judged if other.tunable.id == id_]
        if not places and id_ in BY_ID:
            places = list(BY_ID[id_].places(sys))
        found += [place.path for place in places if place.name == one.place.name]
    return tuple(dict.fromkeys(path for path in found if path != one.place.path and sys.stat(path) is not None))


def _diff(change: Change) -> str:
    if change.kind == "command":
        return f"$ {' '.join(change.argv)}\n"
    if change.kind == "attribute":
        before, after = [value_of(change.before or b"") + "\n"], [value_of(change.after or b"") + "\n"]
    else:
        both = ((content or b"").decode(errors="replace") for content in (change.before, change.after))
        before, after = (content.splitlines(keepends=True) for content in both)
    old = change.path if change.before is not None else "/dev/null"
    new = change.path if change.after is not None else "/dev/null"
    lines = list(difflib.unified_diff(before, after, old, new))
    return "".join(line if line.endswith("\n") else line + "\n\\ No newline at end of file\n" for line in lines)
