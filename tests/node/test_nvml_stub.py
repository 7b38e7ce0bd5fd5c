"""A library in C stands for the driver's, so that the real nvidia-ml-py is what asks it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.node.gpu_boxes import eight_gpus

ASK = """
import json, sys
from pathlib import Path
from redline.node.box import node_facts
from redline.node.fake import FakeSys
from redline.node.gpu import gpu_addresses
from redline.node.pin import binding
from redline.node.snapshot import replayed, snapshot
import pynvml

box = FakeSys(Path(sys.argv[1]))
archive = snapshot(box, Path(sys.argv[2]), pynvml)
with replayed(archive) as copy:
    again = node_facts(copy)
bound = {gpu: binding(box, gpus=[gpu], addresses=gpu_addresses()).as_dict() for gpu in (0, 7)}
print(json.dumps({"facts": node_facts(box, pynvml), "again": again, "bound": bound}, default=str))
"""


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler: apt install gcc")
    folder = tmp_path_factory.mktemp("stub")
    library = folder / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run([compiler, "-shared", "-fPIC", "-w", "-o", str(library), str(source)], check=True)
    root = eight_gpus(folder / "box")
    done = subprocess.run(
        [sys.executable, "-c", ASK, str(root), str(folder / "box.tar.gz")],
        env={**os.environ, "LD_LIBRARY_PATH": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_eight_gpus_on_two_nodes(answer: dict[str, Any]) -> None:
    facts = answer["facts"]
    assert (facts["gpu"]["driver"], facts["gpu"]["cuda"], len(facts["gpu"]["devices"])) == ("580.95.05", "13.0", 8)
    gpus = {device["index"]: device for device in facts["devices"] if device["kind"] == "gpu"}
    assert [gpus[index]["node"] for index in range(8)] == [0, 0, 0, 0, 1, 1, 1, 1]
    assert [gpu["index"] for gpu in gpus.values() if gpu["narrow"]] == [5]
    assert facts["nodes"][1]["gpu"] == ["GPU 4", "GPU 5", "GPU 6", "GPU 7"]


def test_what_nvml_says_of_a_card(answer: dict[str, Any]) -> None:
    cards = answer["facts"]["gpu"]["devices"]
    assert cards[0]["pci_address"] == "0000:11:00.0"
    assert cards[0]["memory_bytes"] == 150_754_820_096
    assert (cards[0]["nvlinks"], cards[0]["nvlink_version"], cards[0]["nvlink_to"]) == (18, 4, "nvswitch")
    assert [card["pcie"]["width"] for card in cards] == [16, 16, 16, 16, 16, 8, 16, 16]
    assert [card["mig"] for card in cards] == [False] * 7 + [True]
    assert [card["clock_event_reasons"] for card in cards[1:4]] == [["idle"], ["thermal (hardware)"], ["idle"]]
    assert cards[0]["power"]["now_w"] is None  # the stub lacks the function, as an old driver would


def test_the_node_to_pin_to_comes_from_nvml_and_pci_together(answer: dict[str, Any]) -> None:
    assert answer["bound"]["0"] == {"cpus": "0-1,4-5", "nodes": [0], "because": "node 0 of GPU 0"}
    assert answer["bound"]["7"] == {"cpus": "2-3,6-7", "nodes": [1], "because": "node 1 of GPU 7"}


def test_a_snapshot_keeps_what_nvml_said_and_no_ids(answer: dict[str, Any]) -> None:
    assert answer["again"]["gpu"] == answer["facts"]["gpu"]
    assert "deadbeef" not in json.dumps(answer)
    assert "165292300" not in json.dumps(answer)
