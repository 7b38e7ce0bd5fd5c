"""Container runtimes, NVIDIA's toolkit, the CDI specifications that name the GPUs, and the persistence daemon."""

from __future__ import annotations

import json
import re
from typing import Any

import yaml

from redline.node.software import said
from redline.node.sys import Sys, text
from redline.node.tree import Fact, skipped

COMMANDS = {
    "docker": ("docker", "--version"),
    "podman": ("podman", "--version"),
    "containerd": ("containerd", "--version"),
    "nvidia_toolkit": ("nvidia-ctk", "--version"),
}
DOCKER_CONFIG = "/etc/docker/daemon.json"
TOOLKIT_CONFIG = "/etc/nvidia-container-runtime/config.toml"
CDI = ("/etc/cdi/*.yaml", "/etc/cdi/*.json", "/var/run/cdi/*.yaml", "/var/run/cdi/*.json")
PERSISTENCED = ("/run/nvidia-persistenced/socket", "/var/run/nvidia-persistenced/socket")
DOCKER_KEYS = ("default-runtime", "exec-opts", "features", "runtimes", "default-ulimits", "default-shm-size")
"""What matters here; the rest (registries, proxies) is nobody's business."""

_HOW = {
    "docker": "apt install docker.io | docs.docker.com/engine/install",
    "podman": "apt|dnf install podman",
    "containerd": "comes with docker; apt install containerd",
    "nvidia_toolkit": "GPUs in containers need it: apt|dnf install nvidia-container-toolkit (NVIDIA's repository)",
}


def container_facts(sys: Sys, driver: str | None) -> Fact:
    """Versions of the tools, what the configuration says, and per CDI file its devices and whether it is `stale`."""
    return {
        **{name: _version(sys, name) for name in COMMANDS},
        "docker_config": _docker_config(sys),
        "toolkit_mode": _toolkit_mode(sys),
        "cdi": _cdi(sys, driver),
        "persistence_daemon": any(sys.exists(path) for path in PERSISTENCED),
    }


def _version(sys: Sys, name: str) -> Fact:
    answer = said(sys, COMMANDS[name])
    found = re.search(r"\bv?(\d+\.\d+[\w.+~-]*)", answer.out)
    return {"version": found[1].rstrip(".,")} if found and answer.rc == 0 else skipped("not installed", _HOW[name])


def _docker_config(sys: Sys) -> Fact:
    content = text(sys, DOCKER_CONFIG)
    if content is None:
        return skipped(f"no {DOCKER_CONFIG}", "Docker's defaults hold; nvidia-ctk runtime configure writes one")
    try:
        return kept(json.loads(content))
    except (ValueError, AttributeError):
        return skipped(f"{DOCKER_CONFIG} is no JSON", "dockerd --validate says where it is wrong")


def kept(config: dict[str, Any]) -> Fact:
    """Of Docker's configuration the keys of DOCKER_KEYS."""
    return {name: config[name] for name in DOCKER_KEYS if name in config}


def _toolkit_mode(sys: Sys) -> str | Fact:
    mode = re.search(r'^\s*mode\s*=\s*"([\w-]+)"', text(sys, TOOLKIT_CONFIG) or "", re.M)
    how = "nvidia-ctk config --in-place --set nvidia-container-runtime.mode=auto"
    return mode[1] if mode else skipped(f"no mode in {TOOLKIT_CONFIG}", how)


def _cdi(sys: Sys, driver: str | None) -> list[Fact] | Fact:
    seen: dict[str, Fact] = {}
    for pattern in CDI:
        for path in sys.glob(pattern):
            seen.setdefault(path.removeprefix("/var"), _specification(sys, path, driver))
    how = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml, or nvidia-cdi-refresh.service"
    return list(seen.values()) or skipped("no CDI specification in /etc/cdi or /var/run/cdi", how)


def _specification(sys: Sys, path: str, driver: str | None) -> Fact:
    content = text(sys, path) or ""
    try:
        parsed = yaml.safe_load(content)
        devices = [str(device["name"]) for device in parsed["devices"]]
        kind = str(parsed["kind"])
    except (yaml.YAMLError, KeyError, TypeError):
        return {"file": path} | skipped("it cannot be read as a CDI specification", "generate it anew")
    libraries = set(re.findall(r"libcuda\.so\.(\d{3}[\d.]+\d)", content))
    # made for another driver: containers would get libraries that are not there
    stale = bool(driver and libraries and driver not in libraries)
    return {"file": path, "kind": kind, "devices": len(devices), "made_for": sorted(libraries), "stale": stale}
