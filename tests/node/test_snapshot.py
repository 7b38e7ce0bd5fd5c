from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from redline.errors import EnvironmentFault, UsageError
from redline.node.audit import audit
from redline.node.box import node_facts
from redline.node.fake import Box, FakeSys
from redline.node.live import LiveSys
from redline.node.recording import RecordingSys
from redline.node.redact import KEPT
from redline.node.snapshot import MOST_BYTES, ROWS, names_of, replayed, snapshot, unasked, unpack
from redline.node.sys import Sys
from redline.node.tree import Fact
from tests.node.boxes import plant
from tests.node.gpu_boxes import EIGHT, eight_gpus, nvml_of

CONTAINER = "4f" * 32
PLANTED = {
    "proc/sys/kernel/hostname": "helium-17\n",
    "etc/hostname": "helium-17.cluster.example\n",
    "etc/machine-id": "00112233445566778899aabbccddeeff\n",
    "etc/passwd": "root:x:0:0::/root:/bin/sh\ncarol:x:1000:1000:Carol:/home/carol:/bin/sh\n",
    "proc/cmdline": "root=UUID=1f2e3d4c-aaaa-bbbb-cccc-0123456789ab ip=10.20.30.40 host=helium-17 quiet -- x=hush\n",
    "proc/self/cgroup": f"0::/docker/{CONTAINER}\n",
    f"sys/fs/cgroup/docker/{CONTAINER}/memory.max": "500000000\n",
    f"sys/fs/cgroup/docker/{CONTAINER}/cpu.max": "300000 100000\n",
    "proc/1/environ": "TOKEN_OF_MINE=hunter2\0container=lxc\0HOME=/home/carol\0",
    "proc/self/mounts": "nas.example.com:/vol/carol /home/carol/models nfs4 rw,addr=10.20.30.41 0 0\n",
    "sys/class/dmi/id/product_serial": "S3R1AL\n",
    "sys/class/dmi/id/product_uuid": "9f8e7d6c-1111-2222-3333-444455556666\n",
}
SECRETS = (
    "helium", "carol", "00112233", "1f2e3d4c", "10.20.30.", "4f4f4f", "nas.example", "S3R1AL", "9f8e7d6c", "b8:ce:f6",
    "S6XYZ", "hush", "proxy.example", "GPU-1234",
    "hunter2", "far.example", "A1B2C3", "opensesame",
)  # fmt: skip


def box(root: Path) -> FakeSys:
    eight_gpus(root)
    plant(root, PLANTED)
    kept = Box.of(root)
    kept.commands["docker --version"] = (0, "Docker version 28.2.2 on helium-17 (10.20.30.40) for carol\n")
    kept.commands["ps -eo pid=,args="] = (0, "  77 python -m vllm serve --api-key opensesame\n  78 ssh x@far.example\n")
    kept.commands["dmesg"] = (0, "usb 1-1: SerialNumber: A1B2C3\nNVRM: Xid (PCI:0000:19:00): 79, fallen off\n")
    return FakeSys(root, kept)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeSys, Path]:
    """A made-up box and its snapshot."""
    folder = tmp_path_factory.mktemp("snapshot")
    sys = box(folder / "box")
    return sys, snapshot(sys, folder / "box.tar.gz", nvml_of(EIGHT))


