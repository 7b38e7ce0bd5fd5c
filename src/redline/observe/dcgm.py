"""What DCGM tells, where it is there: from a dcgm-exporter on this box, else from `dcgmi dmon`.

Values are kept under their field's name as `dcgm.NAME`, labelled `gpu` (and `mig`): DCGM's profiling fields are shares
of the time, 0 to 1.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
from contextlib import suppress

from redline.clock import now_ns
from redline.engines.http import try_fetch
from redline.errors import Skipped
from redline.observe.prometheus import Page, parse
from redline.observe.sample import Sample

EXPORTER = "http://127.0.0.1:9400/metrics"
PROBE_S = 0.5
MAX_SAMPLES = 400
FIELDS = {
    1001: "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
    1002: "DCGM_FI_PROF_SM_ACTIVE",
    1003: "DCGM_FI_PROF_SM_OCCUPANCY",
    1004: "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
    1005: "DCGM_FI_PROF_DRAM_ACTIVE",
    1009: "DCGM_FI_PROF_PCIE_TX_BYTES",
    1010: "DCGM_FI_PROF_PCIE_RX_BYTES",
    1011: "DCGM_FI_PROF_NVLINK_TX_BYTES",
    1012: "DCGM_FI_PROF_NVLINK_RX_BYTES",
}
_LABELS = {"gpu": "gpu", "GPU_I_ID": "mig"}


class ExporterSampler:
    """One scrape a tick; the exporter itself looks at the GPUs at its own pace (30 s unless told otherwise)."""

    name = "dcgm"

    def __init__(self, url: str) -> None:
        self._url = url
        self._failed = 0
        self.notes: list[str] = []

    def read(self) -> list[Sample]:
        reply = try_fetch(self._url, headers={"Accept": "text/plain"}, timeout_s=2.0)
        if reply is None or not reply.ok:
            self._failed += 1
            if self._failed == 3:
                self.notes.append(f"dcgm: {self._url} does not answer any more")
            return []
        self._failed = 0
        return exported(parse(reply.text), now_ns())

    def close(self) -> None:
        """Nothing is held open."""


def exported(page: Page, t_ns: int) -> list[Sample]:
    """The fields of DCGM on an exporter's page."""
    found = []
    for one in page.series:
        if one.name.startswith("DCGM_FI_"):
            labels = {ours: value for theirs, ours in _LABELS.items() if (value := one.label(theirs))}
            found.append(Sample(t_ns, f"dcgm.{one.name}", one.value, unit(one.name), labels))
    return found[:MAX_SAMPLES]


class DcgmiSampler:
    """`dcgmi dmon` runs beside us and writes a line per GPU and second."""

    name = "dcgm"

    def __init__(self, command: str) -> None:
        fields = ",".join(map(str, FIELDS))
        words = [command, "dmon", "-e", fields, "-d", "1000"]
        self._process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True
        )
        self._lines: list[tuple[int, str]] = []
        self._ended = False
        self.notes: list[str] = []
        self._thread = threading.Thread(target=self._listen, name="redline-dcgmi", daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.append((now_ns(), line))
        self._ended = True

    def read(self) -> list[Sample]:
        lines, self._lines = self._lines, []
        if self._ended and self._process.poll() is not None:
            self._ended = False
            said = " ".join(line.strip() for _, line in lines if not line.startswith(("#", "GPU")))[-200:]
            self.notes.append(f"dcgm: dcgmi dmon ended with {self._process.returncode}: {said}")
        return [sample for t_ns, line in lines for sample in monitored(line, t_ns)]

    def close(self) -> None:
        self._process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(2)
        self._process.kill()
        self._process.wait()
        self._thread.join(2)
        if self._process.stdout is not None:
            self._process.stdout.close()


def monitored(line: str, t_ns: int) -> list[Sample]:
    """One line of `dcgmi dmon`: `GPU 0   0.998  0.412  N/A …`; nothing of heads and of MIG instances."""
    words = line.split()
    if len(words) != 2 + len(FIELDS) or words[0] != "GPU" or not words[1].isdigit():
        return []
    found = []
    for name, word in zip(FIELDS.values(), words[2:], strict=True):
        with suppress(ValueError):  # N/A: not on this card
            found.append(Sample(t_ns, f"dcgm.{name}", float(word), unit(name), {"gpu": words[1]}))
    return found


def unit(name: str) -> str:
    """Of a field, by its name."""
    if name.endswith("_BYTES"):
        return "B/s"
    endings = {"_ACTIVE": "share", "_OCCUPANCY": "share", "_CLOCK": "MHz", "_TEMP": "°C", "POWER_USAGE": "W"}
    return next((unit for ending, unit in endings.items() if name.endswith(ending)), "")


def open_dcgm(url: str = EXPORTER) -> ExporterSampler | DcgmiSampler | Skipped:
    """Skipped where there is neither; DCGM is not needed where NVML tells the same (GPM, Hopper and later)."""
    reply = try_fetch(url, headers={"Accept": "text/plain"}, timeout_s=PROBE_S)
    if reply is not None and reply.ok and "DCGM_FI_" in reply.text:
        return ExporterSampler(url)
    if command := shutil.which("dcgmi"):
        return DcgmiSampler(command)
    return Skipped("no DCGM on this box", f"apt install datacenter-gpu-manager, or dcgm-exporter at {url}")
