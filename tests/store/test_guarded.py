from __future__ import annotations

import time

import pytest

from redline.errors import UsageError
from redline.store.guarded import MOST_ROWS, ask_guarded
from redline.store.store import Store
from tests.store.recorded import record


@pytest.mark.parametrize(
    "sql",
    [
        "DELETE FROM run", "UPDATE run SET name = 'x'", "INSERT INTO run (id) VALUES ('x')", "DROP TABLE run",
        "CREATE TEMP TABLE t (x)", "ATTACH '/tmp/other.db' AS o", "PRAGMA query_only = OFF",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA writable_schema = 1", "VACUUM INTO '/tmp/out.db'", "SELECT load_extension('x')",
        "SELECT length(randomblob(100000000))", "SELECT zeroblob(1000000000)", "BEGIN", "REINDEX", "ANALYZE",
    ],
)  # fmt: skip
def test_it_only_reads(store: Store, sql: str) -> None:
    with pytest.raises(UsageError):
        ask_guarded(sql, store.path)


@pytest.mark.parametrize(
    "sql", ["", "SELEC 1", "SELECT 1; DROP TABLE run", "SELECT nothing FROM run", "SELECT 1" + " " * 30_000 + ", 2"]
)
def test_what_makes_no_sense_is_a_usage_error(store: Store, sql: str) -> None:
    with pytest.raises(UsageError):
        ask_guarded(sql, store.path)


def test_a_query_without_end_is_stopped(store: Store) -> None:
    endless = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
    began = time.monotonic()
    with pytest.raises(UsageError, match=r"stopped after 0\.3 s"):
        ask_guarded(endless, store.path, limit_s=0.3)
    assert time.monotonic() - began < 30


def test_rows_and_values_are_cut(store: Store, point: int) -> None:
    store.add_request(point, record(0))
    store.flush()
    many = "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n LIMIT 100000"
    answer = ask_guarded(many, store.path)
    assert len(answer.rows) == MOST_ROWS
    assert answer.cut
    blob = ask_guarded("SELECT chunk_ns, chunk_times(chunk_ns) FROM request;", store.path)
    assert blob.rows[0][0].startswith("BLOB, 21 bytes")
    assert blob.rows[0][1].startswith("[1005000000,")
    assert not blob.cut
    assert ask_guarded(".tables", store.path).columns == ("name", "type")
    assert ask_guarded("PRAGMA integrity_check", store.path).rows == (("ok",),)
