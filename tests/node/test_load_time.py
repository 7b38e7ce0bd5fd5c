from __future__ import annotations

import mmap
import os
from pathlib import Path

import pytest

from redline.errors import ModelNotFound, Skipped, UsageError
from redline.node.fake import FakeSys
from redline.node.live import LiveSys
from redline.node.load_time import Way, file_ways, filesystem, load_time, make_cold, make_warm
from redline.node.residency import drop, resident_bytes
from tests.node.boxes import plant

MB = 1 << 20


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(os.urandom(2 * MB + 3))
    if drop(folder / "model.safetensors") != 0:
        pytest.skip("this filesystem keeps its files in the page cache alone (tmpfs)")
    return folder


def counted(name: str, log: list[str], seconds: float = 1.0, prepare: Skipped | None = None) -> Way:
    def load() -> float:
        log.append(name)
        return seconds + len(log)

    return Way(name, "made up", 10**9, lambda: prepare, load)


def test_ways_are_interleaved_and_turned() -> None:
    log: list[str] = []
    load_time([counted(name, log) for name in "abc"], repeats=3)
    assert log == ["a", "b", "c", "b", "c", "a", "c", "a", "b"]


def test_median_and_spread_of_what_was_measured() -> None:
    seconds = iter((4.0, 1.0, 2.0))
    (timed,) = load_time([Way("a", "", 2 * 10**9, lambda: None, lambda: next(seconds))])
    assert (timed.median, timed.spread, timed.gb_per_s, timed.seconds) == (2.0, (1.0, 4.0), 1.0, (4.0, 1.0, 2.0))


def test_a_way_that_cannot_be_had_is_skipped_and_asked_once() -> None:
    log: list[str] = []
    asked = []

    def prepare() -> Skipped:
        asked.append(1)
        return Skipped("no")

    ways = [counted("a", log), Way("b", "", 1, prepare, lambda: 1.0)]
    found = load_time(ways, repeats=3)
    assert (len(asked), found[1].skipped, found[1].median) == (1, Skipped("no"), None)
    assert found[1].as_dict()["skipped"] == "no"
    assert len(found[0].seconds) == 3


def test_a_way_that_fails_while_it_loads_is_skipped_too() -> None:
    (timed,) = load_time([Way("a", "", 1, lambda: None, lambda: Skipped("it died"))], repeats=2)
    assert timed.skipped == Skipped("it died")


def test_nothing_to_measure() -> None:
    assert load_time([]) == []
    with pytest.raises(UsageError):
        load_time([], repeats=0)


def test_the_ways_of_a_folder_find_the_cache_as_they_say(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "model.safetensors").write_bytes(os.urandom(MB))
    ways = {way.name: way for way in file_ways(LiveSys(), model, [other], workers=2)}
    assert list(ways) == ["cold", "cold, mapped", "warm", f"cold {other}"]
    assert ways[f"cold {other}"].size == MB
    file = model / "model.safetensors"
    for name, expected in (("cold", 0), ("warm", file.stat().st_size), ("cold, mapped", 0)):
        assert ways[name].prepare() is None
        assert resident_bytes(file) == expected
        seconds = ways[name].load()
        assert isinstance(seconds, float)
        assert resident_bytes(file) == file.stat().st_size


def test_mapped_files_cannot_be_made_cold(model: Path) -> None:
    file = model / "model.safetensors"
    with file.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert len(bytes(mapped)) > 0
        missing = make_cold([file])
    assert missing is not None
    assert "stay in the page cache" in missing.reason
    assert make_cold([file]) is None


def test_what_does_not_fit_cannot_be_made_warm(model: Path, tmp_path: Path) -> None:
    root = plant(tmp_path / "box", {"proc/meminfo": "MemTotal: 2000 kB\nMemAvailable: 1000 kB\n"})
    missing = make_warm([model / "model.safetensors"], root=root)
    assert missing is not None
    assert "do not fit" in missing.reason


def test_the_filesystem_is_that_of_the_longest_mount(tmp_path: Path) -> None:
    place = tmp_path / "a b" / "model"
    place.mkdir(parents=True)
    mounts = f"/dev/vda / ext4 rw 0 0\nnas:/x {str(tmp_path / 'a b').replace(' ', chr(92) + '040')} nfs4 rw 0 0\n"
    plant(tmp_path / "box", {"proc/self/mounts": mounts})
    sys = FakeSys(tmp_path / "box")
    assert filesystem(sys, place) == "nfs4"
    assert filesystem(sys, tmp_path) == "ext4"


def test_a_folder_without_weights(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        file_ways(LiveSys(), tmp_path)
