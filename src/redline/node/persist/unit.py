"""Settings of systemd units as drop-ins, and whether systemd may be told of them now."""

from __future__ import annotations

from collections.abc import Sequence

from redline.node.blast import gpu_containers
from redline.node.change import Change
from redline.node.persist.distro import program
from redline.node.persist.form import HEAD, Form, Setting, file_change, ids, old_lines, risk
from redline.node.sys import Sys

DROP_IN = "90-redline.conf"
_SECTIONS = {"service": "Service", "slice": "Slice", "socket": "Socket", "scope": "Scope"}


def units(sys: Sys, settings: Sequence[Setting]) -> Form:
    """One drop-in per unit. `daemon-reload` is left out, and said, where it would take the GPUs from containers."""
    form = Form()
    by_unit: dict[str, list[Setting]] = {}
    for one in settings:
        by_unit.setdefault(unit_of(one), []).append(one)
    for unit, those in by_unit.items():
        path = f"/etc/systemd/system/{unit}.d/{DROP_IN}"
        lines = {line.partition("=")[0]: line for line in old_lines(sys, path) if "=" in line}
        lines.update({one.key: f"{one.key}={one.value}" for one in those})
        section = _SECTIONS.get(unit.rpartition(".")[2], "Service")
        content = f"{HEAD}[{section}]\n" + "".join(f"{line}\n" for line in lines.values())
        form.changes += file_change(sys, path, content.encode(), those)
    if not form.changes:
        return form
    form.warnings.append(f"takes effect when {', '.join(by_unit)} is started anew")
    at_stake = gpu_containers(sys)
    if at_stake:
        form.warnings.append(
            f"systemd is not told: daemon-reload would drop the GPUs from {len(at_stake)} running "
            f"container{'s' if len(at_stake) > 1 else ''}; run systemctl daemon-reload when they are stopped, or reboot"
        )
    elif program(sys, "systemctl") and sys.exists("/run/systemd/system"):
        reload = ("systemctl", "daemon-reload")
        form.changes.append(
            Change(
                *("command", "", None, None, ids(settings)),
                argv=reload,
                undo_argv=reload,
                redo_argv=reload,
                risk=risk(settings),
            )
        )
    return form


def unit_of(one: Setting) -> str:
    """`vllm.service`: from the place's name; a name without an ending is a service."""
    name = one.place.name or "system"
    return name if name.rpartition(".")[2] in _SECTIONS else f"{name}.service"
