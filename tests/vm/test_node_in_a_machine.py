"""`redline node` on a whole machine with systemd, two nodes, TuneD and irqbalance: found, changed, kept over a boot,
taken back; also when its power is cut in the middle. The tests build on one another, in this order."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.vm.broken import FIGHTS, FILES, IDS, SETTINGS
from tests.vm.compare import differing
from tests.vm.conftest import Box

ONLY = ("--only", ",".join(IDS))
CHANGE = ("apply", *ONLY, "--yes", "--confirm-within", "0")


def as_before(box: Box, name: str) -> None:
    """AssertionError with every value and file that is not as it was."""
    now = differing(box.former, box.state())
    box.note(name, now or "equal")
    assert not now, "\n".join(now)


def values(box: Box) -> dict[str, str]:
    return {one.path: box.value(one.path) for one in SETTINGS}


def test_everything_broken_is_found(box: Box) -> None:
    assert values(box) == {one.path: one.broken for one in SETTINGS}
    judged: Any = box.asked("audit", ok=(0, 5))
    states = {(row["id"], row["place"]): row["state"] for row in judged["settings"]}
    found = {id_: {state for (one, _), state in states.items() if one == id_} for id_ in IDS}
    box.note("audit", {id_: sorted(those) for id_, those in found.items()})
    assert all(those & {"drift", "overridden"} for those in found.values()), found


def test_a_plan_changes_nothing(box: Box) -> None:
    made: Any = box.asked("plan")
    assert {change["path"] for change in made["changes"]} >= {one.path for one in SETTINGS if one.id != "boot.psi"}
    as_before(box, "after audit and plan")


def test_apply_holds_over_a_boot_and_revert_gives_everything_back(box: Box) -> None:
    began = time.monotonic()
    box.redline(*CHANGE)
    box.note("apply_s", time.monotonic() - began)
    right = {one.path: one.right for one in SETTINGS}
    assert values(box) == right | {"/proc/cmdline": "psi=0"}
    box.applied = box.state("--bare")
    held: Any = box.asked("verify")
    assert {one["state"] for one in held} == {"in force", "waits for a reboot"}
    box.reboot()
    after = values(box)
    box.note("after", {one.id: after[one.path] for one in SETTINGS})
    assert after["/proc/cmdline"].split()[-1] == "psi=1"  # the last one counts
    assert after | {"/proc/cmdline": ""} == right | {"/proc/cmdline": ""}
    held = box.asked("verify")
    box.note("verify", {one["path"]: one["state"] for one in held})
    assert {one["state"] for one in held} == {"in force"}, [one for one in held if one["state"] != "in force"]
    began = time.monotonic()
    box.redline("revert", "--all")
    box.note("revert_s", time.monotonic() - began)
    box.reboot()
    as_before(box, "after apply, boot, revert, boot")


CUTS: list[tuple[str, Callable[[list[dict[str, Any]]], str]]] = [
    ("at the first live value", lambda _changes: "intent 0"),
    ("among the live values", lambda changes: f"intent {of_kind(changes, 'attribute') - 3}"),
    ("among the files", lambda changes: f"done {of_kind(changes, 'file') - 1}"),
    ("in update-grub", lambda changes: f"intent {of_kind(changes, 'command')}"),
]


def of_kind(changes: list[dict[str, Any]], kind: str) -> int:
    """Index of the last change of this kind."""
    return max(index for index, change in enumerate(changes) if change["kind"] == kind)


@pytest.mark.parametrize(("where", "point"), CUTS, ids=[where.replace(" ", "-") for where, _ in CUTS])
def test_power_cut_in_the_middle(box: Box, where: str, point: Callable[[list[dict[str, Any]]], str]) -> None:
    made: Any = box.asked("plan", *ONLY)
    journal = cut_at(box, point(made["changes"]), ["redline", "node", *CHANGE], 1.0 if "grub" in where else 0.0)
    refused = box.call("redline node apply --yes --only vm.swappiness")
    assert refused.returncode, "another transaction on top of one that was cut short"
    done: Any = box.asked("revert", "last")
    box.note(f"cut {where}", {"journal": journal, "undone": len(done[0]["undone"])})
    as_before(box, f"after a cut {where}")


def test_power_cut_while_it_is_taken_back(box: Box) -> None:
    box.redline(*CHANGE)
    journal = cut_at(box, "undoing 5", ["redline", "node", "revert", "last"])
    box.redline("revert", "last")
    box.note("cut in revert", {"journal": journal})
    as_before(box, "after a cut in revert")


def cut_at(box: Box, point: str, command: list[str], after_s: float = 0.0) -> str:
    """Runs `command` and cuts the power once its journal has the line `point`, and `after_s`; boots. Gives the last
    lines that are on the disk then."""
    box.put("/root/follow.py", (Path(__file__).parent / "follow.py").read_text())
    seen = box.events.stat().st_size
    box.run("systemd-run -q --unit follow /usr/bin/python3 /root/follow.py")
    wait_for(box, seen, "following")
    box.run("sync; systemd-run -q --unit cut " + " ".join(command))
    wait_for(box, seen, point)
    time.sleep(after_s)
    box.cut_power()
    box.start()
    return box.run("cd /var/lib/redline/node; tail -qn2 $(ls *.jsonl | tail -n1) | cut -c1-40 | tr '\\n' ' '")


def wait_for(box: Box, seen: int, line: str, timeout_s: float = 300.0) -> None:
    end = time.monotonic() + timeout_s
    while time.monotonic() < end:
        with box.events.open("rb") as file:
            file.seek(seen)
            if line in [each.decode(errors="replace").strip() for each in file]:
                return
        time.sleep(0.005)
    raise AssertionError(f"the journal never said {line!r}; {box.call('journalctl -u cut -n 20').stdout.decode()}")


def test_exported_bash_gives_the_same_state(box: Box) -> None:
    box.redline("export", "--as", "bash", *ONLY, "-o", "/root/forth.sh")
    box.run("/root/forth.sh", timeout_s=600)
    now = differing(box.applied, box.state("--bare"))
    box.note("export bash", now or "equal")
    assert not now, "\n".join(now)
    again = box.run("/root/forth.sh")
    assert again.splitlines()[-1] == "0 changed"
    box.run("/root/forth.sh --revert; rm /root/forth.sh", timeout_s=600)
    as_before(box, "after bash --revert")


def live_as_applied(box: Box, name: str) -> None:
    """Live values alone: this form has no files of redline's."""
    now = differing({"live": box.applied["live"]}, {"live": box.state()["live"]})
    box.note(name, now or "equal")
    assert not now, "\n".join(now)


