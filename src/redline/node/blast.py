"""What a change would hit besides its target: containers that lose their GPUs, the route that one is logged in over."""

from __future__ import annotations

import re
from collections.abc import Sequence

from redline.node.change import Change, value_of
from redline.node.sys import Sys, SysFault, text

_SCOPE = re.compile(r"(?:docker|cri-containerd|crio|libpod|nerdctl)-([0-9a-f]{12,64})\.scope")


def gpu_containers(sys: Sys) -> list[str]:
    """Ids (12 digits) of running containers that hold a GPU under the systemd cgroup driver.

    A `systemctl daemon-reload` makes systemd set their device rules anew, without the GPU, of which it was never told.
    Source: NVIDIA/nvidia-container-toolkit #48, #1227.
    """
    found = set()
    for path in sys.glob("/proc/[0-9]*/cgroup"):
        scope = _SCOPE.search(text(sys, path) or "")
        if scope and scope[1][:12] not in found and _holds_gpu(sys, path.rpartition("/")[0]):
            found.add(scope[1][:12])
    return sorted(found)


def _holds_gpu(sys: Sys, process: str) -> bool:
    try:
        names = sys.names(f"{process}/fd")
        return any((sys.link(f"{process}/fd/{name}") or "").startswith("/dev/nvidia") for name in names)
    except SysFault:
        return False  # it has ended, or is not ours to look into


def default_route_nics(sys: Sys) -> list[str]:
    """Cards that the default route leads over."""
    rows = [line.split() for line in (text(sys, "/proc/net/route") or "").splitlines()[1:]]
    return sorted({row[0] for row in rows if len(row) > 7 and row[1] == "00000000" and row[7] == "00000000"})


def blast_radius(sys: Sys, changes: Sequence[Change]) -> list[str]:
    """One sentence each."""
    said = []
    for change in changes:
        if change.kind == "command" and "daemon-reload" in change.argv and (at_stake := gpu_containers(sys)):
            said.append(
                f"daemon-reload would drop the GPUs from {len(at_stake)} running containers: {', '.join(at_stake)}"
            )
        elif change.kind == "attribute" and change.path.endswith("/mtu"):
            said.append(_mtu(sys, change))
        elif change.kind == "attribute" and change.path.endswith("nr_hugepages"):
            said += _pages(change)
        elif change.kind == "command" and change.argv[0] in ("update-initramfs", "dracut"):
            said.append("the initial RAM disk is made anew: a minute of disk and CPU, and every later boot uses it")
    if any(change.needs_reboot and change.arguments for change in changes):
        words = sorted({word for change in changes for word in change.arguments})
        said.append(f"every installed kernel is given {' '.join(words)} from the next boot on")
    return said


def _mtu(sys: Sys, change: Change) -> str:
    name = change.path.split("/")[-2]
    whom = "the default route of this box leads over it" if name in default_route_nics(sys) else "its peers"
    return (
        f"{name}: every host on its segment must take frames of {value_of(change.after or b'')} bytes; at stake: {whom}"
    )


def _pages(change: Change) -> list[str]:
    size = re.search(r"hugepages-(\d+)kB", change.path)
    more = int(value_of(change.after or b"0")) - int(value_of(change.before or b"0"))
    if not size or more <= 0:
        return []
    return [f"{more * int(size[1]) / (1 << 20):.1f} GiB are taken from the page cache and from every program"]
