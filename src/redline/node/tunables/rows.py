"""Short ways to write a row that is like many others."""

from __future__ import annotations

from typing import Any

from redline.node.tunables.find import Finder, one, word
from redline.node.tunables.tunable import PROFILES, Op, Profile, Source, Tunable, Want


def want(op: Op, *values: str | int) -> Want:
    return Want(op, tuple(map(str, values)))


def everywhere(op: Op, *values: str | int) -> dict[Profile, Want | None]:
    """The same for every profile."""
    return dict.fromkeys(PROFILES, want(op, *values))


def only_for(*profiles: Profile, op: Op, values: tuple[str | int, ...]) -> dict[Profile, Want | None]:
    """For some profiles; the others leave the setting as it is."""
    return {profile: want(op, *values) if profile in profiles else None for profile in PROFILES}


def sysctl(key: str, title: str, wants: dict[Profile, Want | None], *sources: Source, **more: Any) -> Tunable:
    """A row for a sysctl: its id is its name, TuneD writes it, too."""
    path = "/proc/sys/" + key.replace(".", "/")
    settings: dict[str, Any] = {
        "id": key,
        "scope": "host",
        "places": one(path),
        "read": word,
        "persist": "sysctl",
        "persist_key": key,
        "owners": ("tuned",),
        "absent": "this kernel does not have it",
        **more,
    }
    return Tunable(title=title, wants=wants, sources=sources, **settings)


def sysfs(
    id_: str, title: str, places: Finder, wants: dict[Profile, Want | None], *sources: Source, **more: Any
) -> Tunable:
    """A row for a file of /sys that has one place for good, so that a line of systemd-tmpfiles keeps it."""
    settings: dict[str, Any] = {"scope": "host", "read": word, "persist": "tmpfiles", **more}
    return Tunable(id=id_, title=title, places=places, wants=wants, sources=sources, **settings)


def advice(id_: str, title: str, wants: dict[Profile, Want | None], *sources: Source, **more: Any) -> Tunable:
    """A row that redline reads and judges, and does not write."""
    settings: dict[str, Any] = {"id": id_, "scope": "host", "write": "none", **more}
    return Tunable(title=title, wants=wants, sources=sources, **settings)


def kernel_doc(page: str, date: str = "2026-11") -> Source:
    """A page of the kernel's own documentation."""
    return Source("kernel", f"Documentation/{page}", date)


def tuned(profile: str) -> Source:
    return Source("tool", f"TuneD 2.28 profile {profile}", "2026-08")


GRACE = Source("vendor", "NVIDIA Grace performance tuning guide", "2026-11")
VLLM_CPU = Source("vendor", "vLLM docs, configuration/optimization.md: CPU resources", "2026-11")
