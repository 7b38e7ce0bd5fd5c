"""What was asked to be proved, looked at on this box: what would be written where, or why nothing can be shown here."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from redline.errors import UsageError
from redline.node.apply import explain
from redline.node.audit import audit, chosen
from redline.node.change import Change, value_of
from redline.node.coupled import partners
from redline.node.judge import Judged, judge
from redline.node.meets import is_met
from redline.node.plan import plan
from redline.node.sys import Sys, SysFault
from redline.node.tunables.tunable import AT_START, PROFILES, Profile, Tunable, Want, as_is

CONTROL, PREWARM, PIN, CPUS = "control", "load.prewarm", "numa.pin", "engine.cpus"
WAYS = {
    CONTROL: "nothing is changed at all: shows what chance does",
    PREWARM: "the model's files are read into the page cache before the engine starts, against dropped from it",
    PIN: "the engine is started on the CPUs and the memory of one NUMA node, against on all",
    CPUS: "the engine has so many CPUs, or these, against all",
}
"""What can be proved beside the rows of the table: ways to start the engine."""
MAX_RISK = 2


@dataclass(frozen=True)
class Candidate:
    """`why_not` '': it can be tried, by `changes` (none for a way of starting). `at_start`: a process that runs does
    not feel it, so the engine is started again for every round."""

    id: str
    present: str
    wanted: str
    where: str = ""
    changes: tuple[Change, ...] = ()
    at_start: bool = False
    why_not: str = ""
    signal: str = ""
    shared: bool = False
    """Another candidate of this run has the same present value."""

    @property
    def labels(self) -> tuple[str, str]:
        """Names of the two sides in tables."""
        against = f", against {self.wanted}" if self.shared else ""
        return f"{self.id}={self.present} (present{against})", f"{self.id}={self.wanted}"


@dataclass(frozen=True)
class _Asked:
    """`ID`, `ID=VALUE`, `ID@PLACE`, `ID@PLACE=VALUE`."""

    name: str
    place: str
    value: str | None


@dataclass(frozen=True)
class Limits:
    """What is tried. `inert`: also what the audit says can have no effect here."""

    profile: Profile = "latency"
    max_risk: int = MAX_RISK
    inert: bool = False


def candidates(sys: Sys, settings: Sequence[str], limits: Limits) -> list[Candidate]:
    """In the order asked for; without any, every setting that drifts and can be set while the box runs.

    UsageError for a name that no row has, or a value for more than one row.
    """
    if not settings:
        ids = dict.fromkeys(one.tunable.id for one in audit(sys, limits.profile) if _can_be_set(one))
        return [_candidate(sys, tunable, _Asked(id_, "", None), limits) for id_ in ids for tunable in chosen([id_])]
    found: dict[str, Candidate] = {}
    for asked in map(_parsed, settings):
        if asked.name.startswith("/"):
            made = [_attribute(sys, asked)]
        else:
            made = [_way(asked)] if asked.name in WAYS else _rows(sys, asked, limits)
        for one in made:
            if one.labels[1] in found:
                raise UsageError(f"{one.id} is asked for twice")
            found[one.labels[1]] = one
    times = Counter(one.labels[0] for one in found.values())
    return [replace(one, shared=times[one.labels[0]] > 1) for one in found.values()]


def _parsed(text: str) -> _Asked:
    found = re.fullmatch(r"([^=@\s]+)(?:@([^=\s]+))?(?:=(.*))?", text.strip())
    if not found:
        raise UsageError(f"{text!r} names no setting", fix="ID, ID=VALUE, or ID@PLACE=VALUE for one of several places")
    return _Asked(found[1], found[2] or "", found[3])


def _way(asked: _Asked) -> Candidate:
    if asked.name == CONTROL:
        return Candidate(CONTROL, "the same", "the same again")
    if asked.name == PREWARM:
        return Candidate(PREWARM, "cold", "warm", at_start=True, signal="resident_share")
    if asked.name == CPUS:
        if not asked.value:
            raise UsageError("engine.cpus is compared at how many CPUs?", fix="engine.cpus=4, or engine.cpus=0-3")
        return Candidate(CPUS, "all", asked.value, signal="run_queue_ms")
    return Candidate(PIN, "everywhere", f"node {asked.value or 0}", at_start=True, signal="remote_pages")


def _attribute(sys: Sys, asked: _Asked) -> Candidate:
    """An attribute of the kernel that no row of the table knows, by its path. Nothing is known of what it does."""
    path = asked.name
    if not path.startswith(("/proc/sys/", "/sys/")) or ".." in path:
        raise UsageError(f"{path} is no attribute of the kernel", fix="a path below /proc/sys or /sys, =VALUE")
    if asked.value is None:
        raise UsageError(f"{path} is compared at what value?", fix=f"{path}=VALUE")
    try:
        before = sys.read(path)
    except SysFault as fault:
        return Candidate(path, "?", asked.value, why_not=explain(fault))
    present = value_of(before)
    if present == asked.value:
        return Candidate(path, present, asked.value, why_not=f"it is {present} already")
    change = Change(
        *("attribute", path, before, asked.value.encode(), (path,)),
        coupled=tuple(partner for partner in partners(path) if sys.exists(partner)),
    )
    return Candidate(path, present, asked.value, changes=(change,))


def _can_be_set(one: Judged) -> bool:
    return one.state == "drift" and one.tunable.write == "attribute" and not one.tunable.needs_reboot


def _rows(sys: Sys, asked: _Asked, limits: Limits) -> list[Candidate]:
    tunables = chosen([asked.name])
    if asked.value is not None and len(tunables) > 1:
        raise UsageError(f"{asked.name} are {len(tunables)} settings, and one value is given", fix="name one of them")
    return [_candidate(sys, tunable, asked, limits) for tunable in tunables]


def _candidate(sys: Sys, tunable: Tunable, asked: _Asked, limits: Limits) -> Candidate:
    judged = [_despite(one, limits) for one in _judged(sys, tunable, asked, limits.profile)]
    able = [one for one in judged if one.state == "drift" or (one.state == "overridden" and one.owner.startswith("/"))]
    shown = able or judged
    wanted = _joined([one.want.written for one in shown if one.want])
    present = _joined([one.value for one in shown if one.value is not None])
    where = _joined([one.place.name for one in shown if one.place.name])
    made = plan(sys, able, persist=False)
    why_not = (
        _hindrance(judged)
        if not able
        else _refusal(tunable, limits.max_risk)
        or ("" if made.changes else "; ".join(made.warnings) or "nothing to write")
    )
    changes = made.changes if not why_not else ()
    at_start = AT_START in tunable.tags
    return Candidate(tunable.id, present, wanted, where, changes, at_start, why_not, tunable.signal)


def _judged(sys: Sys, tunable: Tunable, asked: _Asked, profile: Profile) -> list[Judged]:
    if asked.value is not None:
        want: dict[Profile, Want | None] = dict.fromkeys(PROFILES, Want("equals", (asked.value,)))
        tunable = replace(tunable, wants=want, fit=as_is)
    try:
        places = list(tunable.places(sys))
    except SysFault:
        places = []
    known = [place.name for place in places]
    places = [place for place in places if not asked.place or place.name == asked.place]
    if asked.place and not places:
        have = ", ".join(known) or "none"
        raise UsageError(f"{tunable.id} has no place {asked.place!r} on this box", why=f"it has: {have}")
    return [judge(sys, tunable, place, profile) for place in places]


def _despite(one: Judged, limits: Limits) -> Judged:
    """An inert one as one that drifts, where that shall be tried."""
    if not limits.inert or one.state != "inert" or one.value is None or one.want is None:
        return one
    return replace(one, state="ok" if is_met(one.value, one.want) else "drift")


def _hindrance(judged: Sequence[Judged]) -> str:
    """Why nothing can be shown, from the states of all places."""
    if not judged:
        return "this box does not have it"
    one = judged[0]
    if one.state == "ok":
        return f"it is {one.value} already, as wanted: ID=VALUE compares with another value"
    if one.state == "overridden":
        return f"{one.owner} sets it back: {one.why}"
    return f"{one.state}: {one.why}" if one.why else one.state


def _refusal(tunable: Tunable, max_risk: int) -> str:
    if tunable.needs_reboot:
        return "it takes effect at the next boot only"
    if tunable.write == "none":
        return f"redline does not set it: {tunable.advice}" if tunable.advice else "redline does not set it"
    if tunable.risk > max_risk:
        return f"risk {tunable.risk} of 3, and up to {max_risk} is put up with"
    return ""


def _joined(values: Sequence[str]) -> str:
    """Different values once each, shortened when they are many."""
    distinct = list(dict.fromkeys(values))
    return ", ".join(distinct[:3]) + (f", … ({len(distinct)})" if len(distinct) > 3 else "")
