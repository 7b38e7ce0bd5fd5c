"""All forms by the name that users type."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from redline.errors import EnvironmentFault, UsageError
from redline.node.change import Change
from redline.node.export.bash import bash
from redline.node.export.declared import ansible, cloud_init, compose
from redline.node.export.system import systemd, tuned
from redline.node.persist.form import HEAD as APPLIED
from redline.node.plan import Plan

FORMS: dict[str, Callable[[Plan], str]] = {
    "bash": bash,
    "ansible": ansible,
    "cloud-init": cloud_init,
    "tuned": tuned,
    "compose": compose,
    "systemd": systemd,
}


def export(plan: Plan, form: str, output: Path | None = None) -> str:
    """The plan as a text of this form, also written to `output`. Raises UsageError for a form that does not exist."""
    if form not in FORMS:
        raise UsageError(f"nothing is exported as {form!r}", fix=f"one of {', '.join(FORMS)}")
    text = FORMS[form](replace(plan, changes=tuple(map(_headed, plan.changes))))
    if output is not None:
        try:
            output.write_text(text)
            output.chmod(0o755 if form == "bash" else 0o644)
        except OSError as error:
            raise EnvironmentFault(f"{output} cannot be written: {error.strerror}", fix="--output elsewhere") from error
    return text


def _headed(change: Change) -> Change:
    """Files say who wrote them, and here that is not `apply`, whose journal could take them back."""
    if change.after is None:
        return change
    return replace(change, after=change.after.replace(APPLIED.encode(), b"# Written by `redline node export`.\n"))


def notes(plan: Plan) -> list[str]:
    """What a form does not carry out and a person has to know."""
    said = [*plan.warnings, *(f"by hand: {id_}: {do}" for id_, do in plan.manual)]
    if plan.reboot:
        said.append(f"takes effect at the next boot: {', '.join(plan.reboot)}")
    return said
