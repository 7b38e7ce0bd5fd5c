from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from redline import __version__
from redline.errors import StoreFault, StoreTooNew
from redline.store import migrations
from redline.store.file import APPLICATION_ID, artifacts_folder, default_path, explain, open_readonly, open_writable
from redline.store.migrations import MIGRATIONS
from redline.store.store import Store


def test_default_place() -> None:
    assert default_path() == Path("redline-results/redline.db")
    assert artifacts_folder(default_path()) == Path("redline-results/redline-artifacts")


def test_a_new_file_says_what_it_is_and_how_it_came_to_be(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "down" / "r.db"
    open_writable(path).close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA application_id").fetchone()[0] == APPLICATION_ID
        assert db.execute("PRAGMA journal_mode").fetchone()[0] == "wal"
        applied = [(migration.__name__, __version__) for migration in MIGRATIONS]
        assert db.execute("SELECT name, redline_version FROM migration").fetchall() == applied
        assert db.execute("PRAGMA foreign_key_check").fetchall() == []
    db.close()


def test_opening_again_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    open_writable(path).close()
    before = path.read_bytes()
    open_writable(path).close()
    assert path.read_bytes() == before


def test_a_newer_file_is_refused_and_named(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    db = open_writable(path)
    db.execute("INSERT INTO migration VALUES ('m099_later', '9.1.0', '2030-01-01T00:00:00Z')")
    db.close()
    for opener in (open_writable, open_readonly):
        with pytest.raises(StoreTooNew) as caught:
            opener(path)
        text = str(caught.value)
        assert "9.1.0" in text
        assert __version__ in text
        assert "pip install" in text
        assert caught.value.exit_code == 3


def test_an_older_file_is_brought_up_to_date_all_or_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "r.db"
    open_writable(path).close()

    def m002_colour(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE run ADD COLUMN colour TEXT NOT NULL DEFAULT 'red'")

    def m003_broken(db: sqlite3.Connection) -> None:
        db.execute("ALTER TABLE run ADD COLUMN size TEXT")
        raise ZeroDivisionError

    monkeypatch.setattr(migrations, "MIGRATIONS", [*migrations.MIGRATIONS, m002_colour, m003_broken])
    with pytest.raises(ZeroDivisionError):
        open_writable(path)
    monkeypatch.setattr(migrations, "MIGRATIONS", migrations.MIGRATIONS[:-1])
    db = open_readonly(path)  # a reader of an old file brings it up to date too
    columns = {row[1] for row in db.execute("PRAGMA table_info(run)")}
    db.close()
    assert "colour" in columns
    assert "size" not in columns, "the broken migration was rolled back with the one before it"


@pytest.mark.parametrize("opener", [open_writable, open_readonly])
def test_not_a_database(tmp_path: Path, opener: object) -> None:
    path = tmp_path / "r.db"
    path.write_text("hello, this is a text file, and quite long enough to be read as a header\n" * 50)
    with pytest.raises(StoreFault, match="not a results file"):
        opener(path)  # type: ignore[operator]
    assert path.read_text().startswith("hello")


def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE songs (title)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(StoreFault, match="not one of redline's") as caught:
        open_writable(path)
    assert "songs" in str(caught.value)
    assert path.read_bytes() == before


def test_a_damaged_file(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    open_writable(path).close()
    body = bytearray(path.read_bytes())
    body[100:4096] = b"\x5a" * 3996
    path.write_bytes(bytes(body))
    with pytest.raises(StoreFault, match="damaged") as caught:
        open_writable(path)
    assert ".recover" in caught.value.fix


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="cannot use"):
        open_writable(tmp_path)


def test_a_folder_that_cannot_be_made() -> None:
    with pytest.raises(StoreFault, match="cannot make the results folder"):
        open_writable(Path("/proc/no-such/redline.db"))


def test_no_file_yet(tmp_path: Path) -> None:
    with pytest.raises(StoreFault, match="no results file") as caught:
        open_readonly(tmp_path / "r.db")
    assert "redline compare" in caught.value.fix
    assert list(tmp_path.iterdir()) == [], "reading creates nothing"


def test_a_locked_file_is_explained() -> None:
    error = sqlite3.OperationalError("database is locked")
    error.sqlite_errorcode = sqlite3.SQLITE_BUSY
    assert "locked" in str(explain(error, Path("x.db")))
    assert explain(sqlite3.OperationalError("no such table: x"), Path("x.db")) is None


def test_a_reader_cannot_write(tmp_path: Path) -> None:
    path = tmp_path / "r.db"
    open_writable(path).close()
    db = open_readonly(path)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        db.execute("DELETE FROM run")
    db.close()


_AS_NOBODY = """
import os, sys
from pathlib import Path
from redline.store.file import open_readonly, open_writable
from redline.errors import StoreFault
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
print(open_readonly(Path(sys.argv[1])).execute("SELECT count(*) FROM run").fetchone()[0])
try:
    open_writable(Path(sys.argv[1]))
except StoreFault as fault:
    print("fault", fault.what)
"""


def test_a_file_in_a_folder_that_we_may_not_write_to_can_still_be_read() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / "r.db"
        Store.open(path).close()
        path.chmod(0o444)
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR | stat.S_IRGRP | stat.S_IXGRP | stat.S_IROTH | stat.S_IXOTH)
        command = [sys.executable, "-c", _AS_NOBODY, str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        finally:
            folder.chmod(0o700)
        assert done.stdout.splitlines()[:1] == ["0"], done.stderr
        assert "fault cannot use" in done.stdout
