"""Which distribution this is, as far as it decides where a setting is kept."""

from __future__ import annotations

from typing import Literal

from redline.node.sys import Sys, text
from redline.node.tree import fields

Family = Literal["debian", "rhel", "other"]


def family(sys: Sys) -> Family:
    """By /etc/os-release: `ID`, then `ID_LIKE`."""
    release = fields(text(sys, "/etc/os-release"), "=")
    words = " ".join(release.get(name, "") for name in ("ID", "ID_LIKE")).replace('"', "").split()
    if {"debian", "ubuntu"} & set(words):
        return "debian"
    if {"rhel", "fedora", "centos", "rocky", "almalinux", "ol", "amzn"} & set(words):
        return "rhel"
    return "other"


def first_that_exists(sys: Sys, *paths: str) -> str:
    """'' when none does."""
    return next((path for path in paths if sys.exists(path)), "")


def program(sys: Sys, name: str) -> str:
    """Where a program lies; '' when it is not installed."""
    return first_that_exists(sys, *(f"{folder}/{name}" for folder in ("/usr/sbin", "/usr/bin", "/sbin", "/bin")))
