"""Asks NVML ten times a second: what is not supported or not allowed is said once and never asked again."""

from __future__ import annotations

from typing import Any

FINAL = {3: "not supported", 4: "no permission", 13: "unknown to this driver", 2: "not for this device", 26: "gone"}
"""NVML's return codes that will not change while the driver is loaded. Others (a lost GPU, a time-out) may."""
TRIES = 3


class Asking:
    """One device. `notes` gets what it does not tell, in words."""

    def __init__(self, library: Any, who: str, notes: list[str]) -> None:
        self._library = library
        self._who = who
        self._notes = notes
        self._mute: set[object] = set()
        self._odd: dict[object, int] = {}

    def __call__(self, function: str, *arguments: Any, quietly: bool = False) -> Any:
        """Result of `nvml<function>`; None when there is none."""
        key = (function, *(one for one in arguments[1:] if isinstance(one, int)))
        if key in self._mute:
            return None
        try:
            return getattr(self._library, "nvml" + function)(*arguments)
        except Exception as error:
            self._failed(key, function, error, quietly)
            return None

    def field(self, handle: Any, number: int, what: str, quietly: bool = False) -> float | None:
        """One of NVML's field values, as a number."""
        key = ("field", number)
        if key in self._mute:
            return None
        try:
            value = self._library.nvmlDeviceGetFieldValues(handle, [number])[0]
        except Exception as error:
            self._failed(key, what, error, quietly)
            return None
        if value.nvmlReturn:
            self._silence(key, what, FINAL.get(value.nvmlReturn, f"error {value.nvmlReturn}"), quietly)
            return None
        return float(getattr(value.value, _MEMBERS.get(value.valueType, "ullVal")))

    def _failed(self, key: object, what: str, error: Exception, quietly: bool) -> None:
        code = getattr(error, "value", None)
        if code in FINAL or isinstance(error, AttributeError):
            self._silence(key, what, FINAL.get(code or 13, ""), quietly)
            return
        # bindings older or newer than the driver can make ctypes itself complain; a lost GPU may come back
        self._odd[key] = self._odd.get(key, 0) + 1
        if self._odd[key] == 1 and not quietly:
            self._notes.append(f"{self._who}: {_words(what)}: {error}")
        if not hasattr(error, "value") and self._odd[key] >= TRIES:
            self._mute.add(key)

    def _silence(self, key: object, what: str, why: str, quietly: bool) -> None:
        self._mute.add(key)
        if not quietly:
            self._notes.append(f"{self._who} does not tell its {_words(what)}: {why}")


_MEMBERS = {0: "dVal", 1: "uiVal", 2: "ulVal", 3: "ullVal", 4: "sllVal", 5: "siVal", 6: "usVal"}


def _words(function: str) -> str:
    """`DeviceGetPowerUsage` → `PowerUsage`."""
    return function.removeprefix("Device").removeprefix("Get")