def test_exported_unit_gives_the_same_live_values(box: Box) -> None:
    unit = "/etc/systemd/system/box.service"
    box.redline("export", "--as", "systemd", *ONLY, "-o", unit)
    box.run("systemd-analyze verify box.service && systemctl daemon-reload && systemctl start box")
    live_as_applied(box, "export systemd")
    box.run(f"rm {unit}; systemctl daemon-reload")
    put_back(box)
    as_before(box, "after the exported unit")


def test_exported_profile_is_verified_by_tuned(box: Box) -> None:
    # else TuneD takes the files of sysctl.d again after its profile, and those are the broken ones
    main = "/etc/tuned/tuned-main.conf"
    box.run(
        f"cp -p {main} /root/; sed -i 's/^reapply_sysctl.*/reapply_sysctl = 0/' {main}; mkdir -p /etc/tuned/redline"
    )
    box.run("systemctl restart tuned", timeout_s=600)
    box.redline("export", "--as", "tuned", *ONLY, "-o", "/etc/tuned/redline/tuned.conf")
    # the arguments of a boot are tried elsewhere: TuneD's plug-in for them rewrites GRUB's files for good
    box.run("sed -i '/^.bootloader/,/^$/d' /etc/tuned/redline/tuned.conf && tuned-adm profile redline", timeout_s=600)
    said = box.run("tuned-adm verify; tail -n 40 /var/log/tuned/tuned.log", ok=(0, 1))
    box.note("tuned-adm verify", said.splitlines()[0])
    assert " succeeded" in said.splitlines()[0], said  # TuneD 2.20 spells it "Verfication"
    live_as_applied(box, "export tuned")
    box.run(f"cp -p /root/tuned-main.conf {main}; rm -r /etc/tuned/redline; tuned-adm profile fights", timeout_s=600)
    box.run("systemctl restart tuned", timeout_s=600)
    as_before(box, "after the exported profile")


