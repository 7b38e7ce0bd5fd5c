"""The list of runs: filter, sort, search, pick two to compare."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import Response

from redline.analyse.verdict import STATES
from redline.pages.desk import Desk, json_answer
from redline.store.browse import RunLine

PER_PAGE = 50
SORTS: dict[str, tuple[str, Callable[[RunLine], Any], bool]] = {
    "run": ("Run", lambda run: run.id, True),
    "name": ("Name", lambda run: run.name.casefold(), False),
    "verdict": ("Verdict", lambda run: STATES.index(run.verdict) if run.verdict in STATES else 9, True),
    "status": ("Status", lambda run: run.status, False),
    "model": ("Model", lambda run: run.models, False),
    "engine": ("Engines", lambda run: run.engines, False),
    "points": ("Points", lambda run: run.points, True),
    "took": ("Took", lambda run: run.duration_s or 0.0, True),
}
"""Name to (heading, key, whether the largest comes first)."""


def runs_page(desk: Desk, request: Request) -> Response:
    with desk.open() as reader:
        everything = reader.run_lines()
    asked = {name: request.query_params.get(name, "") for name in ("q", "status", "verdict", "engine", "model")}
    found = [run for run in everything if fits(run, asked)]
    sort = request.query_params.get("sort", "run")
    sort = sort if sort in SORTS else "run"
    _, key, down = SORTS[sort]
    down = {"up": False, "down": True}.get(request.query_params.get("dir", ""), down)
    found.sort(key=key, reverse=down)
    pages = max(1, -(-len(found) // PER_PAGE))
    number = request.query_params.get("page", "1")
    at = min(max(int(number) if number.isascii() and number.isdigit() else 1, 1), pages)
    kept = {name: value for name, value in asked.items() if value}

    def link(**changes: Any) -> str:
        values = {**kept, "sort": sort, "dir": "down" if down else "up", **changes}
        return "/?" + urlencode(values)

    return desk.page(
        request, "runs", runs=found[(at - 1) * PER_PAGE : at * PER_PAGE], total=len(everything), found=len(found),
        asked=asked, sort=sort, down=down, sorts=SORTS, at=at, pages=pages, link=link, choices=choices(everything),
        going_on=any(run.status == "running" for run in everything),
    )  # fmt: skip


def fits(run: RunLine, asked: dict[str, str]) -> bool:
    """Whether every word that is searched for is somewhere in the run, and every filter holds."""
    return (
        all(word in run.text for word in asked["q"].casefold().split())
        and asked["status"] in ("", run.status)
        and asked["verdict"] in ("", run.verdict)
        and (not asked["engine"] or asked["engine"] in run.engines)
        and (not asked["model"] or asked["model"] in run.models)
    )


def choices(runs: Sequence[RunLine]) -> dict[str, list[tuple[str, int]]]:
    """What can be filtered by, with how many runs there are, most frequent first."""
    return {
        "status": Counter(run.status for run in runs).most_common(),
        "verdict": Counter(run.verdict for run in runs if run.verdict).most_common(),
        "engine": Counter(name for run in runs for name in run.engines).most_common(40),
        "model": Counter(name for run in runs for name in run.models).most_common(40),
    }


def health(desk: Desk, request: Request) -> Response:
    """For whoever waits for the pages to come up."""
    return json_answer({"db": str(desk.db), "exists": desk.db.exists()})
