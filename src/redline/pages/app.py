"""The pages as an ASGI application."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Scope

from redline.errors import RedlineError, UsageError
from redline.pages import compare, files, live, point, request, run, runs, sql, telemetry
from redline.pages.desk import Desk
from redline.pages.guard import Access, Guard
from redline.pages.style import STATIC, script, stylesheet

Page = Callable[[Desk, Request], Response]

PAGES: dict[str, Page] = {
    "/": runs.runs_page,
    "/run/{run}": run.run_page,
    "/run/{run}/findings": run.findings_part,
    "/run/{run}/live": live.live_state,
    "/run/{run}/telemetry": telemetry.telemetry_page,
    "/run/{run}/telemetry.json": telemetry.telemetry_data,
    "/run/{run}/file/{artifact:int}": files.file_page,
    "/run/{run}/file/{artifact:int}/raw": files.raw_file,
    "/run/{run}/report.{form}": run.report_file,
    "/point/{point:int}": point.point_page,
    "/point/{point:int}/findings": point.findings_part,
    "/point/{point:int}/requests": request.requests_page,
    "/point/{point:int}/at/{metric}": point.request_at,
    "/request/{request:int}": request.request_page,
    "/request/{request:int}/chunks.json": request.chunk_data,
    "/compare": compare.compare_page,
    "/compare/result": compare.result_part,
    "/sql": sql.sql_page,
    "/healthz": runs.health,
}


FOREVER = "public, max-age=31536000, immutable"


class _Files(StaticFiles):
    """Kept by the browser: their address changes when they do."""

    def file_response(self, *arguments: object, **more: object) -> Response:
        answer = super().file_response(*arguments, **more)  # type: ignore[arg-type]
        answer.headers["cache-control"] = FOREVER
        return answer

    async def get_response(self, path: str, scope: Scope) -> Response:
        return await super().get_response(path.partition("/")[2], scope)  # the first part is the version


def build(db: Path, access: Access | None = None) -> Starlette:
    """The application. `db` need not exist yet."""
    desk = Desk(db)

    def shown(page: Page) -> Callable[[Request], Response]:
        def answer(request: Request) -> Response:
            try:
                return page(desk, request)
            except Exception as fault:
                return _failed(desk, request, fault)

        return answer

    async def ask(request: Request) -> Response:
        body = await _body(request)
        return await run_in_threadpool(shown(lambda desk, request: sql.answer_part(desk, request, body)), request)

    async def unknown(request: Request, fault: Exception) -> Response:
        return desk.error(request, UsageError("there is no such page", fix="start at the list of runs"))

    return Starlette(
        routes=[
            Route("/sql", ask, methods=["POST"]),
            *(Route(path, shown(page), methods=["GET"]) for path, page in PAGES.items()),
            Route("/static/{version}/style.css", _style),
            Route("/static/{version}/pages.js", _script),
            Mount("/static", _Files(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, access=access or Access())],
        exception_handlers={404: unknown},
    )


def _style(request: Request) -> Response:
    return Response(stylesheet(), media_type="text/css", headers={"cache-control": FOREVER})


def _script(request: Request) -> Response:
    return Response(script(), media_type="text/javascript", headers={"cache-control": FOREVER})


async def _body(request: Request) -> bytes:
    """At most what a statement may take."""
    read = b""
    async for piece in request.stream():
        read += piece
        if len(read) > 100_000:
            break
    return read


def _failed(desk: Desk, request: Request, fault: Exception) -> Response:
    if not isinstance(fault, RedlineError):
        traceback.print_exception(fault, file=sys.stderr)
    return desk.error(request, fault)
