"""All forms by the name that users type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import date
from pathlib import Path

from redline.errors import EnvironmentFault, UsageError
from redline.node.change import Change
from redline.node.export.bash import bash
from redline.node.export.bootstrap import bootstrap
from redline.node.export.declared import ansible, cloud_init, compose
from redline.node.export.drivers import Choice, Release, release_of
from redline.node.export.system import beaten, systemd, tuned
from redline.node.persist.form import HEAD as APPLIED
from redline.node.plan import Plan
from redline.node.sys import Sys, text
from redline.node.tree import fields
from redline.node.tunables.find import gpus

FORMS: dict[str, Callable[[Plan], str]] = {
    "bash": bash,
    "ansible": ansible,
    "cloud-init": cloud_init,
    "tuned": tuned,
    "compose": compose,
    "systemd": systemd,
}
WITH_DRIVERS: dict[str, Callable[[Plan, str], str]] = {"bash": bash, "ansible": ansible, "cloud-init": cloud_init}
"""Forms that can also install drivers and libraries."""


def export(plan: Plan, form: str, output: Path | None = None, drivers: Choice | None = None) -> str:
    """The plan as a text of this form, also written to `output`; with `drivers`, a bootstrap of those, too. Raises
    UsageError for a form that does not exist, or that installs nothing."""
    if form not in FORMS:
        raise UsageError(f"nothing is exported as {form!r}", fix=f"one of {', '.join(FORMS)}")
    if drivers is not None and form not in WITH_DRIVERS:
        raise UsageError(f"{form} installs no drivers", fix=f"--as {', '.join(WITH_DRIVERS)}, or --no-drivers")
    plan = replace(plan, changes=tuple(map(_headed, plan.changes)))
    content = FORMS[form](plan) if drivers is None else WITH_DRIVERS[form](plan, bootstrap(drivers))
    if output is not None:
        try:
            output.write_text(content)
            output.chmod(0o755 if form == "bash" else 0o644)
        except OSError as error:
            raise EnvironmentFault(f"{output} cannot be written: {error.strerror}", fix="--output elsewhere") from error
    return content


def _headed(change: Change) -> Change:
    """Files say who wrote them, and here that is not `apply`, whose journal could take them back."""
    if change.after is None:
        return change
    return replace(change, after=change.after.replace(APPLIED.encode(), b"# Written by `redline node export`.\n"))


def remarks(sys: Sys, plan: Plan, form: str, drivers: Choice | None = None) -> list[str]:
    """All that a person has to know beside the text."""
    said = [*notes(plan), *(driver_notes(drivers, here(sys)) if drivers else [])]
    return said + (beaten(sys, plan) if form == "tuned" else [])


def notes(plan: Plan) -> list[str]:
    """What a form does not carry out and a person has to know."""
    said = [*plan.warnings, *(f"by hand: {id_}: {do}" for id_, do in plan.manual)]
    if plan.reboot:
        said.append(f"takes effect at the next boot: {', '.join(plan.reboot)}")
    return said


def here(sys: Sys) -> Release | None:
    """The release of this box, where drivers for it are known."""
    found = fields(text(sys, "/etc/os-release"), "=")
    id_, version = (found.get(name, "").strip('"') for name in ("ID", "VERSION_ID"))
    return release_of(id_, version)


def wants_drivers(sys: Sys, form: str) -> bool:
    """Where nothing is said: on a box with a GPU, in forms that can."""
    return form in WITH_DRIVERS and bool(gpus(sys))


def driver_notes(choice: Choice, release: Release | None, today: date | None = None) -> list[str]:
    """Ends of support and old entries, of this box's own release where it is one."""
    said = choice.warnings(today or date.today(), release)
    if release is None:
        known = ", ".join(one.name for one in choice.releases)
        said.append(f"this box is none of {known}: the script refuses here")
    return said
