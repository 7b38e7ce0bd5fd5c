"""The script that installs drivers, on every release that is known: stand-ins for package managers and NVIDIA's tools
keep what is installed in a folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import yaml

from redline.errors import UsageError
from redline.node.export.bootstrap import bootstrap
from redline.node.export.drivers import Choice, choose, drivers, months_between, release_of
from redline.node.export.forms import driver_notes, export, wants_drivers
from redline.node.plan import Plan
from tests.node.export.planned import EMPTY, planned
from tests.node.folder_box import folder_box

STAND_IN = r"""#!/bin/bash
tool="$(basename "$0")" box="$REDLINE_ROOT" all="$*" last="${*: -1}"
echo "$tool $*" >>"$box/log"
have() { grep -qx -- "$1" "$box/packages" 2>/dev/null; }
add() {
  local name
  for name in "$@"; do
    case "$name" in
      -* | update | install) continue ;;
      cuda-toolkit-*)
        v="${name#cuda-toolkit-}" v="${v/-/.}"
        mkdir -p "$box/usr/local/cuda-$v/bin"
        nvcc="$box/usr/local/cuda-$v/bin/nvcc"
        printf '#!/bin/sh\necho "Cuda compilation tools, release %s, V%s.1"\n' "$v" "$v" >"$nvcc"
        chmod +x "$nvcc"
        ;;
    esac
    have "$name" || echo "$name" >>"$box/packages"
  done
}
case "$tool" in
  id) echo "${FAKE_UID:-0}" ;;
  uname) if [ "${1:-}" = -m ]; then echo "${FAKE_MACHINE:-x86_64}"; else echo 6.1.0-fake; fi ;;
  apt-get) case " $* " in *" install "*) [ -z "${FAKE_NO_NETWORK:-}" ] || exit 100; add "$@" ;; esac ;;
  dnf)
    case " $* " in
      *" list dkms "*) have epel ;;
      *" module list "*) [ -e "$box/module" ] && cat "$box/module" ;;
      *" module enable "*) echo "${all##*nvidia-driver:}" >"$box/module" ;;
      *" versionlock list "*) cat "$box/locked" 2>/dev/null ;;
      *" versionlock "*) echo "$last" >"$box/locked" ;;
      *" https://"*) echo epel >>"$box/packages" ;;
      *" install "*) add "$@" ;;
    esac
    ;;
  dpkg) add cuda-keyring ;;
  dpkg-query) have "$last" && printf installed ;;
  rpm) have "$last" ;;
  curl) while [ "$1" != -o ]; do shift; done; mkdir -p "$(dirname "$2")"; echo "deb https://x $3" >"$2" ;;
  gpg) while [ "$1" != -o ]; do shift; done; mkdir -p "$(dirname "$2")"; cp "$3" "$2" ;;
  modprobe)
    [ -e "$box/loads" ] || exit 1
    mkdir -p "$box/proc/driver/nvidia"
    echo "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  $(cat "$box/loads")  Release Build" \
      >"$box/proc/driver/nvidia/version"
    ;;
  nvidia-smi) [ -e "$box/proc/driver/nvidia/version" ] || exit 9; echo "580.178.04, NVIDIA H200" ;;
  nvidia-ctk)
    case "$*" in
      --version) have nvidia-container-toolkit && printf 'NVIDIA Container Toolkit CLI version 1.20.0\ncommit: x\n' ;;
      "cdi list") cat "$box"/etc/cdi/*.yaml 2>/dev/null ;;
      cdi*) printf 'nvidia.com/gpu=0\nnvidia.com/gpu=all\n' >"${all##*--output=}" ;;
    esac
    ;;
  ldconfig)
    have cudnn9-cuda-13 && echo "	libcudnn.so.9 (libc6,x86-64) => /usr/lib/libcudnn.so.9"
    { have libnccl2 || have libnccl; } && echo "	libnccl.so.2 (libc6,x86-64) => /usr/lib/libnccl.so.2"
    have tensorrt-libs && echo "	libnvinfer.so.11 (libc6,x86-64) => /usr/lib/libnvinfer.so.11"
    true
    ;;
  install) shift 2; mkdir -p "$(dirname "$2")"; cp "$1" "$2" ;;
  mokutil) echo "SecureBoot ${FAKE_SECURE:-disabled}" ;;
esac
"""
TOOLS = (
    *("id", "uname", "apt-get", "dnf", "dpkg", "dpkg-query", "rpm", "curl", "gpg", "modprobe", "nvidia-smi"),
    *("nvidia-ctk", "ldconfig", "install", "mokutil"),
)
RELEASES = [
    ("ubuntu", "22.04"), ("ubuntu", "24.04"), ("debian", "12"), ("debian", "13"),
    ("rhel", "8.10"), ("rocky", "9.7"), ("almalinux", "10"),
]  # fmt: skip


class FakeBox:
    def __init__(self, folder: Path, id_: str, version: str) -> None:
        self.root, self.tools = folder / "box", folder / "tools"
        for place in (self.root / "etc/apt/sources.list.d", self.root / "etc/yum.repos.d", self.tools):
            place.mkdir(parents=True)
        (self.root / "etc/os-release").write_text(f'NAME="X"\nID="{id_}"\nVERSION_ID="{version}"\n')
        for tool in TOOLS:
            (self.tools / tool).write_text(STAND_IN)
            (self.tools / tool).chmod(0o755)

    def run(
        self, *arguments: str, choice: Choice | None = None, code: int = 0, env: dict[str, str] | None = None
    ) -> str:
        script = bootstrap(choice or choose())
        path = os.pathsep.join([str(self.tools), "/usr/bin", "/bin"])
        done = subprocess.run(
            ["bash", "-c", script, "drivers.sh", *arguments], capture_output=True, text=True, check=False,
            env={"PATH": path, "REDLINE_ROOT": str(self.root), **(env or {})},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def loads(self, version: str) -> None:
        """What the kernel finds when it is asked to load the driver."""
        (self.root / "loads").write_text(version)

    def packages(self) -> set[str]:
        path = self.root / "packages"
        return set(path.read_text().split()) if path.exists() else set()

    def log(self) -> str:
        return (self.root / "log").read_text()


@pytest.mark.parametrize(("id_", "version"), RELEASES)
def test_it_installs_checks_and_does_nothing_the_second_time(id_: str, version: str, tmp_path: Path) -> None:
    box = FakeBox(tmp_path, id_, version)
    box.loads("580.178.04")
    said = box.run()
    assert "installed and working" in said
    assert "ok      driver     1 580.178.04, NVIDIA H200" in said
    assert "1 GPUs described (CDI)" in said
    assert {"nvidia-open", "nvidia-container-toolkit"} <= box.packages()
    release = release_of(id_, version)
    assert release is not None
    assert ("tensorrt-libs" in box.packages()) is ("tensorrt" not in release.without)
    if release.family == "debian":
        assert f"{release.repo}/x86_64/cuda-keyring_1.1-1_all.deb" in box.log()
        pinned, rest = (box.log().index(f"-qy install {name}") for name in ("nvidia-driver-pinning", "--no-install"))
        assert pinned < rest
        assert "linux-headers-6.1.0-fake" in box.packages()
        listed = (box.root / "etc/apt/sources.list.d/nvidia-container-toolkit.list").read_text()
        assert "[signed-by=/usr/share/keyrings/nvidia-container-toolkit-keyring.gpg]" in listed
    else:
        assert (box.root / f"etc/yum.repos.d/cuda-{release.repo}.repo").exists()
        lock = "versionlock *nvidia*580*" if release.repo == "rhel10" else "module enable nvidia-driver:580-open"
        assert lock in box.log()
        assert f"epel-release-latest-{release.repo[4:]}.noarch.rpm" in box.log()
    before, packages = box.log(), box.packages()
    assert "nothing was missing" in box.run()
    assert "install" not in box.log().removeprefix(before).replace("libexec", "")
    assert box.packages() == packages


def test_a_driver_that_needs_a_reboot_says_so(tmp_path: Path) -> None:
    box = FakeBox(tmp_path, "ubuntu", "24.04")
    said = box.run(code=4)
    assert "the kernel has not loaded it yet" in said
    assert "reboot, then run drivers.sh --check" in said
    assert (box.root / "run/redline-reboot").exists()
    box.loads("580.178.04")
    assert "described (CDI)" in box.run(), "the run after the reboot describes the GPUs"


@pytest.mark.parametrize(
    ("id_", "version", "environment", "why"),
    [
        ("arch", "", {}, "arch  is not known here"),
        ("ubuntu", "20.04", {}, "ubuntu 20.04 is not known here"),
        ("debian", "120", {}, "debian 120 is not known here"),
        ("rhel", "80", {}, "rhel 80 is not known here"),
        ("debian", "12", {"FAKE_MACHINE": "aarch64"}, "no packages for aarch64 on debian 12"),
        ("ubuntu", "24.04", {"FAKE_MACHINE": "riscv64"}, "no packages for riscv64"),
        ("ubuntu", "24.04", {"FAKE_UID": "1000"}, "installing takes root"),
    ],
)
def test_it_refuses_where_it_would_guess(
    id_: str, version: str, environment: dict[str, str], why: str, tmp_path: Path
) -> None:
    box = FakeBox(tmp_path, id_, version)
    said = box.run(code=3, env=environment)
    assert "refused, nothing was changed" in said
    assert why in said
    assert box.packages() == set()
    assert not (tmp_path / "box/log").exists() or "install" not in box.log()


def test_it_refuses_without_an_os_release(tmp_path: Path) -> None:
    box = FakeBox(tmp_path, "debian", "12")
    (box.root / "etc/os-release").unlink()
    assert "the distribution is not known" in box.run(code=3)


def test_a_driver_of_somebody_else_is_not_touched(tmp_path: Path) -> None:
    box = FakeBox(tmp_path, "ubuntu", "22.04")
    box.loads("535.1.2")
    subprocess.run(
        ["bash", str(box.tools / "modprobe")], env={**os.environ, "REDLINE_ROOT": str(box.root)}, check=False
    )
    (box.root / "proc/driver/nvidia").mkdir(parents=True, exist_ok=True)
    (box.root / "proc/driver/nvidia/version").write_text("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.1.2  x\n")
    assert "no package of NVIDIA's repository owns it" in box.run(code=3)
    (box.root / "packages").write_text("nvidia-open\n")
    assert "driver 535 runs, and this is for 580" in box.run(code=3)
    said = box.run(code=4, env={"REDLINE_SWITCH_DRIVER": "1"})
    assert "535 is loaded, 580 is wanted" in said


def test_what_cannot_be_installed_ends_it(tmp_path: Path) -> None:
    box = FakeBox(tmp_path, "ubuntu", "24.04")
    box.run(code=100, env={"FAKE_NO_NETWORK": "1"})
    assert "Secure Boot is on" in box.run(code=4, env={"FAKE_SECURE": "enabled"})


def test_what_is_installed_and_does_not_work_is_code_one(tmp_path: Path) -> None:
    box = FakeBox(tmp_path, "debian", "12")
    box.loads("580.1")
    box.run()
    (box.tools / "nvidia-smi").write_text("#!/bin/sh\necho 'Driver/library version mismatch'\nexit 18\n")
    assert "failed  driver     nvidia-smi: Driver/library version mismatch" in box.run("--check", code=1)
    box.run("--chekc", code=2)


def test_branches_and_components_can_be_chosen(tmp_path: Path) -> None:
    box = FakeBox(tmp_path, "ubuntu", "24.04")
    box.run(choice=choose("595", ["cuda", "nccl"]))
    assert {"cuda-toolkit-13-2", "libnccl2"} <= box.packages()
    assert "nvidia-open" not in box.packages()
    with pytest.raises(UsageError, match="no driver branch"):
        choose("999")
    with pytest.raises(UsageError, match="no component 'cudn'"):
        choose("580", ["cudn"])


def test_the_data_has_its_shape() -> None:
    known = drivers()
    assert set(known.components) == {"driver", "cuda", "cudnn", "nccl", "tensorrt", "toolkit"}
    dated = [*known.branches.values(), *known.releases.values(), *known.components.values()]
    for one in dated:
        assert one.source, one.name
        for month in filter(None, (one.checked, one.until, one.extended)):
            assert 2024 * 12 <= months_between("0000-01", month) <= 2045 * 12
        assert not one.extended or one.extended > one.until
    for release in known.releases.values():
        assert release.family in ("debian", "rhel")
        assert set(release.without) <= set(known.components)
        for component in known.components.values():
            assert all("{" not in name for name in choose().packages(release, component))
    names = {f"{id_}-{version}" for id_, version in (("ubuntu", "22.04"), ("ubuntu", "24.04"), ("debian", "12"))}
    names |= {"debian-13", "rhel-8", "rhel-9", "rhel-10"}
    assert names <= set(known.releases)
    assert release_of("rocky", "9.5") is known.releases["rhel-9"]
    assert release_of("ubuntu", "24.10") is None
    assert choose().cuda(known.releases["debian-13"]) == "13.1"


def test_old_entries_and_ends_of_support_are_said() -> None:
    choice, debian = choose(), release_of("debian", "12")
    assert driver_notes(choice, release_of("ubuntu", "24.04"), date(2026, 12, 1)) == []
    assert "debian-12: support ended 2026-06 (extended support until 2028-06)" in driver_notes(
        choice, debian, date(2027, 1, 1)
    )
    late = driver_notes(choice, debian, date(2028, 4, 1))
    assert "driver branch 580: support ends 2028-06" in late
    assert any("cudnn: last looked up" in text for text in late)
    assert any("the script refuses here" in text for text in driver_notes(choice, None))
    assert driver_notes(choose("535"), debian, date(2026, 12, 1))[0].startswith("driver branch 535: support ended")


@pytest.mark.parametrize("names", [[], ["toolkit"]])
def test_against_shellcheck(names: list[str]) -> None:
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("shellcheck is not installed: apt install shellcheck")
    for text in (bootstrap(choose("580", names)), export(EMPTY, "bash", drivers=choose("580", ["nccl"]))):
        done = subprocess.run([checker, "-"], input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout


def test_drivers_come_where_there_is_a_gpu(tmp_path: Path) -> None:
    with_gpu, _ = planned("epyc_8gpu", tmp_path / "a")
    without = folder_box(tmp_path / "b")
    assert wants_drivers(with_gpu, "bash")
    assert not wants_drivers(with_gpu, "tuned")
    assert not wants_drivers(without, "bash")
    with pytest.raises(UsageError, match="installs no drivers"):
        export(EMPTY, "tuned", drivers=choose())


def test_the_script_of_settings_runs_the_drivers_first(tmp_path: Path) -> None:
    """Refused drivers leave the settings alone; on a copy of a box they are left out."""
    sys_, plan = planned("epyc_8gpu", tmp_path)
    script = export(plan, "bash", drivers=choose())
    done = subprocess.run(
        ["bash", "-s"], input=script, capture_output=True, text=True, check=False,
        env={**os.environ, "REDLINE_ROOT": str(sys_.root)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("not run on a copy: drivers and libraries\n")
    body = script.partition("DRIVERS=")[2]
    stub = script.replace(body, '"exit 3"\n' + body.partition('REDLINE_DRIVERS\n)"\n')[2])
    refused = subprocess.run(["bash", "-s"], input=stub, capture_output=True, text=True, check=False)
    assert (refused.returncode, refused.stdout) == (3, "")


def cloud(plan: Plan) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(export(plan, "cloud-init", drivers=choose()))
    return document


def test_user_data_installs_first_and_reboots_when_asked() -> None:
    document = cloud(EMPTY)
    assert document["runcmd"][0] == ["/usr/local/sbin/redline-drivers"]
    assert document["write_files"][0]["content"] == bootstrap(choose())
    assert document["power_state"]["condition"] == "test -e /run/redline-reboot"


def test_against_cloud_init(tmp_path: Path) -> None:
    program = shutil.which("cloud-init")
    if program is None:
        pytest.skip("cloud-init is not installed: apt install cloud-init")
    _, plan = planned("epyc_8gpu", tmp_path / "box")
    for name, text in (
        ("plain", export(plan, "cloud-init")),
        ("drivers", export(plan, "cloud-init", drivers=choose())),
    ):
        path = tmp_path / f"{name}.yaml"
        path.write_text(text)
        done = subprocess.run([program, "schema", "-c", str(path)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Valid" in done.stdout


@pytest.mark.slow
def test_against_ansible_in_check_mode(tmp_path: Path) -> None:
    """Its syntax, and a run that changes nothing and says what it would."""
    beside = Path(sys.executable).with_name("ansible-playbook")
    program = shutil.which("ansible-playbook") or (str(beside) if beside.exists() else None)
    if program is None:
        pytest.skip("ansible-playbook is not installed: pip install ansible-core")
    text = export(EMPTY, "ansible", drivers=choose()).replace("/usr/local/sbin/", f"{tmp_path}/")
    (tmp_path / "play.yml").write_text(text)
    local = f"ansible_become=false ansible_python_interpreter={sys.executable}"
    command = [program, "-i", "localhost,", "-c", "local", "-e", local, "play.yml"]
    environment = {**os.environ, "HOME": str(tmp_path), "LC_ALL": "C.UTF-8"}
    for more in (["--syntax-check"], ["--check", "--diff"]):
        done = subprocess.run(
            [*command, *more], cwd=tmp_path, capture_output=True, text=True, check=False, env=environment
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert "changed=1" in done.stdout
    assert "BRANCH=580" in done.stdout, "the difference shows the script"
    assert not (tmp_path / "redline-drivers").exists()
