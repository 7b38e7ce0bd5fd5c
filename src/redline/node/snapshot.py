"""A redacted copy of what the reading verbs see of a box, as one file, and the way back from it."""

from __future__ import annotations

import gzip
import io
import json
import os
import pwd
import shutil
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from redline.errors import DiskFull, EnvironmentFault, UsageError
from redline.node.audit import audit
from redline.node.box import ANSWERS, node_facts, opened, root_of
from redline.node.containers import DOCKER_CONFIG, kept
from redline.node.facts import asked
from redline.node.fake import BOX_FILE, Box
from redline.node.kernel import told_kernel
from redline.node.recording import RecordingSys
from redline.node.redact import NEVER, Redactor
from redline.node.remember import Remembering
from redline.node.sys import Sys, SysFault, text
from redline.node.tunables.table import TUNABLES
from redline.node.tunables.tunable import PROFILES

MOST_BYTES = 256 << 20
"""Of an opened snapshot: it comes from somebody else."""

_MEMORY = ("max", "high", "low", "current", "stat", "swap.max", "limit_in_bytes", "usage_in_bytes")
_GROUPS = (
    *("cpu.max", "cpu.stat", "cpu.cfs_*", "cpu.weight", "cpu.shares", "cpuset.*", "pids.max", "hugetlb.*"),
    *(f"memory.{name}" for name in _MEMORY),
)
FILES = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/cmdline", "/proc/loadavg", "/proc/uptime", "/proc/pressure/*"),
    *("/proc/self/status", "/proc/self/cgroup", "/proc/1/cgroup", "/proc/1/environ", "/proc/sys/vm/swappiness"),
    *("/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/numa_balancing", "/proc/sys/kernel/osrelease"),
    *("/proc/sys/kernel/version", "/proc/sys/net/ipv4/tcp_congestion_control", "/proc/sys/net/core/somaxconn"),
    *("/etc/os-release", "/sys/devices/system/cpu/online", "/sys/devices/system/cpu/smt/control"),
    "/sys/devices/system/cpu/cpu[0-9]*/topology/*_id",
    "/sys/devices/system/cpu/cpu[0-9]*/topology/thread_siblings_list",
    *("/sys/devices/system/cpu/cpuidle/current_driver", "/sys/devices/system/cpu/cpufreq/boost"),
    *("/sys/devices/system/cpu/cpufreq/policy*/scaling_*", "/sys/devices/system/cpu/intel_pstate/no_turbo"),
    "/sys/devices/system/cpu/cpufreq/policy*/energy_performance_preference",
    *("/sys/devices/system/node/node[0-9]*/meminfo", "/sys/devices/system/node/node[0-9]*/cpulist"),
    *("/sys/devices/system/node/node[0-9]*/distance", "/sys/kernel/mm/transparent_hugepage/enabled"),
    *("/sys/kernel/mm/hugepages/hugepages-*/nr_hugepages", "/sys/kernel/mm/hugepages/hugepages-*/free_hugepages"),
    *("/sys/class/dmi/id/sys_vendor", "/sys/class/dmi/id/product_name", "/sys/class/dmi/id/bios_vendor"),
    *("/sys/hypervisor/type", "/sys/devices/system/clocksource/clocksource0/current_clocksource"),
    *("/sys/kernel/debug/sched/preempt", "/sys/kernel/mm/transparent_hugepage/defrag"),
)
"""What the facts read without a `Sys`, which alone can be recorded."""
PLACES = ("/.dockerenv", "/run/.containerenv", "/var/run/secrets/kubernetes.io", "/sys/fs/cgroup/unified")
"""Asked only whether they are there."""
ROWS = "/redline-rows.json"


