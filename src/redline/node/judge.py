"""What one row says about one place: the seven states. It only reads, and never guesses an ok."""

from __future__ import annotations

from dataclasses import dataclass

from redline.node.meets import is_met
from redline.node.persisted import overriding
from redline.node.sys import Sys, SysFault
from redline.node.tunables.tunable import Place, Profile, State, Tunable, Want
from redline.node.writable import blocked, locked_down


@dataclass(frozen=True)
class Judged:
    """`value` None: it could not be read. `want` None: the profile has no opinion. `owner`: the file or daemon that
    overrides the value, or that set it."""

    tunable: Tunable
    place: Place
    state: State
    value: str | None
    want: Want | None
    why: str = ""
    owner: str = ""


def judge(sys: Sys, tunable: Tunable, place: Place, profile: Profile) -> Judged:
    """The state of `tunable` at `place`. The order: does it apply, can it be read, can it matter here, is it so, what
    would undo it, could it be changed."""
    try:
        reason = tunable.applies(sys, place)
        wanted = tunable.wants.get(profile)
        want = tunable.fit(sys, place, wanted) if wanted and not reason else None
    except SysFault as error:
        return Judged(tunable, place, "unknown", None, None, _unreadable(error))
    nothing = "it does not matter on this box" if wanted else f"the {profile} profile leaves it as it is"
    try:
        value = tunable.read(sys, place)
    except SysFault as error:
        if reason or want is None:
            return Judged(tunable, place, "not applicable", None, want, reason or nothing)
        if error.why == "denied" and (why := locked_down(sys, error.path)):
            return Judged(tunable, place, "blocked", None, want, why)
        return Judged(tunable, place, "unknown", None, want, _unreadable(error))
    if reason or want is None:
        return Judged(tunable, place, "not applicable", value, want, reason or nothing)
    met = is_met(value, want)
    if met is None:
        return Judged(tunable, place, "unknown", value, want, f"{value!r} is not what is expected here")
    return _settled(sys, tunable, place, value, want, met)


def _settled(sys: Sys, tunable: Tunable, place: Place, value: str, want: Want, met: bool) -> Judged:
    try:
        inert = tunable.effective(sys, place)
    except SysFault:
        inert = ""  # what cannot be shown to be without effect is judged by its value
    if inert:
        return Judged(tunable, place, "inert", value, want, inert)
    other = overriding(sys, tunable, place, value, want)
    if other is not None and other.wins:
        return Judged(tunable, place, "overridden", value, want, other.why, other.owner)
    owner = other.owner if other else ""
    if met:
        return Judged(tunable, place, "ok", value, want, "", owner)
    hindrance = blocked(sys, tunable, place)
    if hindrance:
        return Judged(tunable, place, "blocked", value, want, hindrance, owner)
    return Judged(tunable, place, "drift", value, want, (other.why if other else "") or tunable.advice, owner)


def _unreadable(error: SysFault) -> str:
    what = {"denied": "may not be read", "absent": "is not there"}.get(error.why, "cannot be read")
    detail = f": {error.detail}" if error.detail and error.why != "absent" else ""
    return f"{error.path} {what}{detail}"
