from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import orjson
import pytest

from redline.node import facts as module
from redline.node.facts import facts
from redline.node.tree import is_skipped
from tests.node.boxes import FakeNvml, two_sockets


def test_a_recorded_box_as_json_without_its_name(tmp_path: Path) -> None:
    found = facts(two_sockets(tmp_path), nvml_library=FakeNvml())
    text = orjson.dumps(found).decode()
    assert "secret-host-name" not in text
    assert "password" not in text
    assert found["cpu"]["sockets"] == 2
    assert found["gpu"]["devices"][0]["name"] == "NVIDIA H200"
    assert found["python"]["version"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert found["taken_wall"].endswith("Z")


def test_a_probe_that_breaks_is_on_record_and_stops_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("an odd box")

    monkeypatch.setattr(module, "cpu_facts", broken)
    found = facts(two_sockets(tmp_path), nvml_library=FakeNvml())
    assert found["cpu"]["skipped"] == "the probe failed: ValueError: an odd box"
    assert found["memory"]["total_bytes"] > 0


def test_an_empty_root_is_a_box_that_tells_nothing(tmp_path: Path) -> None:
    found = facts(tmp_path, nvml_library=FakeNvml(start=FakeNvml.NVMLError_LibraryNotFound))
    assert is_skipped(found["gpu"])
    assert is_skipped(found["load"]["loadavg"])
    failed = [name for name, value in found.items() if is_skipped(value) and "probe failed" in value["skipped"]]
    assert failed == []


def test_this_box_quickly_and_without_heavy_imports() -> None:
    began = time.monotonic()
    found = facts()
    assert time.monotonic() - began < 2  # takes 0.03 s without a GPU
    assert found["cpu"]["usable_cores"] >= 1
    script = "import sys; from redline.node.facts import facts; facts(); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
