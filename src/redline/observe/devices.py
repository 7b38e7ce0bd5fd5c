"""Disks, network interfaces and soft interrupts: /proc/diskstats, /proc/net and /proc/softirqs."""

from __future__ import annotations

import re
from pathlib import Path

from redline.observe.reading import Kept, Rates, Reading

_SECTOR = 512
_VIRTUAL = re.compile(r"(loop|ram|zram|sr|fd)\d")
_IRQ_KINDS = ("TIMER", "NET_TX", "NET_RX", "BLOCK", "SCHED", "RCU")


class Devices:
    """`blocks` is where whole disks can be told from their partitions."""

    def __init__(self, files: Kept, blocks: Path = Path("/sys/block")) -> None:
        self._files = files
        self._blocks = blocks
        self._rates = Rates()
        self._labels: dict[tuple[str, str], dict[str, str]] = {}
        self._disks: dict[str, bool] = {}

    def read(self, into: Reading) -> None:
        self._read_disks(into)
        self._network(into)
        self._tcp(into)
        self._softirqs(into)

    def _label(self, kind: str, value: str) -> dict[str, str]:
        return self._labels.setdefault((kind, value), {kind: value})

    def _is_disk(self, name: str) -> bool:
        known = self._disks.get(name)
        if known is None:
            known = self._disks[name] = not _VIRTUAL.match(name) and (self._blocks / name).exists()
        return known

    def _read_disks(self, into: Reading) -> None:
        for line in self._files.read("diskstats").splitlines():
            words = line.split(None, 13)
            if len(words) < 13 or not self._is_disk(words[2]):
                continue
            name, t_ns, labels = words[2], into.t_ns, self._label("disk", words[2])
            read = self._rates.per_s((name, "read"), t_ns, int(words[5]), _SECTOR)
            written = self._rates.per_s((name, "written"), t_ns, int(words[9]), _SECTOR)
            busy = self._rates.per_s((name, "busy"), t_ns, int(words[12]), 1e-3)
            into.put("host.disk_read_bytes_per_s", read, labels)
            into.put("host.disk_written_bytes_per_s", written, labels)
            into.put("host.disk_busy_share", None if busy is None else min(busy, 1.0), labels)

    def _network(self, into: Reading) -> None:
        for line in self._files.read("net/dev").splitlines()[2:]:
            name, _, rest = line.partition(":")
            name, words = name.strip(), rest.split()
            if len(words) < 12 or (words[0] == "0" and words[8] == "0"):
                continue  # never used
            labels, t_ns = self._label("interface", name), into.t_ns
            lost = sum(int(words[place]) for place in (2, 3, 10, 11))
            into.put("host.network_rx_bytes_per_s", self._rates.per_s((name, "rx"), t_ns, int(words[0])), labels)
            into.put("host.network_tx_bytes_per_s", self._rates.per_s((name, "tx"), t_ns, int(words[8])), labels)
            into.put("host.network_drops_per_s", self._rates.per_s((name, "lost"), t_ns, lost), labels)

    def _tcp(self, into: Reading) -> None:
        lines = [line.split() for line in self._files.read("net/snmp").splitlines() if line.startswith("Tcp:")]
        if len(lines) == 2:
            known = dict(zip(*lines, strict=False))
            again = self._rates.per_s("retransmits", into.t_ns, int(known.get("RetransSegs", 0)))
            into.put("host.tcp_retransmits_per_s", again)

    def _softirqs(self, into: Reading) -> None:
        for line in self._files.read("softirqs").splitlines()[1:]:
            kind, _, rest = line.partition(":")
            kind = kind.strip()
            if kind in _IRQ_KINDS:
                rate = self._rates.per_s(("softirq", kind), into.t_ns, sum(map(int, rest.split())))
                into.put("host.softirqs_per_s", rate, self._label("kind", kind))