def snapshot(sys: Sys, output: Path, nvml_library: Any = None) -> Path:
    """Writes a .tar.gz of what `facts` and `audit` read on `sys`, without what identifies the box or a person.

    Raises UsageError when `output` is a folder, DiskFull when it cannot be written.
    """
    if output.is_dir():
        raise UsageError(f"{output} is a folder", fix=f"--output {output / 'box.tar.gz'}")
    with tempfile.TemporaryDirectory(prefix="redline-snapshot-") as folder:
        copy = Path(folder)
        _record(sys, copy, nvml_library)
        _redact(copy, Redactor(names_of(sys)))
        beside = output.with_name(f".{output.name}.{os.getpid()}")
        try:
            output.parent.mkdir(parents=True, exist_ok=True)
            _pack(copy, beside)
            beside.replace(output)
        except OSError as error:
            with suppress(OSError):
                beside.unlink(missing_ok=True)
            raise DiskFull(f"{output} cannot be written: {error.strerror}", fix="--output elsewhere") from error
    return output


def _record(sys: Sys, into: Path, nvml_library: Any) -> None:
    recording = RecordingSys(sys, into)
    answers = json.dumps(asked(root_of(sys), nvml_library), default=str)
    for pattern in (*FILES, *_group_files(recording)):
        for path in recording.glob(pattern):
            with suppress(SysFault):
                recording.read(path)
    for path in PLACES:
        recording.exists(path)
    once = Remembering(recording)
    node_facts(once, nvml_library)
    for profile in PROFILES:
        audit(once, profile)
    recording.save()
    (into / ANSWERS.lstrip("/")).write_text(answers)
    (into / ROWS.lstrip("/")).write_text(json.dumps([tunable.id for tunable in TUNABLES]))


def unasked(sys: Sys) -> list[str]:
    """Settings that came to redline after this copy was made: what they read is not in it, and looks absent."""
    kept = text(sys, ROWS)
    return [] if kept is None else sorted({tunable.id for tunable in TUNABLES} - set(json.loads(kept)))


def _group_files(sys: Sys) -> Iterator[str]:
    """Limit files of this process's control groups and of those above, v1 and v2."""
    for line in (text(sys, "/proc/self/cgroup") or "").splitlines():
        _, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        mounts = (
            ["", "/unified"] if not controllers else [f"/{controllers}", *(f"/{one}" for one in controllers.split(","))]
        )
        parts = PurePosixPath(group.lstrip("/"))
        for folder in (parts, *parts.parents):
            for mount in mounts:
                yield from (
                    f"/sys/fs/cgroup{mount}{_inside(folder)}/{name}" for name in _GROUPS if ".." not in folder.parts
                )


def _inside(folder: PurePosixPath) -> str:
    return "" if str(folder) == "." else f"/{folder}"


def names_of(sys: Sys) -> set[str]:
    """Names of this box and of the people who have an account on it."""
    found = {
        text(sys, path) or "" for path in ("/proc/sys/kernel/hostname", "/etc/hostname", "/proc/sys/kernel/domainname")
    }
    found |= {name.partition(".")[0] for name in found}
    for line in (text(sys, "/etc/passwd") or "").splitlines():
        fields = line.split(":")
        if len(fields) > 2 and fields[2].isdigit() and 1000 <= int(fields[2]) < 60000:
            found.add(fields[0])
    if sys.kind == "live":
        found |= {os.environ.get(name, "") for name in ("USER", "LOGNAME", "SUDO_USER")}
        with suppress(KeyError):
            found.add(pwd.getpwuid(os.getuid()).pw_name)
    return found - {"", "(none)"}


def _redact(copy: Path, redactor: Redactor) -> None:
    """Every file in place; the command line first, so that its placeholders are those that `facts` shows."""
    cmdline = copy / "proc/cmdline"
    if cmdline.exists():
        cmdline.write_text(told_kernel(cmdline.read_text(errors="replace"), redactor) + "\n")
    for path in sorted(path for path in copy.rglob("*") if path.is_file()):
        inside = f"/{path.relative_to(copy)}"
        if inside in ("/proc/cmdline", ANSWERS, f"/{BOX_FILE}"):
            continue
        if NEVER.search(path.name):
            path.write_bytes(b"")
            continue
        content = path.read_bytes().decode(errors="replace")
        path.write_text(_redacted(inside, content, redactor))
    _redact_box(copy, redactor)
    # deepest first, so that a folder is renamed after what is in it
    for path in sorted(copy.rglob("*"), key=lambda path: len(path.parts), reverse=True):
        path.rename(path.with_name(_name(redactor, f"/{path.relative_to(copy)}").rsplit("/", 1)[-1]))


