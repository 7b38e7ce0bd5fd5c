"""Memory, faults, swap and the page cache: /proc/meminfo and /proc/vmstat."""

from __future__ import annotations

from redline.observe.reading import Kept, Rates, Reading

_VMSTAT = {
    "pswpin": "host.swap_in_per_s",
    "pswpout": "host.swap_out_per_s",
    "pgfault": "host.faults_per_s",
    "pgmajfault": "host.major_faults_per_s",
    "compact_stall": "host.compaction_stalls_per_s",
}


class Memory:
    def __init__(self, files: Kept) -> None:
        self._files = files
        self._rates = Rates()

    def read(self, into: Reading) -> None:
        known: dict[str, int] = {}
        for line in self._files.read("meminfo").splitlines():
            name, _, rest = line.partition(":")
            words = rest.split(None, 1)
            if words and words[0].isdigit():
                known[name] = int(words[0]) * 1024
        into.put("host.memory_available_bytes", known.get("MemAvailable"))
        if "Cached" in known:
            into.put("host.page_cache_bytes", known["Cached"] + known.get("Buffers", 0))
        into.put("host.dirty_bytes", known.get("Dirty"))
        if "SwapTotal" in known:
            into.put("host.swap_used_bytes", known["SwapTotal"] - known.get("SwapFree", 0))
        self._vmstat(into)

    def _vmstat(self, into: Reading) -> None:
        reclaims = None
        for line in self._files.read("vmstat").splitlines():
            name, _, value = line.partition(" ")
            if name in _VMSTAT:
                into.put(_VMSTAT[name], self._rates.per_s(name, into.t_ns, int(value)))
            elif name.startswith("allocstall"):
                reclaims = (reclaims or 0) + int(value)
        into.put("host.direct_reclaims_per_s", self._rates.per_s("reclaim", into.t_ns, reclaims))
