from __future__ import annotations

import mmap
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from redline.node import residency
from redline.node.residency import drop, resident_bytes

SIZE = 3 * 1024 * 1024 + 5
"""No whole number of pages."""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(SIZE))
    if drop(path) != 0:
        pytest.skip("this filesystem keeps its files in the page cache alone (tmpfs): set --basetemp to a disk")
    return path


@pytest.fixture(params=["cachestat", "mincore"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Each of the two, also where the kernel has both."""
    if request.param == "mincore":
        monkeypatch.setattr(residency, "_by_cachestat", lambda descriptor: None)
    else:
        monkeypatch.setattr(residency, "_may_ask_mincore", lambda of, descriptor: False)
        with Path("/proc/self/status").open() as file:
            if residency._by_cachestat(file.fileno()) is None:
                pytest.skip("no cachestat(2): Linux 6.5, or a filter that lets it pass")
    return str(request.param)


def test_all_part_and_nothing(file: Path, way: str) -> None:
    assert resident_bytes(file) == 0
    with file.open("rb", buffering=0) as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # no read-ahead
        opened.read(10 * mmap.PAGESIZE)
    assert 10 * mmap.PAGESIZE <= (resident_bytes(file) or 0) < SIZE
    file.read_bytes()
    assert resident_bytes(file) == SIZE
    assert drop(file) == 0


def test_an_empty_file(tmp_path: Path, way: str) -> None:
    (tmp_path / "empty").touch()
    assert resident_bytes(tmp_path / "empty") == 0


def test_against_mincore(file: Path) -> None:
    """Where both can be asked they agree, also for a part."""
    with file.open("rb", buffering=0) as opened:
        os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_RANDOM)  # nothing is on its way while we count
        opened.read(SIZE // 3)
        counted = residency._by_cachestat(opened.fileno())
        if counted is None:
            pytest.skip("no cachestat(2): Linux 6.5")
        assert counted == residency._by_mincore(opened.fileno(), SIZE)


def test_dirty_pages_are_written_out_before_they_are_dropped(tmp_path: Path, file: Path) -> None:
    path = tmp_path / "dirty"
    path.write_bytes(b"x" * SIZE)
    assert drop(path) == 0
    assert path.read_bytes() == b"x" * SIZE


def test_mapped_pages_stay_and_are_told(file: Path) -> None:
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[at] >= 0 for at in range(0, SIZE, mmap.PAGESIZE)) > 0
        assert drop(file) or 0 > 0


def test_another_users_file_is_not_told_by_mincore(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(residency, "_by_cachestat", lambda descriptor: None)
    monkeypatch.setattr(residency, "_may_ask_mincore", lambda of, descriptor: False)
    assert resident_bytes(file) is None


def test_no_such_file(tmp_path: Path) -> None:
    ways: list[Callable[[Path], int | None]] = [resident_bytes, drop]
    for ask in ways:
        with pytest.raises(FileNotFoundError):
            ask(tmp_path / "nothing")
