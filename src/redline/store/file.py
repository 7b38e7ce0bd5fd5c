"""The results file as a file: where it lies, how it is opened, and what SQLite's errors mean to a person."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from redline import __version__
from redline.clock import wall_time
from redline.errors import DiskFull, StoreFault, StoreTooNew
from redline.store import migrations

APPLICATION_ID = 0x52444C4E  # "RDLN" in the header: `file redline.db` shows it
BUSY_MS = 10_000
_LOW_SPACE = 4 << 20


def default_path() -> Path:
    """Where results go when nobody says otherwise."""
    return Path("redline-results/redline.db")


def artifacts_folder(path: Path) -> Path:
    """The folder of logs, reports and charts that belongs to the results file `path`."""
    return path.with_name(f"{path.stem}-artifacts")


def open_writable(path: Path) -> sqlite3.Connection:
    """Connection that may write, from any thread (one at a time); the file is made or brought up to date."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreFault(
            f"cannot make the results folder {path.parent}", why=error.strerror or str(error), fix="--db FILE elsewhere"
        ) from error
    with faults(path):
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_MS / 1000)
        try:
            _check_origin(db, path)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA foreign_keys = ON")
            _migrate(db, path)
        except BaseException:
            db.close()
            raise
    return db


def open_readonly(path: Path) -> sqlite3.Connection:
    """Connection that cannot write. StoreFault when there is no results file at `path`."""
    if not path.is_file():
        raise StoreFault(
            f"there is no results file at {path}",
            why="nothing has been measured here yet, or it lies elsewhere",
            fix="measure something (redline compare, redline bench), or name the file with --db",
        )
    with faults(path):
        db = _connect_readonly(path)
        try:
            _check_origin(db, path)
            if _pending(db, path):
                db.close()
                open_writable(path).close()  # an older file: readers know the newest shape only
                db = _connect_readonly(path)
            db.execute("PRAGMA query_only = ON")
        except BaseException:
            db.close()
            raise
    return db


def _connect_readonly(path: Path) -> sqlite3.Connection:
    uri = path.resolve().as_uri()
    for mode in ("mode=ro", "immutable=1"):
        # WAL wants to write beside the file; in a folder that we may not write to, a file at rest is still readable.
        db = sqlite3.connect(f"{uri}?{mode}", uri=True, isolation_level=None, check_same_thread=False, timeout=5)
        try:
            db.execute("SELECT name FROM sqlite_master LIMIT 1").fetchone()
        except sqlite3.OperationalError as error:
            db.close()
            unopened = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
            if unopened and mode == "mode=ro" and not _has_log(path):
                continue
            raise
        return db
    raise StoreFault(f"cannot open {path}")


def _has_log(path: Path) -> bool:
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0


def _check_origin(db: sqlite3.Connection, path: Path) -> None:
    """StoreFault for an SQLite file of some other program."""
    mark = db.execute("PRAGMA application_id").fetchone()[0]
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if mark != APPLICATION_ID and tables:
        raise StoreFault(
            f"{path} is an SQLite file, but not one of redline's",
            why=f"it holds {', '.join(sorted(tables)[:5])}",
            fix="name another file with --db",
        )


def _pending(db: sqlite3.Connection, path: Path) -> list[str]:
    """Names of migrations still to be applied. StoreTooNew when the file has some that we do not know."""
    known = [migration.__name__ for migration in migrations.MIGRATIONS]
    exists = db.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'").fetchone()
    applied = dict(db.execute("SELECT name, redline_version FROM migration ORDER BY name")) if exists else {}
    foreign = [name for name in applied if name not in known]
    if foreign:
        newest = applied[foreign[-1]]
        raise StoreTooNew(
            f"{path} was written by redline {newest}; this is redline {__version__}",
            why=f"its format has {', '.join(foreign)}, which this version does not know",
            fix=f"pip install -U 'redline>={newest}', or write to another file with --db",
        )
    return [name for name in known if name not in applied]


def _migrate(db: sqlite3.Connection, path: Path) -> None:
    """Applies what is missing, all or nothing."""
    if not _pending(db, path):
        return
    with transaction(db):
        waiting = _pending(db, path)  # again, under the lock: another process may have been faster
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'migration'").fetchone():
            db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            db.execute(migrations.TABLE)
        for migration in migrations.MIGRATIONS:
            if migration.__name__ in waiting:
                migration(db)
                row = (migration.__name__, __version__, wall_time())
                db.execute("INSERT INTO migration VALUES (?, ?, ?)", row)
        db.execute(f"PRAGMA user_version = {len(migrations.MIGRATIONS)}")


@contextlib.contextmanager
def transaction(db: sqlite3.Connection) -> Iterator[None]:
    """All or nothing; takes the write lock at once, so that two processes queue instead of failing half-way."""
    db.execute("BEGIN IMMEDIATE")
    try:
        yield
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:  # SQLite has rolled back by itself after some errors, disk full among them
            db.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def faults(path: Path) -> Iterator[None]:
    """Turns SQLite's errors into StoreFault and DiskFull. Bugs of ours (bad SQL, broken constraint) pass through."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.DatabaseError) as error:
        fault = explain(error, path)
        if fault is None:
            raise
        raise fault from error


def explain(error: sqlite3.Error, path: Path) -> StoreFault | None:
    """What an error of SQLite means for the results file; None when it says nothing about the file."""
    code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_IOERR and _no_space(path)):
        return DiskFull(
            f"the disk is full: cannot write to {path}",
            why="everything committed before is safe in it",
            fix=f"make room on the disk of {path.resolve().parent}, or write elsewhere with --db",
        )
    if code == sqlite3.SQLITE_NOTADB:
        return StoreFault(
            f"{path} is not a results file", why="it is no SQLite file", fix="name another file with --db"
        )
    if code == sqlite3.SQLITE_CORRUPT:
        return StoreFault(
            f"the results file {path} is damaged",
            why=str(error),
            fix=f"rescue what can be read: sqlite3 {path} .recover | sqlite3 rescued.db",
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreFault(
            f"another process keeps {path} locked",
            why=f"it held the write lock for more than {BUSY_MS / 1000:.0f} s",
            fix="let it finish, or write to another file with --db",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        why = "it is a folder" if path.is_dir() else str(error)
        return StoreFault(
            f"cannot use the results file {path}", why=why, fix="check its permissions, or name another with --db"
        )
    return None


def _no_space(path: Path) -> bool:
    try:
        return shutil.disk_usage(path.resolve().parent).free < _LOW_SPACE
    except OSError:
        return False
