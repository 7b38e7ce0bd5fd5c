"""The virtual machine: QEMU with two NUMA nodes, an NVMe drive and a second card on node 1, driven over ssh."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

CPU, MEMORY_MIB, NICE = "Nehalem", 2048, 10
"""The oldest processor that numpy's wheels run on is the fastest to emulate."""
BOOT_S = 1800.0
"""For one boot in software emulation on a busy box; about 100 s where it has a CPU to itself."""


class MachineFault(Exception):
    """The machine does not do what it is told; the message has the end of its console."""


def accelerator() -> tuple[str, str]:
    """(kvm or tcg, why)."""
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg", "no /dev/kvm"
    modules = [name for name in ("kvm_intel", "kvm_amd") if Path("/sys/module", name).exists()]
    if modules:
        return "kvm", modules[0]
    # PVM runs kernels that were made for it; Debian's is not
    return "tcg", "/dev/kvm is not Intel's nor AMD's: it does not run a stock kernel"


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Machine:
    """`base` holds the image; the disks of this machine, which start as copies of it, and its logs are in `folder`."""

    def __init__(self, base: Path, folder: Path) -> None:
        self.base, self.folder = base, folder
        self.port, self.accelerator = free_port(), accelerator()[0]
        self.boots: list[float] = []
        """Seconds until ssh answered, per boot."""
        self._qemu: subprocess.Popen[bytes] | None = None
        self._master: subprocess.Popen[bytes] | None = None
        folder.mkdir(parents=True, exist_ok=True)
        self.console, self.events = folder / "console.log", folder / "events.log"
        self._socket = folder / "ssh"
        self.root, self.nvme = folder / "root.qcow2", folder / "nvme.raw"

    def create_disks(self) -> None:
        backing = ["-b", str(self.base / "base.qcow2"), "-F", "qcow2"]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *backing, str(self.root)], check=True)
        with self.nvme.open("wb") as file:
            file.truncate(512 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", str(self.nvme)], check=True, env=with_sbin())

    def argv(self) -> list[str]:
        """The command of QEMU."""
        half = MEMORY_MIB // 2
        nodes = [
            word
            for node in (0, 1)
            for word in (
                *("-object", f"memory-backend-ram,id=m{node},size={half}M"),
                *("-numa", f"node,nodeid={node},cpus={node},memdev=m{node}"),
            )
        ]
        return [
            *("qemu-system-x86_64", "-machine", "q35", "-accel", self.accelerator),
            *("-cpu", "host" if self.accelerator == "kvm" else CPU, "-m", f"{MEMORY_MIB}M"),
            *("-smp", "2,sockets=2,cores=1,threads=1", *nodes, "-numa", "dist,src=0,dst=1,val=21"),
            *(
                "-drive",
                f"if=none,id=root,file={self.root},format=qcow2",
                "-device",
                "virtio-blk-pci,drive=root,bus=pcie.0",
            ),
            *("-device", "pxb-pcie,id=far,bus_nr=64,numa_node=1,bus=pcie.0"),
            *("-device", "pcie-root-port,id=far1,bus=far,chassis=1,slot=1"),
            *("-device", "pcie-root-port,id=far2,bus=far,chassis=2,slot=2"),
            *("-drive", f"if=none,id=nvme,file={self.nvme},format=raw", "-device", "nvme,drive=nvme,serial=1,bus=far1"),
            *("-netdev", f"user,id=access,hostfwd=tcp:127.0.0.1:{self.port}-:22"),
            *("-device", "virtio-net-pci,netdev=access,mac=52:54:00:00:00:01,bus=pcie.0,romfile="),
            *("-netdev", "hubport,id=fabric,hubid=1"),
            *("-device", "virtio-net-pci,netdev=fabric,mac=52:54:00:00:00:02,bus=far2,speed=100000,romfile="),
            *("-device", "virtio-rng-pci,bus=pcie.0", "-display", "none", "-nodefaults", "-vga", "std"),
            *("-chardev", f"file,id=console,path={self.console},append=on", "-serial", "chardev:console"),
            *("-chardev", f"file,id=events,path={self.events},append=on", "-serial", "chardev:events"),
        ]

    def power_on(self, *more: str) -> None:
        """Returns at once. QEMU ends with this process, whatever ends that."""
        self.console.touch()
        self.events.touch()
        argv = ["nice", "-n", str(NICE), "setpriv", "--pdeathsig", "KILL", "--", *self.argv(), *more]
        with (self.folder / "qemu.log").open("ab") as log:
            self._qemu = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self) -> None:
        began = time.monotonic()
        self.power_on()
        self.wait_for_ssh()
        self.boots.append(time.monotonic() - began)

    def wait_for_ssh(self, other_than: str = "") -> None:
        """Until the machine is up, in another boot than `other_than`."""
        end = time.monotonic() + BOOT_S
        while time.monotonic() < end:
            if self._qemu is None or self._qemu.poll() is not None:
                raise MachineFault(f"QEMU has ended: {tail(self.folder / 'qemu.log')}")
            self._hang_up()
            self._call()
            with contextlib.suppress(subprocess.SubprocessError, MachineFault):
                if self.run("cat /proc/sys/kernel/random/boot_id", timeout_s=60) != other_than:
                    self.run("systemctl is-system-running --wait; udevadm settle; true", timeout_s=600)
                    return
            time.sleep(3)
        raise MachineFault(f"no ssh within {BOOT_S:g} s; its console says\n{tail(self.console)}")

    def _ssh(self) -> list[str]:
        options = ["StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR", "ConnectTimeout=20"]
        options += (f"ControlPath={self._socket}", "BatchMode=yes", "ServerAliveInterval=10", "ServerAliveCountMax=6")
        words = [word for option in options for word in ("-o", option)]
        return ["ssh", "-F", "none", *words, "-i", str(self.base / "key"), "-p", str(self.port), "root@127.0.0.1"]

    def _call(self) -> None:
        """One connection for all commands: a handshake takes seconds in emulation."""
        argv = [*self._ssh(), "-M", "-N"]
        self._master = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 60
        while not self._socket.exists() and self._master.poll() is None and time.monotonic() < end:
            time.sleep(0.2)

    def _hang_up(self) -> None:
        if self._master is not None:
            self._master.terminate()
            self._master.wait()
        self._master = None
        self._socket.unlink(missing_ok=True)

    def call(self, command: str, *, stdin: bytes = b"", timeout_s: float = 300.0) -> subprocess.CompletedProcess[bytes]:
        """A command for sh, as root."""
        return subprocess.run([*self._ssh(), command], input=stdin, capture_output=True, timeout=timeout_s, check=False)

    def run(self, command: str, *, stdin: bytes = b"", timeout_s: float = 300.0, ok: tuple[int, ...] = (0,)) -> str:
        """What it printed. MachineFault with what it complained of, when it ends in another way than `ok`."""
        done = self.call(command, stdin=stdin, timeout_s=timeout_s)
        if done.returncode not in ok:
            said = (done.stderr or done.stdout).decode(errors="replace")[-2000:]
            raise MachineFault(f"{command[:200]}: exit code {done.returncode}\n{said}")
        return done.stdout.decode(errors="replace").strip()

    def put(self, path: str, content: str | bytes, mode: str = "644") -> None:
        quoted = shlex.quote(path)
        data = content.encode() if isinstance(content, str) else content
        self.run(f'mkdir -p "$(dirname {quoted})" && cat >{quoted} && chmod {mode} {quoted}', stdin=data)

    def redline(self, *words: str, ok: tuple[int, ...] = (0,), timeout_s: float = 600.0) -> str:
        return self.run(shlex.join(["redline", "node", *words]), ok=ok, timeout_s=timeout_s)

    def asked(self, *words: str, ok: tuple[int, ...] = (0,)) -> object:
        """`redline node … --json`, parsed."""
        return json.loads(self.redline(*words, "--json", ok=ok))

    def boot_id(self) -> str:
        return self.run("cat /proc/sys/kernel/random/boot_id")

    def reboot(self) -> None:
        """As an administrator does it."""
        began, old = time.monotonic(), self.boot_id()
        self.call("systemctl reboot", timeout_s=60)
        self.wait_for_ssh(old)
        self.boots.append(time.monotonic() - began)

    def cut_power(self) -> None:
        """SIGKILL for QEMU: what the machine has not written to its disks is lost."""
        if self._qemu is not None:
            self._qemu.kill()
            self._qemu.wait()
        self._qemu = None
        self._hang_up()

    def wait_for_end(self, timeout_s: float) -> None:
        assert self._qemu is not None
        self._qemu.wait(timeout_s)


