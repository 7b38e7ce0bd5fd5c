from __future__ import annotations

from pathlib import Path

from redline.node.containers import container_facts
from redline.node.fake import Box, FakeSys
from redline.node.tree import is_skipped
from tests.node.boxes import plant
from tests.node.gpu_boxes import eight_gpus


def test_a_specification_that_was_made_for_another_driver_is_stale(tmp_path: Path) -> None:
    sys = FakeSys(eight_gpus(tmp_path))
    (spec,) = container_facts(sys, "580.95.05")["cdi"]
    assert (spec["kind"], spec["devices"], spec["made_for"], spec["stale"]) == ("nvidia.com/gpu", 2, ["570.1.2"], True)
    assert container_facts(sys, "570.1.2")["cdi"][0]["stale"] is False
    assert container_facts(sys, None)["cdi"][0]["stale"] is False


def test_of_the_configuration_only_what_matters_here(tmp_path: Path) -> None:
    config = container_facts(FakeSys(eight_gpus(tmp_path)), None)["docker_config"]
    assert config == {"default-runtime": "nvidia"}


def test_versions_and_mode(tmp_path: Path) -> None:
    said = {"podman --version": (0, "podman version 4.3.1\n"), "nvidia-ctk --version": (0, "... CLI version 1.18.1\n")}
    plant(tmp_path, {"etc/nvidia-container-runtime/config.toml": '[nvidia-container-runtime]\nmode = "cdi"\n'})
    plant(tmp_path, {"run/nvidia-persistenced/socket": ""})
    found = container_facts(FakeSys(tmp_path, Box(commands=said)), None)
    assert (found["podman"]["version"], found["nvidia_toolkit"]["version"]) == ("4.3.1", "1.18.1")
    assert found["toolkit_mode"] == "cdi"
    assert found["persistence_daemon"] is True
    assert is_skipped(found["docker"])


def test_files_that_are_broken(tmp_path: Path) -> None:
    plant(tmp_path, {"etc/docker/daemon.json": "{", "etc/cdi/a.yaml": "kind: [", "etc/cdi/b.yaml": "kind: x\n"})
    found = container_facts(FakeSys(tmp_path), None)
    assert is_skipped(found["docker_config"])
    assert all(is_skipped(spec) for spec in found["cdi"])
