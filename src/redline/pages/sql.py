"""The results file in SQL: what `redline sql` answers, and the button beside a number that computes it again."""

from __future__ import annotations

import math
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import Response

from redline.pages.desk import Desk, json_answer
from redline.report.numbers import number
from redline.store.guarded import FUNCTIONS, MOST_ROWS, TIME_LIMIT_S, ask_guarded

EXAMPLES = (
    ("Runs", "SELECT id, name, status, verdict, started_wall FROM run ORDER BY id DESC LIMIT 20"),
    ("Slowest requests", "SELECT run_id, engine, point, request_id, ttft_ms, e2e_ms FROM request_latency\n"
                         "WHERE NOT warmup ORDER BY e2e_ms DESC LIMIT 20"),
    ("Median TTFT by load", "SELECT run_id, engine, point, count(*) AS n, median(ttft_ms) AS ttft_p50\n"
                            "FROM request_latency WHERE NOT warmup AND status = 'ok' GROUP BY 1, 2, 3 ORDER BY 1 DESC"),
    ("Why requests failed", "SELECT status, http_status, error, count(*) AS n FROM request\n"
                            "WHERE status NOT IN ('ok', 'cancelled', 'abandoned') GROUP BY 1, 2, 3 ORDER BY n DESC"),
    ("Tables", ".tables"),
    ("Shape of the file", ".schema"),
)  # fmt: skip


def sql_page(desk: Desk, request: Request) -> Response:
    with desk.open():
        pass
    asked = request.query_params.get("q", EXAMPLES[0][1])
    return desk.page(
        request, "sql", asked=asked, examples=EXAMPLES, functions=FUNCTIONS, answer=None, fault=None,
        most=MOST_ROWS, limit_s=TIME_LIMIT_S,
    )  # fmt: skip


def answer_part(desk: Desk, request: Request, body: bytes) -> Response:
    """The rows as a page, as a part of one, or (`accept: application/json`) as JSON."""
    form = parse_qs(body.decode("utf-8", "replace"))
    asked = form.get("q", [""])[0]
    answer = ask_guarded(asked, desk.db)
    if "application/json" in request.headers.get("accept", ""):
        first = answer.rows[0][0] if answer.rows and answer.rows[0] else None
        text = number(first) if isinstance(first, (int, float)) and not math.isnan(first) else str(first)
        return json_answer(
            {"columns": answer.columns, "rows": answer.rows, "text": text, "seconds": answer.seconds, "cut": answer.cut}
        )
    if request.headers.get("x-part") == "1":
        return desk.page(request, "part_rows", answer=answer, most=MOST_ROWS)
    return desk.page(
        request, "sql", asked=asked, examples=EXAMPLES, functions=FUNCTIONS, answer=answer, fault=None,
        most=MOST_ROWS, limit_s=TIME_LIMIT_S,
    )  # fmt: skip