def with_sbin() -> dict[str, str]:
    return {**os.environ, "PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}


def tail(path: Path, size: int = 2000) -> str:
    return path.read_text(errors="replace")[-size:] if path.exists() else ""


def missing() -> list[str]:
    """Programs that the machine takes and that are not here."""
    programs = ("qemu-system-x86_64", "qemu-img", "ssh", "setpriv", "mke2fs")
    return [name for name in programs if not shutil.which(name, path=with_sbin()["PATH"])]


def finish(base: Path) -> None:
    """First boot of a new image, with the kernel given from outside: it installs the boot loader and ends."""
    shutil.rmtree(base / "first-boot", ignore_errors=True)  # an earlier "finished" would hide a failure
    machine = Machine(base, base / "first-boot")
    machine.create_disks()
    machine.root = base / "base.qcow2"
    kernel = ["-kernel", str(base / "vmlinuz"), "-initrd", str(base / "initrd.img")]
    began = time.monotonic()
    machine.power_on(*kernel, "-append", "root=/dev/vda1 rw console=ttyS0,115200 no_timer_check panic=5")
    try:
        machine.wait_for_end(BOOT_S)
    except subprocess.TimeoutExpired as error:
        machine.cut_power()
        raise MachineFault(f"the first boot does not end; its console says\n{tail(machine.console)}") from error
    if "finished" not in tail(machine.events):
        raise MachineFault(f"the boot loader was not installed; the console says\n{tail(machine.console)}")
    print(f"vm: first boot in {time.monotonic() - began:.0f} s ({machine.accelerator})")


if __name__ == "__main__":
    finish(Path(sys.argv[1]).resolve())
