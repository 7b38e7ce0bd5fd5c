from __future__ import annotations

from pathlib import Path

import pytest

from redline.node.audit import audit
from redline.node.fake import Box, FakeSys
from redline.node.live import LiveSys
from redline.node.recording import RecordingSys
from redline.node.sys import SysFault
from redline.node.tunables.tunable import Profile
from tests.node.boxes import plant
from tests.node.fake_boxes import built


@pytest.mark.parametrize("name", ["kubernetes_pod", "cloud_vm"])
def test_a_recorded_box_is_judged_like_the_box(name: str, tmp_path: Path) -> None:
    original = built(name)
    recording = RecordingSys(original, tmp_path / "copy")
    first = audit(recording, "latency")
    recording.save()
    copy = FakeSys(tmp_path / "copy")
    assert copy.box.label == "recorded"
    assert audit(copy, "latency") == first == audit(original, "latency")


def test_the_real_box_too(tmp_path: Path) -> None:
    """What moves by itself (counters, processes) is left out."""
    recording = RecordingSys(LiveSys(), tmp_path)
    profile: Profile = "vm"
    ids = ["vm", "thp", "cpu", "sched", "numa.memory", "blk", "boot"]
    live = audit(recording, profile, ids)
    recording.save()
    assert [(each.tunable.id, each.place, each.state) for each in audit(FakeSys(tmp_path), profile, ids)] == [
        (each.tunable.id, each.place, each.state) for each in live
    ]


def test_what_could_not_be_read_cannot_be_read_in_the_copy(tmp_path: Path) -> None:
    box = FakeSys(plant(tmp_path / "box", {"sys/secret": "x\n"}), Box(unreadable={"/sys/secret": "EPERM"}))
    recording = RecordingSys(box, tmp_path / "copy")
    with pytest.raises(SysFault):
        recording.read("/sys/secret")
    recording.save()
    with pytest.raises(SysFault, match="denied"):
        FakeSys(tmp_path / "copy").read("/sys/secret")


def test_a_copy_holds_what_was_there_before_a_write(tmp_path: Path) -> None:
    box = FakeSys(plant(tmp_path / "box", {"proc/sys/vm/swappiness": "60\n"}))
    recording = RecordingSys(box, tmp_path / "copy")
    recording.read("/proc/sys/vm/swappiness")
    recording.set_attribute("/proc/sys/vm/swappiness", b"10")
    assert recording.read("/proc/sys/vm/swappiness") == b"10\n"
    assert (tmp_path / "copy/proc/sys/vm/swappiness").read_text() == "60\n"
