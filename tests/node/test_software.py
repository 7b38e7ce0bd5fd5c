from __future__ import annotations

from pathlib import Path

from redline.node.fake import Box, FakeSys
from redline.node.software import software_facts
from redline.node.tree import is_skipped
from tests.node.boxes import plant


def test_the_stack_as_it_is_installed(tmp_path: Path) -> None:
    libraries = dict.fromkeys(
        (
            "usr/lib/x86_64-linux-gnu/libnccl.so.2", "usr/lib/x86_64-linux-gnu/libnccl.so.2.27.3",
            "usr/local/cuda-12.8/lib64/libcudnn.so.9.8.0",
        ), "",
    )  # fmt: skip
    module = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  570.133.20  Sun\nGCC version: gcc 13.3.0\n"
    plant(tmp_path, libraries | {"proc/driver/nvidia/version": module})
    plant(tmp_path, {"usr/local/cuda/version.json": '{"cuda": {"name": "CUDA SDK", "version": "12.8.1"}}'})
    box = Box(commands={"nv-fabricmanager --version": (0, "Fabric Manager version is : 570.133.20\n")})
    found = software_facts(FakeSys(tmp_path, box), {"nccl": {"nvidia-nccl-cu12": "2.26.2"}})
    assert found["module"] == {"version": "570.133.20", "flavor": "proprietary"}
    assert found["cuda_toolkit"]["version"] == "12.8.1"
    assert found["fabric_manager"] == {"version": "570.133.20"}
    assert found["cudnn"]["copies"] == [{"version": "9.8.0", "from": "/usr/local/cuda-12.8/lib64"}]
    assert [copy["version"] for copy in found["nccl"]["copies"]] == ["2.26.2", "2.27.3"]
    assert is_skipped(found["tensorrt"])


def test_the_open_module_and_the_compiler_when_there_is_no_list_of_versions(tmp_path: Path) -> None:
    plant(
        tmp_path, {"proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.95.05"}
    )
    plant(tmp_path, {"usr/local/cuda/version.json": "{}"})
    box = Box(commands={"nvcc --version": (0, "Cuda compilation tools, release 12.8, V12.8.93\n")})
    found = software_facts(FakeSys(tmp_path, box), {})
    assert found["module"]["flavor"] == "open"
    assert found["cuda_toolkit"] == {"version": "12.8.93", "from": "nvcc --version"}


def test_everything_that_is_absent_says_how_to_get_it(tmp_path: Path) -> None:
    found = software_facts(FakeSys(tmp_path), {})
    assert all(is_skipped(fact) and fact["how"] for fact in found.values())
