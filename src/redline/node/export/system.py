"""A plan as what the system itself carries out at boot: a TuneD profile, a systemd unit."""

from __future__ import annotations

from redline.node.change import Change, value_of
from redline.node.daemons import tuned_yields
from redline.node.export.declared import HEAD, write_unless
from redline.node.persisted import TAKEN_AGAIN, sysctl_line
from redline.node.plan import Plan
from redline.node.sys import Sys

_SYSCTL = "/proc/sys/"
_MAIN = "reapply_sysctl = 0 in /etc/tuned/tuned-main.conf"


def tuned(plan: Plan) -> str:
    """`tuned.conf` of a profile: /etc/tuned/profiles/redline/, of older TuneD /etc/tuned/redline/. Files that TuneD has
    no plugin for are named at the end."""
    values = [change for change in plan.changes if change.kind == "attribute"]
    sysctl = [f"{_sysctl(change)}={_value(change)}" for change in values if change.path.startswith(_SYSCTL)]
    sysfs = [f"{change.path}={_value(change)}" for change in values if not change.path.startswith(_SYSCTL)]
    arguments = dict.fromkeys(word for change in plan.changes for word in change.arguments)
    sections = {
        "main": ["summary=A box for inference"],
        "sysctl": [f"# files of sysctl.d are taken again after these, and win, unless {_MAIN}", *sysctl]
        if sysctl
        else [],
        "sysfs": sysfs,
        "bootloader": [f"cmdline_redline=+{' '.join(arguments)}"] if arguments else [],
    }
    text = "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items() if lines)
    left = [change.path for change in plan.changes if change.kind == "file" and not _is_told_above(change)]
    more = "".join(f"# not a matter of TuneD's: {path}\n" for path in left)
    return f"# {HEAD}\n{text}" + (f"\n{more}" if more else "")


def beaten(sys: Sys, plan: Plan) -> list[str]:
    """Which files of this box would win over the profile that `tuned` makes."""
    if not tuned_yields(sys):
        return []
    winners: dict[str, list[str]] = {}
    for change in plan.changes:
        if change.kind == "attribute" and change.path.startswith(_SYSCTL):
            value, path = sysctl_line(sys, _sysctl(change)) or ("", "")
            if path.startswith(TAKEN_AGAIN) and value.split() != _value(change).split():
                winners.setdefault(path, []).append(_sysctl(change))
    return [
        f"{path} has the last word on {', '.join(names)}: TuneD takes it again after its profile; "
        f"{_MAIN}, or take these lines out"
        for path, names in winners.items()
    ]


def _is_told_above(change: Change) -> bool:
    """Files that only keep values which the profile sets itself."""
    return bool(change.arguments) or change.path.startswith(
        ("/etc/sysctl.d/", "/etc/tmpfiles.d/", "/etc/default/grub.d/")
    )


def _sysctl(change: Change) -> str:
    """Slashes and dots change places, so that `net.ipv4.conf.eth0/10.mtu` is still one name."""
    return change.path.removeprefix(_SYSCTL).translate(str.maketrans("/.", "./"))


def _value(change: Change) -> str:
    return value_of(change.after or b"")


def systemd(plan: Plan) -> str:
    """A unit for /etc/systemd/system/ that sets the live values at boot, before containers and engines start."""
    lines = [
        f"# {', '.join(change.tunable_ids)}\nExecStart=/bin/sh -c {_quoted(write_unless(change))}"
        for change in plan.changes
        if change.kind == "attribute"
    ]
    body = "\n".join(lines) or "ExecStart=/bin/true"
    return f"""# {HEAD}
[Unit]
Description=Settings of this box for inference
After=systemd-sysctl.service systemd-tmpfiles-setup.service
Before=docker.service containerd.service podman.service

[Service]
Type=oneshot
RemainAfterExit=yes
{body}

[Install]
WantedBy=multi-user.target
"""


def _quoted(command: str) -> str:
    """For a unit file: `%` and `$` are doubled, backslashes and quotes escaped."""
    escaped = command.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{escaped}"'
