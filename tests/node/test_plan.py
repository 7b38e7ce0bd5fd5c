from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from redline.node.apply import apply
from redline.node.fake import FakeSys
from redline.node.judge import Judged, judge
from redline.node.plan import FORMS, Plan, plan
from redline.node.revert import KINDS, revert
from redline.node.tunables.find import bracketed, word
from redline.node.tunables.rows import everywhere
from redline.node.tunables.table import BY_ID, TUNABLES
from redline.node.tunables.tunable import Persist, Place, Tunable
from tests.node.folder_box import SOURCE, THP, folder_box, put, row, state_hash

SWAPPINESS = row("vm.swappiness", "10")
MTU = "/sys/class/net/eth0/mtu"


def attribute(id_: str, path: str, value: str, persist: Persist, key: str, **more: object) -> Tunable:
    settings: dict[str, object] = {
        "group": "memory",
        "scope": "host",
        "places": lambda _sys: [Place(path, path.split("/")[4] if path.count("/") > 4 else "")],
        "read": bracketed if path == THP else word,
        "sources": (SOURCE,),
        **more,
    }
    return Tunable(
        id=id_,
        title=id_,
        wants=everywhere("equals", value),
        persist=persist,
        persist_key=key,
        **settings,  # type: ignore[arg-type]
    )


HUGE = attribute("thp.enabled", THP, "madvise", "tmpfiles", "enabled")
FRAME = attribute("net.mtu", MTU, "9000", "nic", "mtu", risk=3)
IOMMU = attribute(
    "pcie.iommu",
    "/proc/cmdline",
    "pt",
    "cmdline",
    "iommu",
    write="none",
    read=lambda _sys, _place: "",
    needs_reboot=True,
)


def planned(box: FakeSys, *rows: Tunable, **more: object) -> Plan:
    judged = [judge(box, one, place, "latency") for one in rows for place in one.places(box)]
    return plan(box, judged, **more)  # type: ignore[arg-type]


