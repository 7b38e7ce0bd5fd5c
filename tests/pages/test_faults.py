from __future__ import annotations

import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from redline.store.browse import Browser
from redline.store.store import Store
from tests.pages.conftest import client_of
from tests.report.stored import FAST, write_run
from tests.store.recorded import EXPERIMENT, record


@pytest.fixture
def copied(filled: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(filled, tmp_path / "copy.db"))


def test_a_missing_store_is_shown_once_it_is_there(tmp_path: Path) -> None:
    path = tmp_path / "later" / "r.db"
    with client_of(path) as client:
        first = client.get("/")
        assert first.status_code == 200
        assert "Nothing has been measured here yet" in first.text
        assert client.get("/run/last").status_code == 404
        assert not path.parent.exists()
        with Store.open(path):
            assert "no run is in it yet" in client.get("/").text
        write_run(path, (FAST,), clients=(2,), seconds=1.0)
        assert "/run/2" in client.get("/").text


def test_a_store_of_a_newer_version(copied: Path) -> None:
    db = sqlite3.connect(copied)
    db.execute("INSERT INTO migration VALUES ('m999_holograms', '9.9', '2030-01-01T00:00:00Z')")
    db.commit()
    db.close()
    with client_of(copied) as client:
        answer = client.get("/")
        assert answer.status_code == 409
        assert "redline 9.9" in answer.text
        assert "m999_holograms" in answer.text


def test_a_file_that_is_no_store(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    path.write_bytes(b"not a database at all, but long enough to be one" * 100)
    with client_of(path) as client:
        answer = client.get("/")
        assert answer.status_code == 503
        assert "it is no SQLite file" in answer.text


@pytest.mark.parametrize("share", [0.15, 0.5, 0.8])
def test_a_damaged_store_says_so_and_never_shows_a_trace(copied: Path, share: float, runs: list[str]) -> None:
    size = copied.stat().st_size
    with copied.open("r+b") as file:
        for page in range(int(size * share) // 4096, int(size * min(share + 0.2, 1)) // 4096):
            file.seek(page * 4096)
            file.write(os.urandom(4096))
    with client_of(copied) as client:
        for address in ("/", f"/run/{runs[0]}", f"/run/{runs[0]}/findings", "/point/1/requests", "/request/3"):
            answer = client.get(address)
            assert answer.status_code in (200, 404, 500, 503)
            assert "Traceback" not in answer.text
            if answer.status_code >= 500:
                assert "damaged" in answer.text


def test_damaged_json_of_one_run_does_not_hide_the_others(copied: Path, runs: list[str]) -> None:
    db = sqlite3.connect(copied)
    db.execute("UPDATE run SET reasons = '[\"half', experiment = '{' WHERE id = ?", (runs[0],))
    db.commit()
    db.close()
    with client_of(copied) as client:
        text = client.get("/").text
        assert all(run in text for run in runs)
        assert client.get(f"/run/{runs[0]}").status_code == 500
        assert client.get(f"/run/{runs[1]}").status_code == 200


def test_a_run_that_is_deleted_while_it_is_open(copied: Path, runs: list[str], points: dict[str, list[int]]) -> None:
    with client_of(copied) as client:
        assert client.get(f"/run/{runs[0]}/findings").status_code == 200
        db = sqlite3.connect(copied)
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("DELETE FROM run WHERE id = ?", (runs[0],))
        db.commit()
        db.close()
        for address in (
            f"/run/{runs[0]}",
            f"/run/{runs[0]}/findings",
            f"/run/{runs[0]}/live",
            f"/point/{points[runs[0]][0]}",
        ):
            assert client.get(address).status_code == 404
        assert client.get("/").status_code == 200


def test_another_store_under_the_same_name_is_not_answered_from_memory(copied: Path, runs: list[str]) -> None:
    with client_of(copied) as client:
        assert client.get(f"/run/{runs[0]}/findings").status_code == 200
        copied.unlink()
        write_run(copied, (FAST,), clients=(2,), seconds=1.0)
        assert client.get(f"/run/{runs[0]}/findings").status_code == 404


def test_a_request_with_50000_chunks(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    with Store.open(path) as store:
        run = store.begin_run(EXPERIMENT, {}, ["redline"])
        trial = store.begin_trial(run, model="m", spec=EXPERIMENT.engines[0], repeat=0)
        from redline.spec.load import LoadPoint

        point = store.begin_point(trial, LoadPoint("closed", 1))
        long = record(0, chunks=50_000)
        long.chunk_ns = [t + (900_000_000 if i >= 30_000 else 0) for i, t in enumerate(long.chunk_ns)]
        store.add_request(point, long)
    with Browser.open(path) as reader:
        number = reader.request_lines(point)[0].id
    with client_of(path) as client:
        text = client.get(f"/request/{number}").text
        assert "1 stall<" in text
        assert len(text) < 40_000
        figures = client.get(f"/request/{number}/chunks.json").json()["figures"]
        assert len(figures[0]["series"][0]["x"]) <= 12_000
        assert max(figures[0]["series"][0]["y"]) == 902  # the stall is never thinned out
        assert figures[0]["bands"][0]["bad"]


def test_a_file_outside_of_the_artifacts_folder_is_not_shown(copied: Path, runs: list[str], tmp_path: Path) -> None:
    secret = tmp_path / "secret.txt"
    secret.write_text("the secret")
    folder = tmp_path / "copy-artifacts" / runs[0]
    folder.mkdir(parents=True)
    (folder / "engine.log").write_text("ready <script>alert(1)</script>\n" * 20_000)
    (folder / "link.log").symlink_to(secret)
    os.mkfifo(folder / "pipe")
    db = sqlite3.connect(copied)
    names = [
        f"{runs[0]}/engine.log",
        str(secret),
        f"../{secret.name}",
        f"{runs[0]}/link.log",
        f"{runs[0]}/gone",
        f"{runs[0]}/pipe",
    ]
    for number, name in enumerate(names, 100):
        db.execute("INSERT INTO artifact VALUES (?, ?, NULL, 'log', ?, 'abc', 1)", (number, runs[0], name))
    db.commit()
    db.close()
    with client_of(copied) as client:
        shown = client.get(f"/run/{runs[0]}/file/100")
        assert shown.status_code == 200
        assert "<script>alert" not in shown.text
        assert "changed since it was stored" in shown.text
        assert "part 3 of 3" in shown.text
        raw = client.get(f"/run/{runs[0]}/file/100/raw")
        assert raw.headers["content-type"] == "application/octet-stream"
        assert raw.headers["content-disposition"].startswith("attachment")
        for number, status in ((101, 404), (102, 404), (103, 404), (104, 503), (105, 503)):
            for end in ("", "/raw"):
                answer = client.get(f"/run/{runs[0]}/file/{number}{end}")
                assert answer.status_code == status
                assert "the secret" not in answer.text