def _redacted(path: str, content: str, redactor: Redactor) -> str:
    name = path.rsplit("/", 1)[-1]
    if name == "environ":  # of all that stands there only this says what kind of container it is
        return "\0".join(entry for entry in content.split("\0") if entry.startswith("container="))
    if name in ("mounts", "mountinfo", "fstab"):
        return redactor.mounts(content)
    if path == DOCKER_CONFIG:
        with suppress(ValueError, AttributeError):
            return json.dumps(kept(json.loads(content)))
    # the kernel's own files hold single words, and a box may be called like one of them
    is_word = path.startswith(("/sys/", "/proc/sys/")) and not path.startswith("/sys/fs/cgroup/")
    return redactor.path(content) if is_word else redactor.text(content)


def _name(redactor: Redactor, path: str) -> str:
    path = redactor.path(path)
    return redactor.named(path) if path.startswith("/sys/fs/cgroup/") else path


def _redact_box(copy: Path, redactor: Redactor) -> None:
    box = Box.of(copy)
    told = {line: (rc, redactor.command(line, out)) for line, (rc, out) in box.commands.items()}
    box.commands = {line: (rc, out) for line, (rc, out) in told.items() if out is not None}
    box.links = {_name(redactor, path): redactor.path(target) for path, target in box.links.items()}
    box.unreadable = {_name(redactor, path): why for path, why in box.unreadable.items()}
    box.save(copy)


def _pack(copy: Path, output: Path) -> None:
    """Without times, owners and modes: they tell of the box, and two snapshots of one state are equal bytes."""

    def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = member.mtime = 0
        member.uname = member.gname = ""
        member.mode = 0o755 if member.isdir() else 0o644
        return member

    with (
        output.open("wb") as raw,
        gzip.GzipFile("", "wb", mtime=0, fileobj=raw) as packed,
        tarfile.open(fileobj=packed, mode="w") as archive,
    ):
        for path in sorted(copy.rglob("*")):
            archive.add(path, str(path.relative_to(copy)), recursive=False, filter=plain)


@contextmanager
def replayed(place: Path | None) -> Iterator[Sys]:
    """The box kept at `place`: a folder, or a snapshot, which is unpacked for as long as it is looked at. None: this
    one. Raises UsageError and EnvironmentFault when `place` is neither."""
    from redline.node.live import LiveSys

    with ExitStack() as stack:
        if place is None:
            yield LiveSys()
        elif place.is_dir() or not place.exists():
            yield opened(place)
        else:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="redline-box-")))
            unpack(place, folder)
            yield opened(folder)


def unpack(archive: Path, into: Path) -> None:
    """Plain files and folders only, nothing outside `into`, no more than MOST_BYTES. Raises EnvironmentFault."""
    left = MOST_BYTES
    try:
        with tarfile.open(archive) as opened_archive:
            for member in opened_archive:
                place = into / member.name
                if member.name.startswith("/") or ".." in Path(member.name).parts:
                    raise EnvironmentFault(f"{archive} would write outside of its folder: {member.name}")
                left -= member.size
                if left < 0:
                    raise EnvironmentFault(f"{archive} is larger than {MOST_BYTES >> 20} MiB: no snapshot of redline's")
                if member.isdir():
                    place.mkdir(parents=True, exist_ok=True)
                elif member.isfile():
                    place.parent.mkdir(parents=True, exist_ok=True)
                    with place.open("wb") as file:
                        shutil.copyfileobj(opened_archive.extractfile(member) or io.BytesIO(), file)
    except (OSError, tarfile.TarError, EOFError) as error:
        why = f"it cannot be opened: {error}"
        raise EnvironmentFault(f"{archive} is no copy of a box", why=why, fix="a folder, or a snapshot") from error
