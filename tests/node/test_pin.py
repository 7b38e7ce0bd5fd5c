from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from redline.errors import EnvironmentFault, Unsupported, UsageError
from redline.node.fake import FakeSys
from redline.node.live import LiveSys
from redline.node.pin import Binding, binding, pin
from tests.node.boxes import plant
from tests.node.gpu_boxes import EIGHT, eight_gpus, one_node

PIN = """
import json, sys
from redline.errors import RedlineError
from redline.node.pin import Binding, pin
cpus, nodes, command = json.loads(sys.argv[1])
try:
    pin(command, Binding(tuple(cpus), tuple(nodes), "test"))
except RedlineError as error:
    print(type(error).__name__, error)
    sys.exit(99)
"""


def pinned(cpus: list[int], nodes: list[int], *command: str) -> subprocess.CompletedProcess[str]:
    argument = json.dumps([cpus, nodes, command])
    return subprocess.run([sys.executable, "-c", PIN, argument], capture_output=True, text=True, check=False)


@pytest.fixture
def box(tmp_path: Path) -> FakeSys:
    return FakeSys(eight_gpus(tmp_path))


def test_the_node_of_one_gpu_of_several_and_of_all(box: FakeSys) -> None:
    assert binding(box, gpus=[0]) == Binding((0, 1, 4, 5), (0,), "node 0 of GPU 0")
    assert binding(box, gpus=[6, 7]) == Binding((2, 3, 6, 7), (1,), "node 1 of GPU 6-7")
    assert binding(box, gpus=range(8)).nodes == (0, 1)


def test_gpus_are_numbered_as_nvml_says(box: FakeSys) -> None:
    assert binding(box, gpus=[0], addresses=EIGHT[::-1]).nodes == (1,)


def test_a_node_cpus_and_cpus_only(box: FakeSys) -> None:
    assert binding(box, nodes=[1]).cpus == (2, 3, 6, 7)
    assert binding(box, cpus=[0, 2]) == Binding((0, 2), (0, 1), "the CPUs 0,2")
    assert binding(box, nodes=[1], cpus_only=True).nodes == ()


def test_what_does_not_exist(box: FakeSys) -> None:
    with pytest.raises(UsageError, match="no GPU 8"):
        binding(box, gpus=[8])
    with pytest.raises(UsageError, match="no node 2"):
        binding(box, nodes=[0, 2])
    with pytest.raises(UsageError, match="what to bind to"):
        binding(box)
    with pytest.raises(UsageError, match="what to bind to"):
        binding(box, nodes=[0], cpus=[1])


def test_an_unknown_node_is_refused_with_the_reason(tmp_path: Path) -> None:
    root = eight_gpus(tmp_path)
    plant(root, {"sys/bus/pci/devices/0000:11:00.0/numa_node": "-1\n"})
    with pytest.raises(Unsupported, match="not known") as caught:
        binding(FakeSys(root), gpus=[0])
    assert "numa_node is -1" in caught.value.why
    assert binding(FakeSys(root), gpus=[1]).nodes == (0,)


def test_on_a_box_with_one_node_there_is_no_doubt(tmp_path: Path) -> None:
    assert binding(FakeSys(one_node(tmp_path)), gpus=[1]).nodes == (0,)


def test_a_control_group_that_allows_less(tmp_path: Path) -> None:
    root = eight_gpus(tmp_path)
    plant(root, {"proc/self/status": "Cpus_allowed_list:\t0-2\nMems_allowed_list:\t0\n"})
    sys_ = FakeSys(root)
    assert binding(sys_, nodes=[0]).cpus == (0, 1)
    with pytest.raises(Unsupported, match="memory of node 1"):
        binding(sys_, nodes=[1])
    assert binding(sys_, nodes=[1], cpus_only=True).cpus == (2,)
    plant(root, {"proc/self/status": "Cpus_allowed_list:\t0-1\nMems_allowed_list:\t0-1\n"})
    with pytest.raises(Unsupported, match="none of the CPUs"):
        binding(sys_, nodes=[1])


def test_the_child_runs_on_these_cpus_and_on_this_nodes_memory() -> None:
    cpu = max(os.sched_getaffinity(0))
    to = binding(LiveSys(), cpus=[cpu])
    done = pinned([cpu], list(to.nodes), "cat", "/proc/self/status", "/proc/self/numa_maps")
    if "cannot be bound" in done.stdout:
        pytest.skip(f"memory policies are not permitted here: {done.stdout}")
    assert f"Cpus_allowed_list:\t{cpu}\n" in done.stdout
    policies = {line.split()[1] for line in done.stdout.splitlines() if " mapped=" in line or " anon=" in line}
    assert policies == {f"bind:{to.nodes[0]}"}


def test_cpus_only_leaves_the_memory_policy() -> None:
    cpu = min(os.sched_getaffinity(0))
    done = pinned([cpu], [], "cat", "/proc/self/status", "/proc/self/numa_maps")
    assert f"Cpus_allowed_list:\t{cpu}\n" in done.stdout
    assert " default " in done.stdout
    assert "bind:" not in done.stdout


def test_the_exit_code_is_the_commands() -> None:
    assert pinned([min(os.sched_getaffinity(0))], [], "sh", "-c", "exit 37").returncode == 37


def test_a_node_without_memory_is_told_by_the_kernel() -> None:
    done = pinned(sorted(os.sched_getaffinity(0)), [900], "true")
    assert (done.returncode, "Unsupported memory cannot be bound" in done.stdout) == (99, True)


def test_no_command_and_one_that_does_not_exist() -> None:
    with pytest.raises(UsageError):
        pin([], Binding((0,), (), ""))
    cpus = tuple(os.sched_getaffinity(0))
    with pytest.raises(EnvironmentFault, match="cannot be started"):
        pin(["/no/such/command"], Binding(cpus, (), ""))
