"""A change of a card's frame size, checked against the hosts behind it: those that answered before must answer after,
packets of the new size included. What asks for that undoes the change when one of them does not."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from redline.node.change import Change, value_of
from redline.node.path_probe import ANSWER_S, SMALL, Path, answering, answers, path_mtu, resolved, told
from redline.node.sys import Sys, text

MOST_HOSTS = 6
BACK_S = 10.0
"""A card may take its link down to change its frame size."""


@dataclass
class PathWatch:
    """`cards` and the size each gets. `hosts` are asked in any case. `found` before the change: who answers, how."""

    sys: Sys
    cards: dict[str, int]
    hosts: tuple[str, ...] = ()
    back_s: float = BACK_S
    answer_s: float = ANSWER_S
    found: list[Path] = field(default_factory=list)
    addresses: dict[str, str] = field(default_factory=dict)
    """Of `hosts`, asked before the change: names may be out of reach after it."""

    def before(self) -> dict[str, Any]:
        """Who answers now. Nobody: the change goes unchecked, and the record says so."""
        wanted = [*self.hosts, *(host for card in self.cards for host in hosts_behind(self.sys, card))]
        for host in list(dict.fromkeys(wanted))[: max(MOST_HOSTS, len(self.hosts))]:
            self.found.append(Path(host, answering(self.addresses.get(host, host), self.answer_s)))
        return {"when": "before", "cards": self.cards, "hosts": [path.to_json() for path in self.found]}

    def after(self) -> tuple[dict[str, Any], str]:
        """What holds now, and why the change must be taken back ('': it need not)."""
        size = max(self.cards.values())
        now, faults = [], []
        for was in (path for path in self.found if path.way):
            path, fault = self._look(was, size)
            now.append(path)
            faults += [fault] if fault else []
        return {"when": "after", "hosts": [path.to_json() for path in now]}, "; ".join(faults)

    def _look(self, was: Path, size: int) -> tuple[Path, str]:
        address = self.addresses.get(was.host, was.host)
        deadline = time.monotonic() + self.back_s
        while not answers(address, size, was.way, self.answer_s):
            if answers(address, SMALL, was.way, self.answer_s):
                return self._short_of(was, address, size)
            if time.monotonic() >= deadline:
                return Path(was.host, ""), f"{was.host} answered before and does not any more"
        return Path(was.host, was.way, size), ""

    def _short_of(self, was: Path, address: str, size: int) -> tuple[Path, str]:
        """Small packets get through and full ones do not: harmless only where a router says so to whoever sends."""
        said = told(address, size)
        if said and not any(on_link(self.sys, card, address) for card in self.cards):
            return Path(was.host, was.way, said, said), ""
        path = path_mtu(address, size, answer_s=self.answer_s)
        path = replace(path, host=was.host)
        return path, f"packets above {path.mtu} bytes vanish on the way to {was.host}, and nobody tells who sends them"


def path_watch(sys: Sys, changes: Sequence[Change], hosts: Sequence[str] = ()) -> PathWatch | None:
    """For those of `changes` that set a frame size on this machine; None: there is none. EnvironmentFault for a host
    that has no address."""
    cards = {
        change.path.split("/")[-2]: int(value_of(change.after or b"0"))
        for change in changes
        if change.kind == "attribute" and change.path.startswith("/sys/") and change.path.endswith("/mtu")
    }
    live = sys.kind == "live" and str(getattr(sys, "root", "/")) == "/"
    if not cards or not live:
        return None
    return PathWatch(sys, cards, tuple(hosts), addresses={host: resolved(host) for host in hosts})


def hosts_behind(sys: Sys, card: str) -> list[str]:
    """Routers that the card leads to, then neighbours that were heard of lately."""
    routers = [_dotted(row[2]) for row in _routes(sys) if row[0] == card and row[2] != "00000000"]
    table = [line.split() for line in (text(sys, "/proc/net/arp") or "").splitlines()[1:]]
    heard = [row[0] for row in table if len(row) > 5 and row[5] == card and int(row[2], 16) & 2]
    return list(dict.fromkeys([*routers, *heard]))


def on_link(sys: Sys, card: str, address: str) -> bool:
    """Whether packets go to it with no router in between."""
    (number,) = struct.unpack("=I", socket.inet_aton(address))
    return any(
        row[0] == card and row[2] == "00000000" and int(row[1], 16) and number & int(row[7], 16) == int(row[1], 16)
        for row in _routes(sys)
    )


def _routes(sys: Sys) -> list[list[str]]:
    rows = [line.split() for line in (text(sys, "/proc/net/route") or "").splitlines()[1:]]
    return [row for row in rows if len(row) > 7]


def _dotted(hexadecimal: str) -> str:
    """As /proc/net/route spells addresses: in the byte order of this machine."""
    return socket.inet_ntoa(struct.pack("=I", int(hexadecimal, 16)))
