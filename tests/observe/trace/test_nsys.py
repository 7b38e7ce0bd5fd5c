from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from redline.errors import UsageError
from redline.observe.trace.columns import ANNOTATION, COPY, KERNEL, LAUNCH
from redline.observe.trace.nsys import read_nsys

MAIN = (7 << 24) | 9


def export(path: Path, *, memset: bool = True) -> Path:
    """An export with the documented tables: two decode steps of two kernels and a copy each."""
    db = sqlite3.connect(path)
    db.executescript(
        """
        CREATE TABLE StringIds (id INTEGER PRIMARY KEY, value TEXT NOT NULL);
        CREATE TABLE CUPTI_ACTIVITY_KIND_KERNEL (start INTEGER, end INTEGER, deviceId INTEGER, contextId INTEGER,
            streamId INTEGER, correlationId INTEGER, globalPid INTEGER, demangledName INTEGER, shortName INTEGER,
            gridX INTEGER, graphNodeId INTEGER);
        CREATE TABLE CUPTI_ACTIVITY_KIND_MEMCPY (start INTEGER, end INTEGER, deviceId INTEGER, streamId INTEGER,
            correlationId INTEGER, bytes INTEGER, copyKind INTEGER);
        CREATE TABLE CUPTI_ACTIVITY_KIND_RUNTIME (start INTEGER, end INTEGER, eventClass INTEGER, globalTid INTEGER,
            correlationId INTEGER, nameId INTEGER, returnValue INTEGER);
        CREATE TABLE NVTX_EVENTS (start INTEGER, end INTEGER, eventType INTEGER, text TEXT, textId INTEGER,
            globalTid INTEGER);
        """
    )
    names = ["nvjet_tst_128x8", "void flash::flash_fwd_splitkv_kernel<A>(P)", "cudaGraphLaunch_v10000",
             "cudaStreamSynchronize", "execute_context_0(0)_generation_4(4)"]  # fmt: skip
    db.executemany("INSERT INTO StringIds VALUES (?, ?)", list(enumerate(names)))
    for step in range(2):
        at, link = step * 1_000_000, step + 1
        kernels = [(at + 100_000, at + 300_000, 0), (at + 300_000, at + 400_000, 1)]
        for start, end, name in kernels:
            row = (start, end, 0, 1, 7, link, 0, name, name, 1, 0)
            db.execute(f"INSERT INTO CUPTI_ACTIVITY_KIND_KERNEL VALUES ({', '.join('?' * 11)})", row)
        copied = (at + 500_000, at + 510_000, 0, 7, 100 + link, 64, 2)
        db.execute("INSERT INTO CUPTI_ACTIVITY_KIND_MEMCPY VALUES (?, ?, ?, ?, ?, ?, ?)", copied)
        for name, offset in ((2, 20_000), (3, 50_000)):
            call = (at + offset, at + offset + 5_000, 0, MAIN, link, name, 0)
            db.execute("INSERT INTO CUPTI_ACTIVITY_KIND_RUNTIME VALUES (?, ?, ?, ?, ?, ?, ?)", call)
        db.execute("INSERT INTO NVTX_EVENTS VALUES (?, ?, 59, NULL, 4, ?)", (at + 10_000, at + 90_000, MAIN))
    db.execute("INSERT INTO NVTX_EVENTS VALUES (5, NULL, 34, 'a mark', NULL, ?)", (MAIN,))
    db.commit()
    db.close()
    return path


def test_the_documented_tables(tmp_path: Path) -> None:
    found = read_nsys(export(tmp_path / "r.sqlite"))
    kinds = found.kind.tolist()
    assert [kinds.count(kind) for kind in (KERNEL, COPY, LAUNCH, ANNOTATION)] == [4, 2, 2, 2]
    assert "Memcpy DtoH" in found.names
    assert found.length_us[kinds.index(KERNEL)] == 200.0
    assert ("7", "9") in found.tracks
    assert found.readout.trouble == ""


def test_steps_of_an_export(tmp_path: Path) -> None:
    """Ranges of the host become steps by the correlation of what was launched inside them."""
    from redline.tune.profile.profile import profile_trace

    reading = profile_trace(export(tmp_path / "r.sqlite"))
    assert reading.analysed is not None
    decode = reading.analysed.phase("decode")
    assert decode is not None
    assert decode.step_us == pytest.approx(1000.0)
    assert decode.by_class == {"matrix product": 200.0, "attention": 100.0, "copy": 10.0}
    assert decode.launches == 2
    assert decode.generated == 4


def test_another_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE a (b)")
    with pytest.raises(UsageError, match="no export of nsys"):
        read_nsys(path)


def test_an_empty_capture_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "empty.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE StringIds (id INTEGER, value TEXT)")
    with pytest.raises(UsageError, match="holds no kernel"):
        read_nsys(path)


def test_a_damaged_export_says_what_was_readable(tmp_path: Path) -> None:
    path = export(tmp_path / "r.sqlite")
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE CUPTI_ACTIVITY_KIND_MEMCPY")
        db.execute("ALTER TABLE CUPTI_ACTIVITY_KIND_KERNEL DROP COLUMN demangledName")
    found = read_nsys(path)
    assert (found.kind == KERNEL).sum() == 4
    assert "nvjet_tst_128x8" in found.names
