from __future__ import annotations

from pathlib import Path

from redline.node.fake import Box, FakeSys
from redline.node.remember import Remembering
from tests.node.boxes import plant


def test_commands_and_listings_once_values_always(tmp_path: Path) -> None:
    box = FakeSys(plant(tmp_path, {"proc/sys/vm/swappiness": "60\n"}), Box(commands={"ps": (0, "one")}))
    seen = Remembering(box)
    assert (seen.run(["ps"]).out, seen.names("/proc/sys"), seen.glob("/proc/sys/vm/s*")) == (
        "one",
        ["vm"],
        ["/proc/sys/vm/swappiness"],
    )
    box.box.commands["ps"] = (0, "two")
    plant(tmp_path, {"proc/sys/net/core/x": "1\n", "proc/sys/vm/stat_interval": "1\n"})
    box.set_attribute("/proc/sys/vm/swappiness", b"10")
    assert seen.run(["ps"]).out == "one"
    assert seen.names("/proc/sys") == ["vm"]
    assert seen.read("/proc/sys/vm/swappiness") == b"10\n"