@pytest.fixture(scope="module")
def mine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A snapshot of the box that the tests run on."""
    return snapshot(LiveSys(), tmp_path_factory.mktemp("mine") / "box.tar.gz")


def content(archive: Path) -> str:
    """Names and bytes of everything in it."""
    with tarfile.open(archive) as opened:
        parts = [member.name for member in opened]
        for member in opened:
            file = opened.extractfile(member)
            parts.append(file.read().decode(errors="replace") if file else "")
        owners = [member.uname + member.gname for member in opened]
    return "\n".join(parts + owners)


def still(facts: Fact) -> dict[str, Any]:
    """Without what changes from one moment to the next."""
    found = {name: value for name, value in facts.items() if name not in ("taken_wall", "load")}
    found["memory"] = {
        name: value for name, value in facts["memory"].items() if "usable" not in name and "avail" not in name
    }
    return json.loads(json.dumps(found, default=str))  # type: ignore[no-any-return]


def test_nothing_that_was_planted_is_in_the_archive(made: tuple[FakeSys, Path]) -> None:
    found = content(made[1])
    assert [secret for secret in SECRETS if secret.lower() in found.lower()] == []
    assert "Docker version 28.2.2" in found  # it does hold something


def test_every_command_that_is_asked_is_one_whose_answer_is_known(tmp_path: Path) -> None:
    """A row that asks a new one must say in `redact.KEPT` what of its answer may leave the box."""
    recording = RecordingSys(box(tmp_path / "box"), tmp_path / "copy")
    node_facts(recording)
    audit(recording)
    assert {line.split()[0] for line in recording.box.commands} <= set(KEPT)


def test_facts_of_the_copy_are_those_of_the_box(made: tuple[FakeSys, Path]) -> None:
    sys, archive = made
    with replayed(archive) as copy:
        again = node_facts(copy)
    facts = node_facts(sys, nvml_of(EIGHT))
    # these are answers of this process, which a made-up folder does not have
    process = ("packages", "python", "limits", "wheels", "torch_build", "redline", "architecture", "box_hash")
    assert still(again) == still(facts) | {name: again[name] for name in process}
    assert again["cgroup"]["memory.max"] == "500000000"
    assert again["cpu"]["usable_cores"] == 3.0


def test_the_audit_of_the_copy_is_that_of_the_box(made: tuple[FakeSys, Path]) -> None:
    sys, archive = made
    with replayed(archive) as copy:
        found, expected = audit(copy, "latency"), audit(sys, "latency")
    # places may be named otherwise: the control group is called by its container's id
    assert [(judged.tunable.id, judged.state, judged.value, judged.want) for judged in found] == [
        (judged.tunable.id, judged.state, judged.value, judged.want) for judged in expected
    ]
    assert "drift" in {judged.state for judged in found}


def leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Everything in nested data, by its dotted name."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {key: leaf for part, inner in items for key, leaf in leaves(inner, f"{name}.{part}").items()}
    return {name: value}


def seen(sys: Sys) -> dict[str, Any]:
    states = {f"{judged.tunable.id} {judged.place}": judged.state for judged in audit(sys)}
    return leaves(still(node_facts(sys))) | states


def test_this_box_as_a_copy_is_what_it_is(tmp_path: Path) -> None:
    """Other work goes on here: what is the same before and after must be the same in the copy."""
    before = seen(LiveSys())
    with replayed(snapshot(LiveSys(), tmp_path / "box.tar.gz")) as copy:
        assert copy.kind == "fake"
        found = seen(copy)
    after = seen(LiveSys())
    calm = {name for name in before if name in after and before[name] == after[name]}
    assert len(calm) > 0.9 * len(after)
    assert {name: found.get(name) for name in calm} == {name: after[name] for name in calm}


def test_settings_that_came_after_the_copy_are_told(mine: Path) -> None:
    with replayed(mine) as copy:
        assert unasked(copy) == []
        rows = json.loads(copy.read(ROWS))
        copy.put_file(ROWS, json.dumps([row for row in rows if row != "vm.swappiness"]).encode())
        assert unasked(copy) == ["vm.swappiness"]
    assert unasked(LiveSys()) == []


def test_addresses_of_this_box_are_not_in_its_copy(mine: Path) -> None:
    sys, found = LiveSys(), content(mine).lower()
    macs = [sys.read(path).decode().strip() for path in sys.glob("/sys/class/net/*/address")]
    assert [mac for mac in macs if mac != "00:00:00:00:00:00" and mac and mac in found] == []


def test_two_copies_of_one_state_are_equal_bytes(made: tuple[FakeSys, Path], tmp_path: Path) -> None:
    sys, archive = made
    assert snapshot(sys, tmp_path / "again.tar.gz", nvml_of(EIGHT)).read_bytes() == archive.read_bytes()


def test_names_are_those_of_the_box_and_of_its_people(tmp_path: Path) -> None:
    assert names_of(box(tmp_path)) == {"helium-17", "helium-17.cluster.example", "carol"}


def test_a_folder_is_a_box_too(tmp_path: Path) -> None:
    eight_gpus(tmp_path)
    with replayed(tmp_path) as copy:
        assert len(node_facts(copy)["nics"]) == 8


def archive_of(path: Path, name: str, size: int = 1, kind: bytes = tarfile.REGTYPE) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size, member.type, member.linkname = size if kind == tarfile.REGTYPE else 0, kind, "/etc/passwd"
        archive.addfile(member, io.BytesIO(b"x" * member.size))
    return path


@pytest.mark.parametrize("name", ["../outside", "/absolute", "a/../../outside"])
def test_an_archive_that_would_write_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(EnvironmentFault, match="outside"):
        unpack(archive_of(tmp_path / "x.tar.gz", name), tmp_path / "into")
    assert not (tmp_path / "outside").exists()


def test_links_in_an_archive_are_not_made(tmp_path: Path) -> None:
    unpack(archive_of(tmp_path / "x.tar.gz", "link", kind=tarfile.SYMTYPE), tmp_path)
    assert not (tmp_path / "link").is_symlink()


def test_an_archive_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MOST_BYTES > 10_000_000
    monkeypatch.setattr("redline.node.snapshot.MOST_BYTES", 1000)
    with pytest.raises(EnvironmentFault, match="larger"):
        unpack(archive_of(tmp_path / "x.tar.gz", "big", 2000), tmp_path)


@pytest.mark.parametrize("damage", ["text", "cut"])
def test_a_file_that_is_no_snapshot(made: tuple[FakeSys, Path], tmp_path: Path, damage: str) -> None:
    path = tmp_path / "x.tar.gz"
    if damage == "text":
        path.write_text("no archive")
    if damage == "cut":
        whole = made[1].read_bytes()
        path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(EnvironmentFault, match="no copy of a box"), replayed(path):
        pass


def test_the_output_is_a_folder_or_cannot_be_written(tmp_path: Path) -> None:
    empty = FakeSys(tmp_path)
    with pytest.raises(UsageError, match="is a folder"):
        snapshot(empty, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFault, match="cannot be written"):
        snapshot(empty, tmp_path / "file" / "x.tar.gz")
