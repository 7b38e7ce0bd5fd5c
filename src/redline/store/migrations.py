"""The shape of the results file, as a list of functions. A new shape is a new function at the end of the list.

Comments inside the statements are kept by SQLite: `.schema` in any SQLite shell is the documentation of the format.
Times ending in `_ns` are monotonic nanoseconds of one boot; `run.started_wall` ties them to the calendar.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

_RUN = """
CREATE TABLE run (                      -- one experiment, carried out once
    id TEXT PRIMARY KEY,                -- sorts by time: 20261123-185001-4f2a (UTC)
    name TEXT NOT NULL,
    experiment TEXT NOT NULL,           -- JSON, secrets removed
    experiment_hash TEXT NOT NULL,      -- equal experiments, equal hash
    argv TEXT NOT NULL,                 -- JSON list, secrets removed
    redline_version TEXT NOT NULL,
    provenance TEXT NOT NULL,           -- JSON: the box, the driver, the packages
    started_wall TEXT NOT NULL,         -- UTC, ISO 8601
    started_ns INTEGER NOT NULL,
    ended_ns INTEGER,
    status TEXT NOT NULL,               -- running, done, interrupted, failed
    verdict TEXT NOT NULL DEFAULT '',   -- valid, degraded, client-bound, invalid
    reasons TEXT NOT NULL DEFAULT '[]', -- JSON list: why not valid
    process TEXT NOT NULL               -- JSON: pid, its start, boot and pid namespace of who writes it
)"""

_TRIAL = """
CREATE TABLE trial (                    -- one model on one engine configuration, started once
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    model TEXT NOT NULL,
    engine TEXT NOT NULL,               -- label of the engine configuration
    engine_kind TEXT NOT NULL,          -- adapter: transformers, vllm, url, ...
    engine_version TEXT NOT NULL DEFAULT '',
    repeat INTEGER NOT NULL,            -- counts from 0
    spec TEXT NOT NULL,                 -- JSON: what was asked for, secrets removed
    endpoint TEXT NOT NULL DEFAULT '{}',    -- JSON: what answered
    flags TEXT NOT NULL DEFAULT '{}',       -- JSON: values that the engine resolved
    hashes TEXT NOT NULL DEFAULT '{}',      -- JSON: of the model's and the tokenizer's files
    startup_ms TEXT NOT NULL DEFAULT '{}',  -- JSON: phase to length; total is one of them
    started_ns INTEGER NOT NULL,
    ready_ns INTEGER,
    ended_ns INTEGER,
    status TEXT NOT NULL,               -- starting, ready, then what the run says: done, failed, skipped, interrupted
    error TEXT NOT NULL DEFAULT '',
    diagnosis TEXT NOT NULL DEFAULT ''  -- short tag, e.g. out-of-memory
)"""

_POINT = """
CREATE TABLE point (                    -- one load point of one trial
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,                 -- closed, constant, poisson, gamma, stages, stages-closed, trace
    value REAL NOT NULL,                -- clients (closed) or requests per second
    label TEXT NOT NULL,
    started_ns INTEGER NOT NULL,
    measured_from_ns INTEGER,           -- end of the warm-up
    ended_ns INTEGER,                   -- NULL: cut off
    stopped_by TEXT NOT NULL DEFAULT '',
    outcome TEXT NOT NULL DEFAULT '{}', -- JSON: what the load generator says about itself
    verdict TEXT NOT NULL DEFAULT '',
    reasons TEXT NOT NULL DEFAULT '[]'
)"""

_REQUEST = """
CREATE TABLE request (                  -- one request as the client saw it; times 0 when it never happened
    id INTEGER PRIMARY KEY,
    point_id INTEGER NOT NULL REFERENCES point (id) ON DELETE CASCADE,
    request_index INTEGER NOT NULL,
    intended_ns INTEGER NOT NULL,       -- when it should have been sent
    sent_ns INTEGER NOT NULL,           -- its last byte was handed to the kernel
    connected_ns INTEGER NOT NULL,
    first_byte_ns INTEGER NOT NULL,
    answer_first_ns INTEGER NOT NULL,   -- first chunk of answer text (differs for reasoning models)
    finished_ns INTEGER NOT NULL,
    first_chunk_ns INTEGER NOT NULL,    -- ends of chunk_ns, and what is needed of chunk_tokens, without decoding
    last_chunk_ns INTEGER NOT NULL,
    chunks INTEGER NOT NULL,
    first_chunk_tokens INTEGER NOT NULL,
    chunk_ns BLOB NOT NULL,             -- arrival of each content chunk, little-endian; empty: none. First byte 4:
                                        -- i64 first time, then u32 gaps; 8: i64 first time, then i64 gaps.
                                        -- In redline sql, chunk_times(chunk_ns) is a JSON array
    chunk_tokens BLOB NOT NULL,         -- tokens in each chunk. First byte 0: u32 chunks, i64 tokens in each of them;
                                        -- 1: u8 each; 8: i64 each. In redline sql: chunk_counts(chunk_tokens)
    prompt_tokens INTEGER NOT NULL,
    cached_tokens INTEGER NOT NULL,
    asked_prompt_tokens INTEGER NOT NULL,
    asked_output_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    token_source TEXT NOT NULL,         -- usage, server-tokenizer, tokenizer, chunks, none
    status TEXT NOT NULL,               -- ok, cancelled, or how it failed
    http_status INTEGER NOT NULL,
    error TEXT NOT NULL,
    finish_reason TEXT NOT NULL,
    stamp TEXT NOT NULL,                -- who stamped arrivals: kernel or user
    shared_stamps INTEGER NOT NULL,     -- chunks with the stamp of the chunk before
    warmup INTEGER NOT NULL,            -- 1: not measured
    text TEXT NOT NULL                  -- what was generated, when kept
)"""

_REQUEST_LATENCY = """
CREATE VIEW request_latency AS          -- each request in ms, by the definitions with @1; NULL when it never happened
SELECT request.id AS request_id, point_id, point.trial_id, trial.run_id, trial.engine, trial.model,
    point.label AS point, request_index, request.status, warmup, prompt_tokens, output_tokens, chunks,
    CASE WHEN first_chunk_ns > 0 THEN (first_chunk_ns - intended_ns) / 1e6 END AS ttft_ms,
    CASE WHEN first_chunk_ns > 0 THEN (first_chunk_ns - sent_ns) / 1e6 END AS ttft_sent_ms,
    CASE WHEN output_tokens > first_chunk_tokens AND chunks > 1
        THEN (last_chunk_ns - first_chunk_ns) / 1e6 / (output_tokens - first_chunk_tokens) END AS tpot_ms,
    CASE WHEN finished_ns > 0 THEN (finished_ns - intended_ns) / 1e6 END AS e2e_ms,
    CASE WHEN finished_ns > 0 AND sent_ns > 0 THEN (finished_ns - sent_ns) / 1e6 END AS e2e_sent_ms
