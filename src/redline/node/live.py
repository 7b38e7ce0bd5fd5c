"""The box that redline runs on: reads, one write(2) per attribute, whole files replaced, commands with a time limit."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import os
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from redline.node.sys import Ran, Stat, SysFault, Why, under

_WHY: dict[int, Why] = {
    errno.ENOENT: "absent",
    errno.ENODEV: "absent",
    errno.ENXIO: "absent",
    errno.ENOTDIR: "absent",
    errno.EPERM: "denied",
    errno.EACCES: "denied",
    errno.EINVAL: "invalid",
    errno.ERANGE: "invalid",
    errno.EBUSY: "busy",
    errno.EIO: "io",
    errno.EROFS: "readonly",
}
_READ_AT_BOOT = ("/boot/", "/efi/")
_EXT4_CHECKPOINT = 0x4004662B  # EXT4_IOC_CHECKPOINT, linux/ext4.h: _IOW('f', 43, __u32)


def fault(path: str, number: int, detail: str = "") -> SysFault:
    """The `SysFault` of an errno."""
    return SysFault(_WHY.get(number, "unsupported"), path, number, detail or os.strerror(number))


@contextlib.contextmanager
def telling(path: str) -> Iterator[None]:
    """Turns an OSError into a SysFault about `path`."""
    try:
        yield
    except OSError as error:
        raise fault(path, error.errno or 0) from error


class LiveSys:
    """`root` other than / is a folder that holds a box's files; then commands still run on this machine."""

    kind: Literal["live", "fake", "recording"] = "live"

    def __init__(self, root: Path = Path("/")) -> None:
        self.root = root

    def at(self, path: str) -> Path:
        return under(self.root, path)

    def read(self, path: str) -> bytes:
        with telling(path):
            return self.at(path).read_bytes()

    def exists(self, path: str) -> bool:
        return self.at(path).exists()

    def names(self, folder: str) -> list[str]:
        try:
            return sorted(entry.name for entry in self.at(folder).iterdir())
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return []
            raise fault(folder, error.errno or 0) from error

    def link(self, path: str) -> str | None:
        try:
            return str(self.at(path).readlink())
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return None
            raise fault(path, error.errno or 0) from error

    def glob(self, pattern: str) -> list[str]:
        found = glob.glob(pattern.lstrip("/"), root_dir=self.root, include_hidden=False)  # noqa: PTH207
        return sorted(f"/{path}" for path in found)

    def set_attribute(self, path: str, value: bytes) -> None:
        with telling(path):
            descriptor = os.open(self.at(path), os.O_WRONLY | os.O_CLOEXEC)
            try:
                written = os.write(descriptor, value)
            finally:
                os.close(descriptor)
        if written != len(value):
            raise SysFault("io", path, errno.EIO, f"the kernel took {written} of {len(value)} bytes")

    def stat(self, path: str) -> Stat | None:
        try:
            found = self.at(path).stat()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            raise fault(path, error.errno or 0) from error
        return Stat(found.st_mode & 0o7777, found.st_uid, found.st_gid)

    def put_file(self, path: str, content: bytes, stat: Stat | None = None) -> None:
        stat = stat or self.stat(path)
        target = self._behind(path)
        beside = target.with_name(f".{target.name}.redline-{os.getpid()}")
        with telling(path):
            _make_folder(target.parent)
            try:
                self._write_new(beside, content, stat)
                _copy_attributes(target, beside)
                beside.replace(target)
            except BaseException:
                beside.unlink(missing_ok=True)
                raise
            self._settle(path, target.parent)

    def _behind(self, path: str) -> Path:
        """The file itself: a link to it stays one. SysFault for what is no regular file: /dev/null, where a file is
        masked."""
        target = self.at(path)
        if target.is_symlink():
            target = Path(os.path.realpath(target))
        if target.exists() and not target.is_file():
            raise SysFault("unsupported", path, 0, f"{target} is no regular file: a link to /dev/null masks one")
        return target

    def _write_new(self, beside: Path, content: bytes, stat: Stat | None) -> None:
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            if stat is not None and (stat.uid, stat.gid) != (os.geteuid(), os.getegid()):
                os.fchown(descriptor, stat.uid, stat.gid)
            os.fchmod(descriptor, stat.mode if stat else 0o644)  # after chown, which clears set-id bits
            file.flush()
            os.fsync(descriptor)

    def remove_file(self, path: str) -> None:
        target = self._behind(path)
        with telling(path):
            target.unlink()
            self._settle(path, target.parent)

    def make_durable(self, paths: Sequence[str]) -> None:
        for path in paths:
            target = Path(os.path.realpath(self.at(path)))
            if target.is_file():
                with telling(path):
                    _sync(target, os.O_RDONLY)
                    self._settle(path, target.parent)

    def _settle(self, path: str, folder: Path) -> None:
        """A changed name on disk; for a boot loader's files also out of the journal."""
        _sync_folder(folder)
        if path.startswith(_READ_AT_BOOT) and self.root == Path("/"):
            _checkpoint(folder)

    def remove_folder(self, path: str) -> None:
        try:
            self.at(path).rmdir()
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
                return
            raise fault(path, error.errno or 0) from error
        with telling(path):
            _sync_folder(self.at(path).parent)

    def run(self, argv: Sequence[str], *, timeout_s: float = 30.0, stdin: str = "") -> Ran:
        environment = {**os.environ, "LC_ALL": "C"}
        try:
            done = subprocess.run(
                list(argv),
                input=stdin,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=timeout_s,
                env=environment,
                check=False,
            )
        except FileNotFoundError:
            return Ran(tuple(argv), 127, "", f"{argv[0]}: command not found")
        except subprocess.TimeoutExpired as error:
            raise SysFault("busy", argv[0], errno.ETIMEDOUT, f"no end within {timeout_s:g} s") from error
        except OSError as error:
            raise fault(argv[0], error.errno or 0) from error
        return Ran(tuple(argv), done.returncode, done.stdout, done.stderr)

    def user_is_root(self) -> bool:
        return os.geteuid() == 0


def _copy_attributes(source: Path, target: Path) -> None:
    """Extended attributes: a file that takes another one's place has its SELinux label and its access control list."""
    with contextlib.suppress(OSError):
        for name in os.listxattr(source):
            with contextlib.suppress(OSError):
                os.setxattr(target, name, os.getxattr(source, name))


def _make_folder(folder: Path) -> None:
    """With those above it, each on disk: a file is lost with a folder that is."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for each in missing:
        _sync_folder(each.parent)


def _sync_folder(folder: Path) -> None:
    """Makes a rename or a removal survive a power cut."""
    _sync(folder, os.O_RDONLY | os.O_DIRECTORY)


def _sync(path: Path, flags: int) -> None:
    descriptor = os.open(path, flags | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _checkpoint(folder: Path) -> None:
    """Writes ext4's journal out (Linux 5.14). GRUB does not read it: without this a box whose power is cut starts with
    the boot arguments of half a minute before. Other file systems are left to themselves."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(descriptor, _EXT4_CHECKPOINT, struct.pack("=I", 0))
    finally:
        os.close(descriptor)
