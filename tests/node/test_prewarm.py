from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault, UsageError
from redline.node import prewarm as module
from redline.node.prewarm import cannot_fit, prewarm, read_through
from redline.node.residency import drop
from tests.node.boxes import plant

MB = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Two shards, of which one ends in the middle of a block, none of it in the page cache."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    for name, size in (("model-1.safetensors", 20 * MB + 7), ("model-2.safetensors", 3 * MB)):
        (folder / name).write_bytes(os.urandom(size))
        if drop(folder / name) != 0:
            pytest.skip("this filesystem keeps its files in the page cache alone (tmpfs)")
    return folder


def test_all_of_it_is_resident_afterwards(model: Path) -> None:
    seen: list[tuple[int, int]] = []
    done = prewarm(model, workers=3, progress=lambda read, total: seen.append((read, total)))
    size = 23 * MB + 7 + 2
    assert (done.size, done.read, done.resident, done.share) == (size, size, size, 1.0)
    assert [file.before for file in done.files[1:]] == [0, 0]
    assert [file.name for file in done.files] == ["config.json", "model-1.safetensors", "model-2.safetensors"]
    assert seen[-1] == (size, size)
    assert done.as_dict()["gb_per_s"] > 0


def test_large_files_are_read_in_spans(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SPAN", MB)
    monkeypatch.setattr(module, "BLOCK", MB // 2)
    assert prewarm(model, workers=4).share == 1.0


def box(root: Path, available: int, limit: int | None = None, used: int = 0) -> Path:
    files = {"proc/meminfo": f"MemTotal: {8 << 20} kB\nMemAvailable: {available >> 10} kB\n"}
    if limit is not None:
        group = "sys/fs/cgroup/infer.slice"
        files |= {"proc/self/cgroup": "0::/infer.slice\n", f"{group}/memory.max": f"{limit}\n"}
        files |= {f"{group}/memory.current": f"{used}\n", f"{group}/memory.stat": "inactive_file 0\n"}
    return plant(root, files)


def test_what_does_not_fit_into_memory_is_refused_unless_forced(model: Path, tmp_path: Path) -> None:
    root = box(tmp_path / "box", 20 * MB)
    with pytest.raises(EnvironmentFault, match="does not fit") as caught:
        prewarm(model, root=root)
    assert "0.02 GB of memory can be had" in caught.value.why
    assert prewarm(model, root=root, force=True).share == 1.0


def test_the_limit_counts_only_what_is_still_to_be_read(tmp_path: Path) -> None:
    root = box(tmp_path, 4000 * MB, limit=1000 * MB, used=600 * MB)
    assert "control group" in cannot_fit(500 * MB, 0, root)
    assert cannot_fit(500 * MB, 200 * MB, root) == ""
    assert "of memory can be had" in cannot_fit(4000 * MB, 4000 * MB, root)
    assert cannot_fit(3000 * MB, 0, box(tmp_path / "unlimited", 4000 * MB)) == ""


def test_a_number_of_workers_that_makes_no_sense(model: Path) -> None:
    with pytest.raises(UsageError):
        prewarm(model, workers=-1)


def test_a_file_that_becomes_shorter_is_a_fault_and_no_endless_loop(model: Path) -> None:
    path = model / "model-2.safetensors"
    with pytest.raises(EnvironmentFault, match="became shorter"):
        read_through([(path, 4 * MB)], 2)


def test_a_file_that_may_not_be_read(model: Path) -> None:
    with pytest.raises(EnvironmentFault, match="cannot be read"):
        read_through([(model / "nothing", MB)], 2)


def test_ctrl_c_ends_it_and_tells_how_far_it_got(model: Path, tmp_path: Path) -> None:
    """A reader that never gets on stands for a slow mount."""
    script = (
        "import json, sys, time\n"
        "from pathlib import Path\n"
        "from redline.node import prewarm as module\n"
        "def slow(self, path, start, end, buffer):\n"
        "    Path(sys.argv[2]).touch()\n"
        "    while not self.stop.wait(0.01): pass\n"
        "module._Reading._span = slow\n"
        "done = module.prewarm(Path(sys.argv[1]), workers=2)\n"
        "print(done.interrupted, done.read)\n"
    )
    mark = tmp_path / "started"
    with subprocess.Popen(
        [sys.executable, "-c", script, str(model), str(mark)], stdout=subprocess.PIPE, text=True
    ) as child:
        while not mark.exists() and child.poll() is None:
            time.sleep(0.01)
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=30)
    assert out.split() == ["True", "0"]
