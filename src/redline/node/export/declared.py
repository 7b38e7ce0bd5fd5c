"""A plan as YAML for tools that bring a box into a state: Ansible, cloud-init, Docker Compose."""

from __future__ import annotations

import base64
import re
import shlex
from typing import Any

import yaml

from redline.node.change import Change, value_of
from redline.node.plan import Plan

DRIVERS, REBOOT_FILE = "/usr/local/sbin/redline-drivers", "/run/redline-reboot"
HEAD = "Written by `redline node export`"
_OF_A_CONTAINER = re.compile(r"/proc/sys/net/(?:core/somaxconn$|ipv6/|ipv4/(?!tcp_mem$|udp_mem$|tcp_max_orphans$))")
"""Settings that a network namespace has of its own; the others are the host's, and Docker refuses them."""


def ansible(plan: Plan, drivers: str = "") -> str:
    """A playbook of built-in modules. Running it twice changes nothing the second time; `--check` works. `drivers`: a
    script that is put on the box and run there first, unless its own check says that nothing is missing."""
    tasks: list[dict[str, Any]] = _ansible_drivers(drivers) if drivers else []
    fresh: list[str] = []
    for number, change in enumerate(plan.changes):
        name = f"{', '.join(change.tunable_ids)}: {change.label}"
        if change.kind == "command":
            when = " or ".join(f"{one} is changed" for one in fresh) or "true"
            tasks.append({"name": name, "ansible.builtin.command": {"argv": list(change.argv)}, "when": when})
            continue
        if change.kind == "attribute":
            shell = f"{write_unless(change)} && echo changed"
            task = {
                "ansible.builtin.shell": f"if {_differs(change)}; then {shell}; fi",
                "changed_when": "'changed' in written.stdout",
                "register": "written",
            }
        else:
            fresh.append(f"file_{number}")
            task = _ansible_file(change) | {"register": fresh[-1]}
        tasks.append({"name": name, **task})
    play = {"name": "A box for inference", "hosts": "all", "become": True, "gather_facts": False, "tasks": tasks}
    return _yaml([play], HEAD)


def _ansible_drivers(script: str) -> list[dict[str, Any]]:
    run, check = {"argv": [DRIVERS]}, {"argv": [DRIVERS, "--check"]}
    return [
        {"name": "drivers and libraries: the script",
         "ansible.builtin.copy": {"dest": DRIVERS, "content": _untemplated(script), "mode": "0755"}},
        {"name": "drivers and libraries: what is missing", "ansible.builtin.command": check, "register": "drivers",
         "check_mode": False, "changed_when": False, "failed_when": False},
        {"name": "drivers and libraries", "ansible.builtin.command": run, "register": "installed",
         "when": "drivers.rc not in [0, 4]", "failed_when": "installed.rc not in [0, 4]"},
        {"name": "drivers and libraries: reboot this box",
         "ansible.builtin.debug": {"msg": "reboot, then run this again"},
         "when": "4 in [drivers.rc, installed.rc | default(0)]"},
    ]  # fmt: skip


def _ansible_file(change: Change) -> dict[str, Any]:
    if change.after is None:
        return {"ansible.builtin.file": {"path": change.path, "state": "absent"}}
    try:
        content = change.after.decode()
    except UnicodeDecodeError:
        content = "{{ '" + base64.b64encode(change.after).decode() + "' | b64decode(encoding='latin-1') }}"
    else:
        content = _untemplated(content)
    mode = f"{change.mode or 0o644:04o}"
    return {"ansible.builtin.copy": {"dest": change.path, "content": content, "mode": mode}}


def _untemplated(text: str) -> str:
    """What stands between such braces would be a template, or a remark, of Ansible's."""
    return f"{{% raw %}}{text}{{% endraw %}}" if re.search(r"\{[{%#]", text) else text


def cloud_init(plan: Plan, drivers: str = "") -> str:
    """User data of a new machine: files first, then at the end of the first boot the values and the commands.

    `drivers`: a script that is run before them; the machine is started again when it asks for that.
    """
    files: list[dict[str, Any]] = []
    commands: list[list[str]] = []
    if drivers:
        files.append({"path": DRIVERS, "permissions": "0755", "owner": "root:root", "content": drivers})
        commands.append([DRIVERS])
    for change in plan.changes:
        if change.kind == "file" and change.after is not None:
            mode = f"{change.mode or 0o644:04o}"
            files.append(
                {"path": change.path, "permissions": mode, "owner": "root:root", **_cloud_content(change.after)}
            )
        elif change.kind == "file":
            commands.append(["rm", "-f", change.path])
        elif change.kind == "command":
            commands.append(list(change.argv))
        else:
            commands.append(["sh", "-c", write_unless(change)])
    document: dict[str, Any] = {name: value for name, value in (("write_files", files), ("runcmd", commands)) if value}
    if drivers:
        document["power_state"] = {
            "mode": "reboot", "message": "the driver is loaded at the next boot", "condition": f"test -e {REBOOT_FILE}",
        }  # fmt: skip
    return "#cloud-config\n" + _yaml(document, HEAD)


def _cloud_content(content: bytes) -> dict[str, str]:
    try:
        return {"content": content.decode()}
    except UnicodeDecodeError:
        return {"encoding": "b64", "content": base64.b64encode(content).decode()}


def compose(plan: Plan) -> str:
    """What of the plan belongs to the engine's container: a file to merge into one's own with a second `-f`."""
    sysctls = {
        change.path.removeprefix("/proc/sys/").replace("/", "."): value_of(change.after or b"")
        for change in plan.changes
        if change.kind == "attribute" and _OF_A_CONTAINER.match(change.path)
    }
    engine = container_settings()
    if sysctls:
        engine["sysctls"] = sysctls
    lines = (
        f"{HEAD}. docker compose -f yours.yml -f this.yml up",
        "Not with network_mode: host: it has the host's values",
    )
    said = "\n# ".join(lines)
    return _yaml({"services": {"engine": engine}}, said)


def container_settings() -> dict[str, Any]:
    """What an engine's container needs beyond Docker's defaults: locked memory, file descriptors, shared memory of the
    host for NCCL and PyTorch, the right to raise its priority."""
    limits = {"memlock": {"soft": -1, "hard": -1}, "nofile": {"soft": 1048576, "hard": 1048576}}
    return {"ulimits": limits, "ipc": "host", "cap_add": ["SYS_NICE"]}


def write_unless(change: Change) -> str:
    """A command for sh that writes an attribute's value."""
    return f"printf '%s\\n' {shlex.quote(value_of(change.after or b''))} > {shlex.quote(change.path)}"


def _differs(change: Change) -> str:
    """A command for sh that is true while the value is another, also where it is the bracketed word of a choice."""
    present = rf"sed -e 's/.*\[\(.*\)\].*/\1/' {shlex.quote(change.path)} | tr -s '[:space:]' ' ' | sed 's/ $//'"
    return f'[ "$({present})" != {shlex.quote(value_of(change.after or b""))} ]'


class _Readable(yaml.SafeDumper):
    """Texts of several lines as blocks."""


def _block(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Readable.add_representer(str, _block)


def _yaml(document: Any, head: str) -> str:
    return f"# {head}\n" + yaml.dump(document, Dumper=_Readable, sort_keys=False, width=1000, allow_unicode=True)