FROM request JOIN point ON point.id = point_id JOIN trial ON trial.id = point.trial_id"""

_SERIES = """
CREATE TABLE series (                   -- what a sampler measured during a trial
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,
    name TEXT NOT NULL,                 -- dotted, ends in its unit: engine.rss_bytes
    unit TEXT NOT NULL,
    labels TEXT NOT NULL,               -- JSON object, e.g. {"gpu":"0"}
    UNIQUE (trial_id, name, unit, labels)
)"""

_SAMPLE_VALUE = """
CREATE TABLE sample_value (
    series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    t_ns INTEGER NOT NULL,
    value REAL                          -- NULL: not a number
)"""

_SAMPLE = """
CREATE VIEW sample AS                   -- every measured value, one row each
SELECT series.trial_id, t_ns, name, value, unit, labels
FROM sample_value JOIN series ON series.id = series_id"""

_ARTIFACT = """
CREATE TABLE artifact (                 -- a file worth keeping
    id INTEGER PRIMARY KEY,
    run_id TEXT NOT NULL REFERENCES run (id) ON DELETE CASCADE,
    trial_id INTEGER REFERENCES trial (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,                 -- log, report, chart, ...
    path TEXT NOT NULL,                 -- relative to the artifacts folder beside this file, unless absolute
    sha256 TEXT NOT NULL,
    bytes INTEGER NOT NULL,
    UNIQUE (run_id, path)
)"""

_INDEXES = (
    "CREATE INDEX trial_run ON trial (run_id)",
    "CREATE INDEX point_trial ON point (trial_id)",
    "CREATE INDEX request_point ON request (point_id, request_index)",
    "CREATE INDEX sample_series ON sample_value (series_id, t_ns)",
    "CREATE INDEX artifact_run ON artifact (run_id)",
)


def m001_initial(db: sqlite3.Connection) -> None:
    """Runs, trials, load points, requests, samples, artifacts."""
    views = (_REQUEST_LATENCY, _SAMPLE)
    for statement in (_RUN, _TRIAL, _POINT, _REQUEST, _SERIES, _SAMPLE_VALUE, _ARTIFACT, *_INDEXES, *views):
        db.execute(statement)


_REQUEST_MORE = (
    "request_class TEXT NOT NULL DEFAULT ''",  # class of a mixed workload
    "session INTEGER NOT NULL DEFAULT -1",  # of several turns, from 0; -1: none
    "turn INTEGER NOT NULL DEFAULT -1",
    "canary INTEGER NOT NULL DEFAULT -1",  # number of a prompt whose answer is known; -1: an ordinary request
)


def m002_what_a_request_is(db: sqlite3.Connection) -> None:
    """Classes, sessions and canaries."""
    for column in _REQUEST_MORE:
        db.execute(f"ALTER TABLE request ADD COLUMN {column}")
    db.execute("DROP VIEW request_latency")
    db.execute(_REQUEST_LATENCY.replace("warmup, ", "warmup, request_class, session, turn, canary, ", 1))


_SAMPLE_TICK = """
CREATE TABLE sample_tick (              -- what one sampler read at one instant: one row, however many values
    id INTEGER PRIMARY KEY,
    layout_id INTEGER NOT NULL REFERENCES sample_layout (id) ON DELETE CASCADE,
    t_ns INTEGER NOT NULL,
    value TEXT NOT NULL                 -- JSON array by position: [0.87,512.3,null]; null: not a number
)"""

_SAMPLE_LAYOUT = """
CREATE TABLE sample_layout (            -- which series the values of a tick belong to
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE
)"""

_SAMPLE_COLUMN = """
CREATE TABLE sample_column (
    layout_id INTEGER NOT NULL REFERENCES sample_layout (id) ON DELETE CASCADE,
    position INTEGER NOT NULL,          -- in the JSON array, from 0
    series_id INTEGER NOT NULL REFERENCES series (id) ON DELETE CASCADE,
    PRIMARY KEY (layout_id, position)
) WITHOUT ROWID"""

_SAMPLE_OF_TICKS = """
CREATE VIEW sample AS                   -- every measured value, one row each; quick for one name, slow for all of them
SELECT series.trial_id, t_ns, name, json_extract(sample_tick.value, '$[' || position || ']') AS value, unit, labels
FROM series JOIN sample_column ON sample_column.series_id = series.id
JOIN sample_tick ON sample_tick.layout_id = sample_column.layout_id"""


def m003_ticks(db: sqlite3.Connection) -> None:
    """Samples by the tick: a row per sampler and instant, not per value; what samplers say of themselves."""
    tables = (_SAMPLE_LAYOUT, _SAMPLE_COLUMN, _SAMPLE_TICK)
    indexes = (
        "CREATE INDEX tick_layout ON sample_tick (layout_id, t_ns)",
        "CREATE INDEX layout_trial ON sample_layout (trial_id)",
        "CREATE INDEX column_series ON sample_column (series_id)",
    )
    for statement in (*tables, *indexes):
        db.execute(statement)
    _values_into_ticks(db)
    db.execute("DROP VIEW sample")
    db.execute("DROP TABLE sample_value")
    db.execute(_SAMPLE_OF_TICKS)
    # JSON: per sampler its ticks and cost, what was skipped and why, notes
    db.execute("ALTER TABLE trial ADD COLUMN telemetry TEXT NOT NULL DEFAULT '{}'")


def _values_into_ticks(db: sqlite3.Connection) -> None:
    old = """SELECT trial_id, t_ns, json_group_array(series_id), json_group_array(value) FROM
        (SELECT trial_id, t_ns, series_id, value FROM sample_value JOIN series ON series.id = series_id
         ORDER BY trial_id, t_ns, series_id, sample_value.rowid) GROUP BY trial_id, t_ns"""
    layouts: dict[tuple[int, str], int] = {}
    for trial, t_ns, series, values in db.execute(old).fetchall():
        layout = layouts.get((trial, series))
        if layout is None:
            layout = db.execute("INSERT INTO sample_layout (trial_id) VALUES (?)", (trial,)).lastrowid or 0
            layouts[trial, series] = layout
            columns = "INSERT INTO sample_column SELECT ?, key, value FROM json_each(?)"
            db.execute(columns, (layout, series))
        db.execute("INSERT INTO sample_tick (layout_id, t_ns, value) VALUES (?, ?, ?)", (layout, t_ns, values))


_EVENT = """
CREATE TABLE event (                    -- something that took place beside a trial, on the clock of the requests
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,
    kind TEXT NOT NULL,                 -- run_queue, reclaim, compaction, block, irq, softirq, retransmit, signal, xid
    began_ns INTEGER NOT NULL,
    ended_ns INTEGER NOT NULL,
    who TEXT NOT NULL,                  -- who did it; empty: nobody knows
    text TEXT NOT NULL
)"""

_SPAN = """
CREATE TABLE span (                     -- OpenTelemetry spans that the engine sent
    id INTEGER PRIMARY KEY,
    trial_id INTEGER NOT NULL REFERENCES trial (id) ON DELETE CASCADE,
    trace_id TEXT NOT NULL,             -- hex; of a request of ours: the point's trace_prefix, then the request's index
    span_id TEXT NOT NULL,
    parent_id TEXT NOT NULL,
    name TEXT NOT NULL,
    service TEXT NOT NULL,
    began_ns INTEGER NOT NULL,          -- monotonic, by the distance of the clocks when the span came
    ended_ns INTEGER NOT NULL,
    attributes TEXT NOT NULL            -- JSON object
)"""


def m004_events_and_spans(db: sqlite3.Connection) -> None:
    """What `redline explain` looks at beside samples."""
    for statement in (
        _EVENT,
        _SPAN,
        "CREATE INDEX event_trial ON event (trial_id, began_ns)",
        "CREATE INDEX span_trial ON span (trial_id, trace_id)",
    ):
        db.execute(statement)


MIGRATIONS: list[Callable[[sqlite3.Connection], None]] = [
    m001_initial,
    m002_what_a_request_is,
    m003_ticks,
    m004_events_and_spans,
]

TABLE = """
CREATE TABLE migration (                -- shape of this file: what was applied, in order, and by which redline
    name TEXT PRIMARY KEY,
    redline_version TEXT NOT NULL,
    applied_wall TEXT NOT NULL
)"""
