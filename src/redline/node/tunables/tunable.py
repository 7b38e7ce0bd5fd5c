"""One row of the table of settings: what it is, how it is read, what it should be, when that helps, how it is undone.

A row is data and small pure functions over a `Sys`. Rows never write: `plan` turns them into `Change`s, `apply` writes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from redline.node.sys import Sys

Profile = Literal["latency", "throughput", "shared", "vm"]
PROFILES: tuple[Profile, ...] = ("latency", "throughput", "shared", "vm")
Scope = Literal["host", "cpu", "device", "netns", "unit", "pid"]
State = Literal["ok", "drift", "inert", "blocked", "not applicable", "overridden", "unknown"]
Severity = Literal["info", "low", "medium", "high"]
Op = Literal["equals", "at least", "at most", "one of", "contains", "within"]
"""`within`: a list of CPUs that lies inside of the wanted one."""
AT_START = "at start"
"""Tag of a row whose value a process takes when it starts, allocates or listens: one that runs does not feel it."""
Persist = Literal["sysctl", "tmpfiles", "udev", "cmdline", "module", "unit", "nic", "limits", "none"]


@dataclass(frozen=True)
class Place:
    """One instance of a setting: a cpufreq policy, a disk, a node. `name` '' where there is only one."""

    path: str
    name: str = ""


@dataclass(frozen=True)
class Want:
    """`values` has one entry, or several for `one of` (the first is what is written)."""

    op: Op
    values: tuple[str, ...]

    @property
    def written(self) -> str:
        return self.values[0]


@dataclass(frozen=True)
class Source:
    """Where a claim comes from. `date` as YYYY-MM: of the version named, else of when it was read."""

    kind: Literal["kernel", "vendor", "measured", "issue", "tool"]
    ref: str
    date: str


Reader = Callable[[Sys, Place], str]
"""The present value in the words that `Want` uses (the bracketed word of a choice, a number). May raise SysFault."""
Reason = Callable[[Sys, Place], str]
"""'' for yes, else why not, in one sentence."""
Fit = Callable[[Sys, Place, "Want"], "Want | None"]
"""What a profile wants, as it is on this box (so many pages, the CPUs of that node); None: nothing."""


def always(_sys: Sys, _place: Place) -> str:
    return ""


def as_is(_sys: Sys, _place: Place, want: Want) -> Want | None:
    return want


@dataclass(frozen=True)
class Tunable:
    """`places` finds the instances on a box ([]: not applicable, `absent` says why). `write` None: redline only advises
    (firmware, hardware, things that a person must decide); `advice` then says what to do.

    `coupled` names ids whose value the kernel changes together with this one: they are saved and restored as one.
    `effective`: why a right value can have no effect here ('' when it has). `owners`: daemons that write this value,
    too.
    """

    id: str
    title: str
    group: Literal["cpu", "numa", "irq", "memory", "storage", "network", "gpu", "pcie", "limits", "boot"]
    scope: Scope
    places: Callable[[Sys], Sequence[Place]]
    read: Reader
    wants: Mapping[Profile, Want | None]
    sources: tuple[Source, ...]
    absent: str = "this box does not have it"
    applies: Reason = always
    effective: Reason = always
    fit: Fit = as_is
    unwritable: Reason = always
    """Why this box refuses the write although the file is there (a kernel-managed interrupt, a missing capability)."""
    write: Literal["attribute", "none"] = "attribute"
    advice: str = ""
    persist: Persist = "none"
    persist_key: str = ""
    """The sysctl's name, the boot parameter, the udev attribute: what the persistent form calls it."""
    coupled: tuple[str, ...] = ()
    owners: tuple[str, ...] = ()
    needs_reboot: bool = False
    risk: Literal[0, 1, 2, 3] = 0
    """0 none · 1 costs power or memory · 2 may slow something else · 3 may cut off the network or the boot."""
    severity: Severity = "low"
    effect: str = ""
    """What is expected of it, in a sentence with numbers where a source has some."""
    signal: str = ""
    """The mechanism's own signal that `prove` reads: `run_queue_ms`, `remote_pages`, `listen_overflows`, …"""
    tags: frozenset[str] = field(default_factory=frozenset)
