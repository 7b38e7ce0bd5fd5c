"""One machine for all tests of this folder, which are asked for with `make test-vm` and skipped otherwise."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.vm import broken, machine, result
from tests.vm.compare import digest
from tests.vm.machine import Machine

ASKED = os.environ.get("REDLINE_VM", "")
HOW = "boots a virtual machine (20 to 60 minutes): make test-vm"
ROOT = Path(__file__).parents[2]
State = dict[str, dict[str, str]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.timeout(3000))
            if not ASKED and item.path.name.startswith("test_node"):
                item.add_marker(pytest.mark.skip(reason=HOW))


@pytest.fixture(scope="session")
def base() -> Path:
    """The folder of the image, which is made when it is not there."""
    folder = ROOT / ".vm"
    if lacking := machine.missing():
        pytest.skip(
            f"{', '.join(lacking)} missing: apt-get install qemu-system-x86 qemu-utils openssh-client e2fsprogs"
        )
    environment = {**os.environ, "PYTHON": sys.executable}
    made = subprocess.run(["bash", "tests/vm/image.sh", str(folder)], cwd=ROOT, env=environment, check=False)
    if made.returncode:
        pytest.skip("the image cannot be made here; the reason is above")
    return folder


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """redline, built from this tree."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "pip", "-q", "wheel", "--no-deps", "-w", str(folder), str(ROOT)]
    subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="session")
def box(base: Path, wheel: Path) -> Iterator[Box]:
    """The machine, with redline installed and everything broken, in the boot after that."""
    folder = base / "run"
    shutil.rmtree(folder, ignore_errors=True)
    one = Box(base, folder)
    one.create_disks()
    try:
        one.start()
        one.put(f"/root/{wheel.name}", wheel.read_bytes())
        one.run(f"/opt/redline/bin/pip -q install --no-index --no-deps --no-compile /root/{wheel.name}", timeout_s=900)
        one.put("/root/state.py", (Path(__file__).parent / "state.py").read_text())
        for path, content in broken.FILES.items():
            one.put(path, content)
        one.run(broken.AFTERWARDS, timeout_s=900)
        one.reboot()
        one.former = one.state()
        one.note("before", {each.id: one.value(each.path) for each in broken.SETTINGS})
        one.note_versions()
        yield one
    finally:
        one.cut_power()
        one.note("boots", one.boots)


class Box(Machine):
    """`former`: its state when everything was broken; `applied`: after apply, before a boot. `facts`: what the page of
    results tells."""

    def __init__(self, base: Path, folder: Path) -> None:
        super().__init__(base, folder)
        self.former: State = {}
        self.applied: State = {}
        self.facts: dict[str, Any] = {}

    def note(self, name: str, value: Any) -> None:
        """Kept for the page of results, also when a later test fails."""
        self.facts[name] = value
        (self.folder / "facts.json").write_text(json.dumps(self.facts, indent=1))

    def note_versions(self) -> None:
        qemu = subprocess.run(["qemu-system-x86_64", "--version"], capture_output=True, text=True, check=True)
        self.note("qemu", qemu.stdout.splitlines()[0])
        self.note("accelerator", " ".join(machine.accelerator()))
        self.note("kernel", self.run("uname -r"))
        self.note("system", self.run(". /etc/os-release; echo $PRETTY_NAME, $(systemctl --version | sed -n 1p)"))
        self.note("tuned", self.run("dpkg-query -W -f '${Version}' tuned"))
        self.note("redline", self.run("redline --version"))
        commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
        self.note("commit", commit.stdout.strip())
        self.note("hash", digest(self.former))
        self.note("paths", sum(map(len, self.former.values())))
        self.note("apparmor", self.run("cat /sys/module/apparmor/parameters/enabled"))

    def state(self, *words: str) -> State:
        return dict(json.loads(self.run(" ".join(["/usr/bin/python3 /root/state.py", *words]))))

    def value(self, path: str) -> str:
        """Of a choice the bracketed word; of the kernel's command line the words about pressure."""
        said = self.run(f"cat {path}")
        if path == "/proc/cmdline":
            return " ".join(word for word in said.split() if word.startswith("psi="))
        return said.partition("[")[2].partition("]")[0] if "[" in said else said


_outcomes: dict[str, tuple[str, float]] = {}


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if ASKED and "tests/vm/test_node" in report.nodeid:
        name = report.nodeid.rpartition("::")[2]
        how, seconds = _outcomes.get(name, ("passed", 0.0))
        _outcomes[name] = (how if report.passed else report.outcome, seconds + report.duration)


def pytest_sessionfinish() -> None:
    if _outcomes:
        result.write(ROOT, result.load(ROOT / ".vm/run"), _outcomes)
