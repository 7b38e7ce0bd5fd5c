from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from redline.errors import JournalDamaged, JournalFault
from redline.node.journal import Journal, decode, journal_paths, make_state_dir


def written(folder: Path, *whats: str) -> Journal:
    journal = Journal(folder / "t.jsonl")
    for number, what in enumerate(whats):
        journal.add(what, n=number, text="\x00ä\n")
    return journal


def test_lines_are_json_and_come_back(tmp_path: Path) -> None:
    journal = written(tmp_path, "begin", "intent", "done")
    assert Journal(journal.path).records == journal.records
    lines = journal.path.read_text().splitlines()
    assert [json.loads(line)["what"] for line in lines] == ["begin", "intent", "done"]
    assert journal.path.stat().st_mode & 0o777 == 0o600, "old contents of files are for root alone"


def test_a_half_written_line_is_not_there_and_the_journal_goes_on(tmp_path: Path) -> None:
    journal = written(tmp_path, "begin", "intent")
    content = journal.path.read_bytes()
    second = content.index(b"\n") + 1
    for cut in range(second, len(content)):
        journal.path.write_bytes(content[:cut])
        again = Journal(journal.path)
        whole = cut >= len(content) - 1  # all but the end of the line
        assert [record["what"] for record in again.records] == (["begin", "intent"] if whole else ["begin"])
        again.add("later")
        again.add("last")
        assert [record["what"] for record in Journal(journal.path).records][-2:] == ["later", "last"]


@pytest.mark.parametrize("change", ["flip", "drop", "swap", "repeat"])
def test_a_line_changed_lost_or_moved_is_seen(tmp_path: Path, change: str) -> None:
    path = written(tmp_path, "one", "two", "three", "four").path
    lines = path.read_bytes().splitlines(keepends=True)
    if change == "flip":
        lines[1] = lines[1].replace(b'"n":1', b'"n":9')
    elif change == "drop":
        del lines[1]
    elif change == "swap":
        lines[1], lines[2] = lines[2], lines[1]
    else:
        lines.insert(1, lines[1])
    path.write_bytes(b"".join(lines))
    with pytest.raises(JournalDamaged, match="line"):
        Journal(path)
    assert Journal(path, salvage=True).records[0]["what"] == "one"


def test_garbage_is_no_crash() -> None:
    for content in (b"", b"\n\n", b"\xff\xfe\n", b"{}\n", b'null,"sum":"0123456789abcdef"}\n', b'{"a":1,"sum":"x"}\n'):
        assert decode(content).records == ()


def test_a_full_disk_is_said_before_anything_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = written(tmp_path, "begin")

    def full(_fd: int, _line: bytes) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", full)
        with pytest.raises(JournalFault, match="No space left"):
            journal.add("intent")
    journal.add("end")
    assert [record["what"] for record in Journal(journal.path).records] == ["begin", "end"]


def test_line_and_name_are_on_disk_before_add_returns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    real = os.fsync

    def fsync(fd: int) -> None:
        synced.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    journal = written(tmp_path, "begin")
    assert synced == [str(journal.path), str(tmp_path)]
    journal.add("intent")
    assert synced[2:] == [str(journal.path)]


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(JournalFault, match="cannot be made"):
        make_state_dir(Path("/proc/nowhere/redline"))
    assert journal_paths(tmp_path / "none") == []


def test_a_folder_that_may_not_be_read_is_not_an_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(_folder: Path) -> list[str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(JournalFault, match="Permission denied"):
        journal_paths(tmp_path)


def test_whatever_is_killed_while_adding_leaves_whole_lines(tmp_path: Path) -> None:
    """A real process, a real SIGKILL, in the middle of many lines."""
    code = (
        "import sys; from pathlib import Path; from redline.node.journal import Journal\n"
        "journal = Journal(Path(sys.argv[1]))\n"
        "for n in range(10**6):\n    journal.add('line', n=n)\n    print(n, flush=True)\n"
    )
    path = tmp_path / "t.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code, str(path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    seen = [int(process.stdout.readline()) for _ in range(50)]
    process.kill()
    seen += [int(line) for line in process.stdout.read().split("\n") if line]
    process.wait()
    process.stdout.close()
    numbers = [record["n"] for record in Journal(path).records]
    assert numbers[: len(seen)] == seen, "what was said to be written is there"
