"""What every page needs: the results file, the templates, and how an error is shown."""

from __future__ import annotations

import hashlib
import math
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from redline import __version__
from redline.errors import EnvironmentFault, RedlineError, StoreFault, StoreTooNew, UsageError
from redline.pages.library import Library
from redline.pages.style import STATIC, script, stylesheet
from redline.report.numbers import STATE_MARK, band, data_size, number
from redline.store.browse import Browser

HERE = Path(__file__).parent


@dataclass
class Desk:
    """`db` need not exist yet."""

    db: Path
    library: Library = field(init=False)

    def __post_init__(self) -> None:
        self.library = Library(self.db)

    def open(self) -> Browser:
        """StoreFault when there is no results file, or one that cannot be read."""
        return Browser.open(self.db)

    @cached_property
    def assets(self) -> str:
        """Changes with what the browser keeps: scripts and styles."""
        digest = hashlib.sha256(__version__.encode())
        for path in sorted(STATIC.iterdir()):
            digest.update(path.read_bytes())
        digest.update((stylesheet() + script()).encode())
        return digest.hexdigest()[:12]

    @cached_property
    def templates(self) -> Environment:
        made = Environment(
            loader=FileSystemLoader(HERE / "templates"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        made.filters |= {
            "number": number, "band": band, "size": data_size, "json": to_json, "ms": ms_text, "took": took_text,
            "when": when_text, "count": lambda n: f"{n:,}",
        }  # fmt: skip
        made.globals |= {"mark": STATE_MARK, "version": __version__, "assets": self.assets, "db": str(self.db)}
        return made

    def page(self, request: Request, name: str, code: int = 200, **about: Any) -> HTMLResponse:
        """A page, or the part of one that a script asked for."""
        text = self.templates.get_template(f"{name}.html.j2").render(here=request.url.path, **about)
        return HTMLResponse(text, code)

    def error(self, request: Request, fault: Exception) -> Response:
        """What happened, what it means, what to do; as JSON for who asked for JSON."""
        said, status = explained(fault, self.db)
        about = {"what": said.what, "why": said.why, "fix": said.fix, "error": type(said).__name__}
        if "application/json" in request.headers.get("accept", ""):
            return Response(orjson.dumps(about), status, media_type="application/json")
        if isinstance(said, StoreFault) and not self.db.exists():
            return self.page(request, "welcome", 200 if request.url.path == "/" else 404, path=self.db)
        part = request.headers.get("x-part") == "1"
        return self.page(request, "part_error" if part else "error", status, status=status, **about)


def explained(fault: Exception, db: Path) -> tuple[RedlineError, int]:
    """Any exception as an error of ours, and its HTTP status."""
    if isinstance(fault, StoreTooNew):
        return fault, 409
    if isinstance(fault, UsageError):
        return fault, 404 if fault.what.startswith(("no run", "there is no")) else 400
    if isinstance(fault, EnvironmentFault):
        return fault, 503
    if isinstance(fault, RedlineError):
        return fault, 500
    damaged = isinstance(fault, (sqlite3.Error, orjson.JSONDecodeError, ValueError, IndexError, KeyError))
    said = "this is a bug of redline: the terminal that it runs in has the details"
    if damaged:
        said = f"redline sql 'PRAGMA integrity_check' --db {db} tells whether the file is damaged; if it is not, {said}"
    return RedlineError("this page could not be made", why=f"{type(fault).__name__}: {fault}", fix=said), 500


def to_json(value: Any) -> str:
    """For an attribute of a page; NaN and infinity become null."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS, default=str).decode()


def json_answer(value: Mapping[str, Any], status: int = 200) -> Response:
    return Response(to_json(value), status, media_type="application/json")


def ms_text(ns: float | None) -> str:
    """Nanoseconds as milliseconds: `12.3`; – for what never happened."""
    return "–" if ns is None or math.isnan(ns) else number(ns / 1e6)


def took_text(seconds: float | None) -> str:
    """`8.3 s`, `4 min 10 s`, `2 h 5 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{number(seconds)} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def when_text(wall: str) -> str:
    """`2026-11-23 18:50` of an ISO time."""
    return wall[:16].replace("T", " ")
