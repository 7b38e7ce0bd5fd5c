"""What the box allows: open files per process, local ports per server address."""

from __future__ import annotations

import math
from pathlib import Path

from redline.errors import EnvironmentFault
from redline.load.worker import open_files_limit
from redline.node.tree import text

_SPARE_FILES = 64
_PORTS = "proc/sys/net/ipv4/ip_local_port_range"


def check_limits(clients: int, workers: int = 1) -> None:
    """EnvironmentFault when so many connections at once cannot be had. Raises the soft limit of open files."""
    each = math.ceil(clients / workers) + _SPARE_FILES
    limit = open_files_limit()
    if each > limit:
        who = "" if workers == 1 else f" in each of {workers} workers"
        raise EnvironmentFault(
            f"{clients} clients need {each} open files{who}, and {limit} are allowed",
            fix=f"ulimit -Hn {each} (as root), or LimitNOFILE= of the service",
        )
    ports = local_ports()
    if clients > ports:
        raise EnvironmentFault(
            f"{clients} clients need as many local ports, and {ports} are there",
            why="every connection to one server address takes a port of net.ipv4.ip_local_port_range",
            fix="sysctl net.ipv4.ip_local_port_range='1024 65535' (as root), or fewer clients",
        )


def local_ports(root: Path = Path("/")) -> int:
    """How many connections to one address this box can have."""
    low, _, high = (text(root, _PORTS) or "32768\t60999").partition("\t")
    return int(high or low) - int(low) + 1
