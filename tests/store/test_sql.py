from __future__ import annotations

import sqlite3

import orjson
import pytest

from redline.errors import StoreFault, UsageError
from redline.store.read import query
from redline.store.store import Store
from tests.store.recorded import record


@pytest.fixture
def filled(store: Store, point: int) -> Store:
    for index in range(11):
        store.add_request(point, record(index, chunks=index + 2))
    store.flush()
    return store


def test_columns_and_rows(filled: Store) -> None:
    columns, rows = query("SELECT request_index, status FROM request WHERE request_index < 2", filled.path)
    assert columns == ["request_index", "status"]
    assert rows == [(0, "ok"), (1, "ok")]


def test_chunks_can_be_read_in_sql(filled: Store) -> None:
    _, rows = query(
        "SELECT chunk_times(chunk_ns), chunk_counts(chunk_tokens) FROM request WHERE request_index = 1", filled.path
    )
    assert orjson.loads(rows[0][0]) == record(1, chunks=3).chunk_ns
    assert orjson.loads(rows[0][1]) == [1, 1, 1]
    _, rows = query(
        "SELECT max(value) - min(value) FROM request, json_each(chunk_times(chunk_ns)) WHERE request_index = 1",
        filled.path,
    )
    assert rows == [(4_000_000,)]


def test_latencies_by_definition(filled: Store) -> None:
    columns = "ttft_ms, ttft_sent_ms, tpot_ms, e2e_ms, e2e_sent_ms, engine"
    _, rows = query(f"SELECT {columns} FROM request_latency WHERE request_index = 1", filled.path)
    assert rows[0][:5] == pytest.approx((5.0, 4.95, 2.0, 12.0, 11.95))
    assert rows[0][5] == "vllm"


def test_percentiles(filled: Store) -> None:
    _, rows = query("SELECT percentile(chunks, 50), percentile(chunks, 95), median(chunks) FROM request", filled.path)
    assert rows == [(7.0, 11.5, 7.0)]
    assert query("SELECT median(chunks) FROM request WHERE 0", filled.path)[1] == [(None,)]


def test_dot_commands(filled: Store) -> None:
    _, tables = query(".tables", filled.path)
    assert ("request", "table") in tables
    assert ("sample", "view") in tables
    _, schema = query(".schema request", filled.path)
    assert len(schema) == 1
    assert "chunk_times(chunk_ns)" in schema[0][0], "the encoding is documented in the file itself"
    with pytest.raises(UsageError, match=r"\.dump is not known"):
        query(".dump", filled.path)


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("SELECT * FROM requests", ["no such table", "did you mean 'request'?", "tables: ", "request_latency"]),
        ("SELECT ttft FROM request_latency", ["no such column", "ttft_ms"]),
        ("SELEC 1", ["syntax error"]),
        ("", ["empty query"]),
        ("SELECT 1; SELECT 2", ["one statement"]),
        ("DELETE FROM request", ["only reads"]),
        ("CREATE TABLE x (y)", ["only reads"]),
        ("SELECT percentile(chunks) FROM request", ["wrong number of arguments"]),
    ],
)
def test_a_wrong_statement_is_explained(filled: Store, sql: str, words: list[str]) -> None:
    with pytest.raises(UsageError) as caught:
        query(sql, filled.path)
    for word in words:
        assert word in str(caught.value)
    assert len(filled.requests(filled.run().trials[0].points[0].id)) == 11


def test_no_results_file_is_a_store_fault(filled: Store) -> None:
    with pytest.raises(StoreFault):
        query("SELECT 1", filled.path.with_name("none.db"))


def test_plain_sqlite_reads_every_table_and_view(filled: Store) -> None:
    with sqlite3.connect(filled.path) as plain:
        names = [name for (name,) in plain.execute("SELECT name FROM sqlite_master WHERE type IN ('table', 'view')")]
        for name in names:
            plain.execute(f"SELECT * FROM {name}").fetchall()
    plain.close()
    assert {"run", "trial", "point", "request", "sample", "artifact", "migration"} <= set(names)


def test_a_column_that_is_called_interrupted_is_no_ctrl_c(filled: Store) -> None:
    with pytest.raises(UsageError, match="no such column: interrupted"):
        query("SELECT id FROM run WHERE status = interrupted", filled.path)
