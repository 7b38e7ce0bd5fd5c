"""The NVIDIA stack as it is installed: kernel module, CUDA toolkit, cuDNN, NCCL, TensorRT, fabric manager."""

from __future__ import annotations

import json
import re

from redline.node.sys import Ran, Sys, SysFault, text
from redline.node.tree import Fact, skipped

LIBRARY_FOLDERS = (
    *("/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/local/lib"),
    *("/usr/local/cuda*/lib64", "/usr/local/cuda*/targets/*/lib", "/opt/tensorrt/lib", "/usr/local/tensorrt/lib"),
)
LIBRARIES = {"cudnn": "libcudnn.so", "nccl": "libnccl.so", "tensorrt": "libnvinfer.so"}
COMMANDS = {"nvcc": ("nvcc", "--version"), "fabric_manager": ("nv-fabricmanager", "--version")}
CUDA_VERSION = "/usr/local/cuda/version.json"
MODULE_VERSION = "/proc/driver/nvidia/version"

_HOW = {
    "cudnn": "apt install cudnn9-cuda-12 | dnf install cudnn9-cuda-12 | the wheel that comes with torch",
    "nccl": "apt install libnccl2 | dnf install libnccl | the wheel that comes with torch",
    "tensorrt": "only TensorRT engines need it: pip install tensorrt",
}


def software_facts(sys: Sys, wheels: dict[str, dict[str, str]]) -> Fact:
    """`module`, `cuda_toolkit`, `fabric_manager`, and per library of LIBRARIES every copy found with its place."""
    return {
        "module": _module(sys),
        "cuda_toolkit": _toolkit(sys),
        "fabric_manager": _fabric_manager(sys),
        **{name: _library(sys, name, soname, wheels.get(name, {})) for name, soname in LIBRARIES.items()},
    }


def said(sys: Sys, argv: tuple[str, ...]) -> Ran:
    """A command's answer; one that cannot be run at all looks like one that does not exist."""
    try:
        return sys.run(argv, timeout_s=10.0)
    except SysFault as fault:
        return Ran(argv, 127, "", str(fault))


def _module(sys: Sys) -> Fact:
    """The loaded kernel module: version and whether it is the open one (R560 and later prefer it)."""
    first = (text(sys, MODULE_VERSION) or "").partition("\n")[0]
    version = re.search(r"\b(\d{3}\.\d+(?:\.\d+)?)\b", first)
    if version is None:
        return skipped("the NVIDIA kernel module is not loaded", "install the driver, then modprobe nvidia or reboot")
    return {"version": version[1], "flavor": "open" if "Open Kernel Module" in first else "proprietary"}


def _toolkit(sys: Sys) -> Fact:
    listed = text(sys, CUDA_VERSION)
    if listed:
        try:
            return {"version": str(json.loads(listed)["cuda"]["version"]), "from": CUDA_VERSION}
        except (ValueError, KeyError, TypeError):
            pass
    answer = re.search(r"\bV(\d+\.\d+\.\d+)", said(sys, COMMANDS["nvcc"]).out)
    if answer is None:
        return skipped("no CUDA toolkit (nvcc)", "only building kernels needs it: apt|dnf install cuda-toolkit")
    return {"version": answer[1], "from": "nvcc --version"}


def _fabric_manager(sys: Sys) -> Fact:
    answer = re.search(r"(\d{3}\.\d+(?:\.\d+)?)", said(sys, COMMANDS["fabric_manager"]).out)
    if answer is None:
        how = "boxes with NVSwitch need it, in the driver's own version: apt|dnf install nvidia-fabricmanager"
        return skipped("no fabric manager", how)
    return {"version": answer[1]}


def _library(sys: Sys, name: str, soname: str, wheels: dict[str, str]) -> Fact:
    copies = [{"version": version, "from": f"wheel {wheel}"} for wheel, version in wheels.items()]
    best: dict[str, str] = {}
    for folder in LIBRARY_FOLDERS:
        for path in sys.glob(f"{folder}/{soname}.*"):
            place, _, version = path.rpartition(f"/{soname}.")
            if len(version) > len(best.get(place, "")):  # libnccl.so.2 is a link to libnccl.so.2.27.3
                best[place] = version
    copies += [{"version": version, "from": place} for place, version in sorted(best.items())]
    return {"copies": copies} if copies else skipped(f"no {soname} found", _HOW[name])
