"""The MTU of a network card, by whoever sets the card up: netplan, NetworkManager, ifupdown, systemd-networkd."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import yaml

from redline.node.change import Change
from redline.node.persist.distro import program
from redline.node.persist.form import HEAD, Form, Setting, file_change
from redline.node.sys import Sys, text

NETPLAN_FILE = "/etc/netplan/99-redline.yaml"
NIC_RISK = 3
_KINDS = ("ethernets", "bonds", "bridges", "vlans", "dummy-devices")


def nics(sys: Sys, settings: Sequence[Setting]) -> Form:
    """Each card by the tool that is in charge of it."""
    form = Form()
    plans = sorted(path for path in sys.glob("/etc/netplan/*.yaml") if path != NETPLAN_FILE)
    if plans and program(sys, "netplan"):
        return _netplan(sys, settings, plans)
    for one in settings:
        for way in (_network_manager, _ifupdown, _networkd):
            found = way(sys, one)
            if found is not None:
                form.add(found)
                break
        else:
            form.warnings.append(
                f"nobody that redline knows sets up {one.place.name}: its {one.key} lasts until the next boot"
            )
    return form


def _netplan(sys: Sys, settings: Sequence[Setting], plans: list[str]) -> Form:
    """A file of our own with nothing but the MTU: netplan merges files by the device's id, in the order of names."""
    form, content = Form(), _yaml(sys, NETPLAN_FILE)
    kept: list[Setting] = []
    for one in settings:
        found = _netplan_id(sys, plans, one.place.name)
        if found is None:
            form.warnings.append(f"no file of netplan names {one.place.name}: its {one.key} lasts until the next boot")
            continue
        kind, id_ = found
        network = content.setdefault("network", {"version": 2})
        network.setdefault(kind, {}).setdefault(id_, {})[one.key] = int(one.value)
        kept.append(one)
    if kept:
        after = (HEAD + yaml.safe_dump(content, sort_keys=False)).encode()
        form.changes += file_change(sys, NETPLAN_FILE, after, kept, mode=0o600, risk=NIC_RISK)
    return form


def _yaml(sys: Sys, path: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text(sys, path) or "")
    except yaml.YAMLError:
        return {}
    return found if isinstance(found, dict) else {}


def _netplan_id(sys: Sys, plans: list[str], name: str) -> tuple[str, str] | None:
    """(section, id) under which netplan knows a card: by name, by the name it is given, or by a match."""
    for path in plans:
        network = _yaml(sys, path).get("network") or {}
        for kind in _KINDS:
            for id_, device in (network.get(kind) or {}).items():
                match = ((device or {}).get("match") or {}).get("name")
                names = [match] if isinstance(match, str) else list(match or [])
                if id_ == name or (device or {}).get("set-name") == name or any(fnmatchcase(name, n) for n in names):
                    return kind, id_
    return None


def _network_manager(sys: Sys, one: Setting) -> Form | None:
    if not program(sys, "nmcli"):
        return None
    ran = sys.run(["nmcli", "-g", "GENERAL.CONNECTION", "device", "show", one.place.name])
    name = ran.out.strip()
    if ran.rc or not name or name == "--":
        return None
    files = sys.glob("/etc/NetworkManager/system-connections/*")
    mine = [path for path in files if re.search(rf"(?m)^id={re.escape(name)}$", text(sys, path) or "")]
    if not mine:
        why = f"the connection {name} of {one.place.name} is not kept in a file below /etc"
        return Form(warnings=[f"{why}: its {one.key} lasts until the next boot"])
    change = Change(
        *("command", "", None, None, (one.tunable.id,)),
        argv=("nmcli", "connection", "modify", name, "802-3-ethernet.mtu", one.value),
        covers=tuple(mine),
        undo_argv=("nmcli", "connection", "reload"),
        redo_argv=("nmcli", "connection", "reload"),
        risk=NIC_RISK,
    )
    return Form([change])


def _ifupdown(sys: Sys, one: Setting) -> Form | None:
    """A line in the stanza of the card, in whichever file that is."""
    for path in ["/etc/network/interfaces", *sys.glob("/etc/network/interfaces.d/*")]:
        content = text(sys, path)
        if content is None or not re.search(rf"(?m)^iface\s+{re.escape(one.place.name)}\s", content):
            continue
        lines = sys.read(path).decode("utf-8", "surrogateescape").splitlines(keepends=True)
        after, done = [], False
        line_of_ours = f"    post-up ip link set dev {one.place.name} mtu "
        for line in lines:
            if line.startswith(line_of_ours):
                continue
            after.append(line if line.endswith("\n") else line + "\n")
            if not done and re.match(rf"iface\s+{re.escape(one.place.name)}\s", line):
                after.append(f"{line_of_ours}{one.value}\n")
                done = True
        made = "".join(after).encode("utf-8", "surrogateescape")
        return Form(file_change(sys, path, made, [one], risk=NIC_RISK))
    return None


def _networkd(sys: Sys, one: Setting) -> Form | None:
    """A drop-in of the .network file that matches the card by name."""
    folders = ("/etc/systemd/network", "/run/systemd/network", "/usr/lib/systemd/network")
    files = sorted(
        (path for folder in folders for path in sys.glob(f"{folder}/*.network")), key=lambda p: p.split("/")[-1]
    )
    for path in files:
        patterns = [word for line in re.findall(r"(?m)^Name=(.*)$", text(sys, path) or "") for word in line.split()]
        matched = [card for card in sys.names("/sys/class/net") if any(fnmatchcase(card, each) for each in patterns)]
        if one.place.name in matched:
            if len(matched) > 1:
                why = f"{path} is about {', '.join(matched)}"
                return Form(warnings=[f"{why}: the {one.key} of {one.place.name} lasts until the next boot"])
            drop_in = f"/etc/systemd/network/{path.rpartition('/')[2]}.d/90-redline.conf"
            content = f"{HEAD}[Link]\nMTUBytes={one.value}\n"
            return Form(file_change(sys, drop_in, content.encode(), [one], risk=NIC_RISK))
    return None