def put_back(box: Box) -> None:
    """The live values as the machine's own files have them, and whatever else was changed along."""
    for one in SETTINGS:
        if one.path != "/proc/cmdline":
            box.run(f"echo {one.broken} >{one.path}")
    now = box.state()["live"]
    for path, value in box.former["live"].items():
        if now.get(path) != value:
            box.call(f"echo '{value}' >{path}")  # what that does not put back is told by whoever compares


def test_a_daemon_that_writes_back_is_never_called_right(box: Box) -> None:
    box.redline("apply", "--only", "thp.enabled", "--yes")
    box.put(FIGHTS, FILES[FIGHTS] + "[vm]\ntransparent_hugepages=never\n")
    box.run("tuned-adm profile fights", timeout_s=600)
    held: Any = box.asked("verify", ok=(5,))
    changed = {one["path"]: one["why"] for one in held if one["state"] == "changed"}
    assert [path for path in changed if path.endswith("enabled")], held
    judged: Any = box.asked("audit", "--only", "thp.enabled", ok=(0, 5))
    row = judged["settings"][0]
    assert (row["state"], row["owner"]) == ("overridden", "tuned")
    refused = box.call("redline node revert last")
    assert refused.returncode == 3, refused.stderr
    assert b"tuned runs here and writes it" in refused.stderr
    box.note("a daemon that writes back", {"verify": changed, "audit": row["why"]})
    box.put(FIGHTS, FILES[FIGHTS])
    box.run("tuned-adm profile fights", timeout_s=600)
    box.redline("revert", "last")
    as_before(box, "after a daemon that writes back")


def test_interrupts_are_left_to_irqbalance_and_set_without_it(box: Box) -> None:
    rows: Any = box.asked("audit", "--only", "irq.nic", ok=(0, 5))
    with_it = {row["place"]: row["state"] for row in rows["settings"]}
    box.run("systemctl stop irqbalance; for f in /proc/irq/*/smp_affinity_list; do echo 0 >$f; done; true")
    before = box.state("--interrupts")
    rows = box.asked("audit", "--only", "irq.nic", ok=(0, 5))
    without = {row["place"]: row["state"] for row in rows["settings"]}
    assert "drift" in without.values(), rows
    assert "drift" not in with_it.values(), with_it
    box.redline("apply", "--only", "irq.nic", "--yes")
    moved = differing(before, box.state("--interrupts"))
    box.note("interrupts", {"with irqbalance": with_it, "without": without, "moved": moved})
    assert moved
    assert all("smp_affinity_list" in one for one in moved), moved
    box.redline("revert", "last")
    assert not differing(before, box.state("--interrupts"))
    box.run("systemctl start irqbalance")


def test_what_nobody_confirms_comes_back(box: Box) -> None:
    box.redline("apply", "--only", "net.mtu", "--yes", "--confirm-within", "20")
    assert box.value("/sys/class/net/fabric/mtu") == "9000"
    end = time.monotonic() + 300
    while box.value("/sys/class/net/fabric/mtu") == "9000" and time.monotonic() < end:
        time.sleep(3)
    wait_until_reverted(box)
    as_before(box, "after nobody confirmed")


def wait_until_reverted(box: Box) -> None:
    end = time.monotonic() + 300
    while '"end","state":"reverted"' not in newest(box) and time.monotonic() < end:
        time.sleep(3)


def newest(box: Box) -> str:
    return box.run("cd /var/lib/redline/node; cat $(ls *.jsonl | tail -n1)")


@pytest.mark.parametrize("how", ["reboot", "power cut"])
def test_what_nobody_confirms_comes_back_over_a_boot(box: Box, how: str) -> None:
    pytest.importorskip("redline.node.boot_guard", reason="nothing undoes at boot what was not confirmed")
    box.redline("apply", "--only", "net.mtu,vm.swappiness", "--yes", "--confirm-within", "600")
    if how == "reboot":
        box.reboot()
    else:
        box.cut_power()
        box.start()
    wait_until_reverted(box)
    as_before(box, f"after nobody confirmed, with a {how}")
