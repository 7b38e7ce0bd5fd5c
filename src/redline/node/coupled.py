"""Attributes that the kernel changes together, and how a former state of them is brought back.

Writing one of vm.dirty_bytes and vm.dirty_ratio sets the other to 0, and 0 is not a value that may be written to the
bytes: a dump of both, written back line by line, is refused or gives another state. Source: the
kernel's admin-guide/sysctl/vm. Switching transparent huge pages raises vm.min_free_kbytes to what khugepaged wants and
never lowers it again (mm/khugepaged.c); a boot reckons it from the memory that is free then.
"""

from __future__ import annotations

from collections.abc import Mapping

from redline.node.change import value_of

_VM = "/proc/sys/vm/"
RATIO_OF = {f"{_VM}{kind}_bytes": f"{_VM}{kind}_ratio" for kind in ("dirty", "dirty_background")}
"""The attribute that zeroes the other, both ways."""
PARTNERS = {**RATIO_OF, **{ratio: size for size, ratio in RATIO_OF.items()}}


RECKONED = {"/sys/kernel/mm/transparent_hugepage/enabled": f"{_VM}min_free_kbytes"}
"""The attribute that the kernel sets by itself when another is written: another value there is not a third party's."""


def partners(path: str) -> tuple[str, ...]:
    """Attributes that a write to `path` changes, too, on any Linux."""
    return tuple(each[path] for each in (PARTNERS, RECKONED) if path in each)


def zeroed_by_partner(path: str, value: str) -> bool:
    """Whether `value` of `path` can only be had by writing its partner."""
    return path in RATIO_OF and value == "0"


def restoring_writes(before: Mapping[str, bytes]) -> list[tuple[str, bytes]]:
    """Writes, in order, after which all of `before` (path → bytes as once read) holds again."""
    values = {path: value_of(raw) for path, raw in before.items()}
    paired = [path for path in values if PARTNERS.get(path) in values]
    writes = [(path, value) for path, value in values.items() if path not in paired]
    for size in (path for path in paired if path in RATIO_OF):
        ratio = RATIO_OF[size]
        if values[size] != "0":
            writes.append((size, values[size]))
        elif values[ratio] != "0":
            writes.append((ratio, values[ratio]))
        else:
            # only a ratio that changes sets the bytes to 0: over 1 to 0
            writes += [(ratio, "1"), (ratio, "0")]
    return [(path, value.encode("latin-1") or b"\n") for path, value in writes]