def test_values_first_then_files_then_what_may_keep_it_from_booting(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    made = planned(box, IOMMU, SWAPPINESS, HUGE)
    assert [change.label for change in made.changes] == [
        "/proc/sys/vm/swappiness",
        THP,
        "/etc/sysctl.d/90-redline.conf",
        "/etc/tmpfiles.d/90-redline.conf",
        "/etc/default/grub.d/99-redline.cfg",
        "update-grub",
    ]
    assert made.reboot == ("pcie.iommu",)
    assert made.risk == 3
    assert any("every installed kernel is given iommu=pt" in text for text in made.blast)


def test_the_diff_is_a_unified_diff_of_values_and_files(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    put(tmp_path, {"/etc/sysctl.d/90-redline.conf": "# old\nvm.max_map_count = 1"})
    diff = planned(box, SWAPPINESS, IOMMU).diff()
    assert "--- /proc/sys/vm/swappiness\n+++ /proc/sys/vm/swappiness\n@@ -1 +1 @@\n-60\n+10\n" in diff
    assert "--- /etc/sysctl.d/90-redline.conf\n+++ /etc/sysctl.d/90-redline.conf\n" in diff
    assert " vm.max_map_count = 1\n+vm.swappiness = 10\n" in diff
    assert "--- /dev/null\n+++ /etc/default/grub.d/99-redline.cfg\n" in diff
    assert "$ update-grub\n" in diff


def test_what_is_right_or_has_no_effect_is_not_changed(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    (tmp_path / "proc/sys/vm/swappiness").write_text("10\n")
    assert planned(box, SWAPPINESS).changes == ()
    inert = replace(HUGE, effective=lambda _sys, _place: "nobody asks for one")
    assert planned(box, inert).changes == ()


def test_right_now_and_wrong_after_a_reboot(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    (tmp_path / "proc/sys/vm/swappiness").write_text("10\n")
    put(tmp_path, {"/etc/sysctl.d/99-vendor.conf": "vm.swappiness = 60"})
    made = planned(box, SWAPPINESS)
    assert [change.label for change in made.changes] == ["/etc/sysctl.d/99-zz-redline.conf"]


def test_a_daemon_is_not_fought(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    one = Judged(
        SWAPPINESS, Place("/proc/sys/vm/swappiness"), "overridden", "60", SWAPPINESS.wants["latency"], "w", "tuned"
    )
    made = plan(box, [one])
    assert made.changes == ()
    assert "left alone until tuned is told otherwise" in made.warnings[0]


def test_live_only_says_that_it_does_not_last(tmp_path: Path) -> None:
    made = planned(folder_box(tmp_path), SWAPPINESS, HUGE, persist=False, skip=["thp.enabled"])
    assert [change.label for change in made.changes] == ["/proc/sys/vm/swappiness"]
    assert made.warnings == ("until the next boot only: vm.swappiness",)


def test_advice_is_for_a_person(tmp_path: Path) -> None:
    row_ = replace(HUGE, write="none", persist="none", advice="do it in the firmware")
    made = planned(folder_box(tmp_path), row_)
    assert made.changes == ()
    assert made.manual == (("thp.enabled", "do it in the firmware"),)


def test_pairs_are_planned_as_one(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    made = planned(box, row("vm.dirty_bytes", "1048576"))
    assert made.changes[0].coupled == ("/proc/sys/vm/dirty_ratio",)
    box.set_attribute("/proc/sys/vm/dirty_bytes", b"4096000")
    refused = planned(box, row("vm.dirty_bytes", "0"))
    assert refused.changes == ()
    assert "0 cannot be written" in refused.warnings[0]


def test_the_governor_and_its_preference(tmp_path: Path) -> None:
    """The kernel sets the one with the other, and refuses it while the first is `performance`."""
    policy = "/sys/devices/system/cpu/cpufreq/policy0"
    box = folder_box(tmp_path)
    put(
        tmp_path,
        {
            f"{policy}/scaling_driver": "intel_pstate",
            f"{policy}/scaling_governor": "powersave",
            f"{policy}/scaling_available_governors": "performance powersave",
            f"{policy}/energy_performance_preference": "balance_performance",
            f"{policy}/energy_performance_available_preferences": "default performance balance_performance power",
        },
    )
    was = state_hash(tmp_path)
    for order in (("cpu.governor", "cpu.epp"), ("cpu.epp", "cpu.governor"), ("cpu.governor",)):
        made = planned(box, *(BY_ID[id_] for id_ in order))
        apply(box, made.changes, tmp_path / "var/lib/redline/node")
        assert box.read(f"{policy}/energy_performance_preference") == b"performance\n"
        revert(box, tmp_path / "var/lib/redline/node")
        assert state_hash(tmp_path) == was, order
    apply(box, planned(box, BY_ID["cpu.epp"]).changes, tmp_path / "var/lib/redline/node")
    box.set_attribute(f"{policy}/scaling_governor", b"performance")
    revert(box, tmp_path / "var/lib/redline/node", force=KINDS)
    assert state_hash(tmp_path) == was, "busy until the governor is back"


def test_jumbo_frames_say_what_is_at_stake(tmp_path: Path) -> None:
    box = folder_box(tmp_path)
    header = "Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT"
    route = f"{header}\neth0 00000000 0100A8C0 3 0 0 0 00000000 0 0 0"
    put(tmp_path, {"/proc/net/route": route, "/etc/network/interfaces": "iface eth0 inet dhcp"})
    made = planned(box, FRAME)
    assert made.risk == 3
    assert "eth0: every host on its segment must take frames of 9000 bytes" in made.blast[0]
    assert "default route" in made.blast[0]
    assert [change.label for change in made.changes] == [MTU, "/etc/network/interfaces"]


def test_pages_that_are_taken_from_the_cache(tmp_path: Path) -> None:
    path = "/sys/devices/system/node/node0/hugepages/hugepages-1048576kB/nr_hugepages"
    put(tmp_path, {path: "0"})
    made = planned(folder_box(tmp_path), attribute("hugepages.1g", path, "4", "none", "nr_hugepages"))
    assert made.blast == ("4.0 GiB are taken from the page cache and from every program",)


def test_as_json(tmp_path: Path) -> None:
    made = planned(folder_box(tmp_path), SWAPPINESS).to_json()
    assert made["risk"] == 0
    assert made["changes"][0]["before"] == "60\n"
    assert "+10" in made["diff"]


def test_every_form_that_a_row_names_can_be_written() -> None:
    assert {row_.persist for row_ in TUNABLES} - {"none"} <= set(FORMS)


@pytest.mark.parametrize("distribution", ["debian", "rhel", "none"])
def test_applied_verified_and_reverted_to_the_byte(tmp_path: Path, distribution: str) -> None:
    from redline.node.verify import verify

    files: dict[str, Callable[[], dict[str, str] | None]] = {
        "debian": lambda: None,
        "rhel": lambda: {
            "/etc/os-release": "ID=rocky\nID_LIKE=rhel",
            "/usr/sbin/grubby": "",
            "/lib/systemd/systemd-sysctl": "",
            "/boot/loader/entries/a.conf": "options ro",
            "/etc/default/grub": "x",
        },
        "none": dict,
    }
    grubby = "grubby --update-kernel=ALL --args=iommu=pt"
    box = folder_box(tmp_path, files[distribution](), commands={"update-grub": (0, ""), grubby: (0, "")})
    was = state_hash(tmp_path)
    rows = [SWAPPINESS, HUGE, IOMMU, FRAME, row("vm.dirty_bytes", "1048576")]
    made = planned(box, *rows)
    state = tmp_path / "var/lib/redline/node"
    apply(box, made.changes, state)
    assert state_hash(tmp_path) != was
    assert {one.state for one in verify(box, state)} <= {"in force", "waits for a reboot"}
    again = planned(box, SWAPPINESS, HUGE, FRAME, row("vm.dirty_bytes", "1048576"))
    assert again.changes == (), "applied once it is not planned again"
    revert(box, state)
    assert state_hash(tmp_path) == was
