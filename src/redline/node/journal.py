"""What redline is about to do to the box and what it has done, line by line, on disk before the box is touched.

One file per transaction, lines are only ever added. A line is a JSON object whose `sum` is a hash over the line before
and this one, so that a line that was cut, changed, lost or put elsewhere is seen. A line that a crash or a power cut
left half written counts as not written; what follows it starts on a line of its own.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from redline.errors import JournalDamaged, JournalFault

SUFFIX = ".jsonl"
Record = dict[str, Any]


def _sum(before: str, body: str) -> str:
    return hashlib.sha256(f"{before}\n{body}".encode()).hexdigest()[:16]


def encode(record: Record, before: str) -> tuple[bytes, str]:
    """The line, and its sum, which the next one takes."""
    body = json.dumps(record, separators=(",", ":"))
    total = _sum(before, body)
    return f'{body[:-1]},"sum":"{total}"}}\n'.encode(), total


@dataclass(frozen=True)
class Read:
    """`records` without their sums. `last` is the sum that the next line takes. `ends_clean`: the file ends with a
    whole line. `damaged`: the first line (from 1) that is neither whole nor the remains of a crash; 0: none."""

    records: tuple[Record, ...]
    last: str
    ends_clean: bool
    damaged: int = 0


def decode(content: bytes) -> Read:
    """Lines of a journal. A broken line is a crash's when it is the last one, or when the next whole line follows on
    from the last whole one."""
    records: list[Record] = []
    last, damaged = "", 0
    lines = content.split(b"\n")
    for number, line in enumerate(lines, 1):  # the last one may be whole but for its end of line
        record, total, follows = _decode_line(line, last)
        if record is None:
            continue
        if not follows:
            damaged = damaged or number
        records.append(record)
        last = total
    return Read(tuple(records), last, lines[-1] == b"", damaged)


def _decode_line(line: bytes, last: str) -> tuple[Record | None, str, bool]:
    """The record (None: not a whole line), its sum, and whether the sum says that it follows `last`."""
    body, mark, rest = line.rpartition(b',"sum":"')
    total = rest[:16].decode("latin-1")
    if not mark or rest[16:] != b'"}':
        return None, "", False
    try:
        record = json.loads(body + b"}")
        follows = _sum(last, body.decode() + "}") == total
    except ValueError:
        return None, "", False
    return record, total, follows


class Journal:
    """One transaction's file, open for more lines. Whoever writes holds the lock."""

    def __init__(self, path: Path, *, salvage: bool = False) -> None:
        """`salvage`: a damaged journal is read as far as its lines go, instead of JournalDamaged."""
        self.path = path
        content = read_bytes(path)
        read = decode(content)
        if read.damaged and not salvage:
            raise JournalDamaged(
                f"{path}: line {read.damaged} does not follow from the one before",
                why="somebody or a failing disk changed the journal; what it says may be wrong",
                fix="compare it with the box; redline node revert TXN --force uses the lines that can be read",
            )
        self.records = list(read.records)
        self._last = read.last
        self._clean = read.ends_clean

    @property
    def txn(self) -> str:
        return self.path.name.removesuffix(SUFFIX)

    def add(self, what: str, **fields: Any) -> None:
        """Writes one line and waits until the disk has it."""
        record: Record = {"what": what, **fields}
        line, total = encode(record, self._last)
        try:
            self._append(line if self._clean else b"\n" + line)
        except OSError as error:
            self._clean = False  # a part of it may be there
            raise JournalFault(
                f"the journal cannot be written: {self.path}: {error.strerror}",
                why="redline changes nothing that it could not undo",
                fix="make room there, or give another place with --state-dir",
            ) from error
        self._clean = True
        self._last = total
        self.records.append(record)

    def _append(self, line: bytes) -> None:
        created = not self.path.exists()
        fd = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            left = line
            while left:
                left = left[os.write(fd, left) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        if created:
            sync_folder(self.path.parent)


def read_bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise JournalFault(f"{path}: {error.strerror}", fix="sudo, or another --state-dir") from error


def sync_folder(folder: Path) -> None:
    """A new name is on disk once its folder is."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def make_state_dir(state_dir: Path) -> None:
    """The folder of journals, on disk. It holds old contents of files: for root alone."""
    missing = [folder for folder in (state_dir, *state_dir.parents) if not folder.exists()]
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        for folder in missing:
            sync_folder(folder.parent)
    except OSError as error:
        raise JournalFault(
            f"the folder of journals cannot be made: {state_dir}: {error.strerror}",
            why="redline changes nothing that it could not undo",
            fix="sudo, or another place with --state-dir",
        ) from error


def journal_paths(state_dir: Path) -> list[Path]:
    """Every transaction's file, oldest first."""
    try:
        # not glob: that finds nothing in a folder that may not be read, and nothing would be a lie
        names = os.listdir(state_dir)  # noqa: PTH208
    except FileNotFoundError:
        return []
    except OSError as error:
        raise JournalFault(f"{state_dir}: {error.strerror}", fix="sudo, or another --state-dir") from error
    return sorted(state_dir / name for name in names if name.endswith(SUFFIX))
