"""NVIDIA's management library, asked politely: whatever it cannot or may not tell is None, never an exception."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from redline.errors import Skipped

# clock event ("throttle") reasons: bit and name, from nvml.h
REASONS = {
    0x1: "idle",
    0x2: "application-clocks",
    0x4: "power-cap",
    0x8: "hardware-slowdown",
    0x10: "sync-boost",
    0x20: "thermal (software)",
    0x40: "thermal (hardware)",
    0x80: "power-brake",
    0x100: "display-clock",
}
SLOWING = 0x4 | 0x8 | 0x20 | 0x40 | 0x80  # these mean: slower than the card could be


@dataclass(frozen=True)
class Nvml:
    """An initialised NVML and the handles of all its GPUs."""

    library: Any
    handles: tuple[Any, ...]

    def ask(self, function: str, *arguments: Any) -> Any:
        """Result of `nvml<function>`; None when this driver or this GPU does not have it, or we may not ask."""
        return _ask(self.library, function, *arguments)


def _ask(library: Any, function: str, *arguments: Any) -> Any:
    try:
        return getattr(library, "nvml" + function)(*arguments)
    except (library.NVMLError, AttributeError):
        return None
    except Exception:  # a driver older or newer than the bindings can make ctypes itself complain
        return None


@contextmanager
def nvml(library: Any = None) -> Iterator[Nvml | Skipped]:
    """NVML, or why there is none. `library` replaces the real `pynvml` in tests."""
    opened = open_nvml(library)
    try:
        yield opened
    finally:
        if isinstance(opened, Nvml):
            close_nvml(opened)


def open_nvml(library: Any = None) -> Nvml | Skipped:
    """Pairs with `close_nvml`; NVML counts how often it was opened."""
    if library is None:
        try:
            import pynvml
        except ImportError:
            return Skipped("nvidia-ml-py is not installed", "pip install nvidia-ml-py")
        library = pynvml
    try:
        library.nvmlInit()
    except library.NVMLError as error:
        return Skipped(*_why(type(error).__name__, str(error)))
    count = _ask(library, "DeviceGetCount") or 0
    handles = tuple(_ask(library, "DeviceGetHandleByIndex", index) for index in range(count))
    found = Nvml(library, tuple(handle for handle in handles if handle is not None))
    if not found.handles:
        close_nvml(found)
        return Skipped("the NVIDIA driver sees no GPU", "check nvidia-smi, or the container's GPU settings")
    return found


def close_nvml(opened: Nvml) -> None:
    opened.ask("Shutdown")


def _why(kind: str, message: str) -> tuple[str, str]:
    if kind.endswith("LibraryNotFound"):
        return "no NVIDIA driver on this box", "a box with an NVIDIA GPU and its driver; in a container: --gpus all"
    if kind.endswith("DriverNotLoaded"):
        return "the NVIDIA driver is installed but not loaded", "modprobe nvidia, or a reboot after its installation"
    if kind.endswith("LibRmVersionMismatch"):
        return "the NVIDIA driver was updated under the running kernel module", "a reboot, or reload of the module"
    return f"NVML does not start: {message}", "check nvidia-smi"


def reason_names(bits: int | None) -> list[str]:
    """Names of the clock event reasons in `bits`."""
    return [name for bit, name in REASONS.items() if (bits or 0) & bit]


def clock_reasons(opened: Nvml, handle: Any) -> int | None:
    """Why the clock is where it is, as bits; drivers before 535 know the function by its old name only."""
    for name in ("DeviceGetCurrentClocksEventReasons", "DeviceGetCurrentClocksThrottleReasons"):
        bits = opened.ask(name, handle)
        if bits is not None:
            return int(bits)
    return None


def process_memory(opened: Nvml, handle: Any) -> dict[int, int | None]:
    """Device memory in bytes of every compute process that NVML shows, by pid; None where it hides the amount."""
    found: dict[int, int | None] = {}
    for kind in ("Compute", "Graphics"):
        for process in opened.ask(f"DeviceGet{kind}RunningProcesses", handle) or ():
            found[process.pid] = process.usedGpuMemory
    return found
