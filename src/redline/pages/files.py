"""Files of a run: the engine's log, reports, charts. Only what lies in the artifacts folder beside the results file: a
store that somebody sent may name any path of this box."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from redline.errors import EnvironmentFault, UsageError
from redline.pages.desk import Desk
from redline.store.file import artifacts_folder
from redline.store.rows import ArtifactRow, RunRow

SHOWN = 256 << 10
"""Bytes of a file that a page shows."""
CHECKED = 64 << 20
"""Largest file whose hash is taken again for a page."""
_TEXT = {".log", ".txt", ".json", ".md", ".yaml", ".yml", ".csv", ".svg", ".html", ".jsonl", ""}


def file_page(desk: Desk, request: Request) -> Response:
    run, artifact = _artifact(desk, request)
    path = inside(desk, artifact)
    size = path.stat().st_size
    text = path.suffix.lower() in _TEXT
    pages = max(1, -(-size // SHOWN))
    asked = request.query_params.get("part", "")
    part = min(max(int(asked), 1), pages) if asked.isascii() and asked.isdigit() else pages
    with path.open("rb") as file:
        file.seek((part - 1) * SHOWN)
        shown = file.read(SHOWN).decode("utf-8", "replace") if text else ""
        file.seek(0)
        same = hashlib.file_digest(file, "sha256").hexdigest() == artifact.sha256 if size <= CHECKED else None
    return desk.page(
        request, "file", run=run, artifact=artifact, text=text, shown=shown, part=part, pages=pages, same=same,
        size=size,
    )  # fmt: skip


def raw_file(desk: Desk, request: Request) -> Response:
    """To keep, never to be shown: what is in it is not ours."""
    _, artifact = _artifact(desk, request)
    path = inside(desk, artifact)
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


def _artifact(desk: Desk, request: Request) -> tuple[RunRow, ArtifactRow]:
    number = request.path_params["artifact"]
    with desk.open() as reader:
        run = reader.run(request.path_params["run"])
    found = next((artifact for artifact in run.artifacts if artifact.id == number), None)
    if found is None:
        raise UsageError(f"there is no file {number} of run {run.id}")
    return run, found


def inside(desk: Desk, artifact: ArtifactRow) -> Path:
    """The file, links followed. UsageError outside of the artifacts folder, EnvironmentFault when it is gone."""
    folder = artifacts_folder(desk.db).resolve()
    path = artifact.path.resolve()
    if not path.is_relative_to(folder):
        raise UsageError(
            "there is no page for a file outside of the artifacts folder",
            why=f"the store names {artifact.path}, and pages show what lies in {folder} only",
            fix="look at it in a terminal",
        )
    try:
        regular = stat.S_ISREG(path.stat().st_mode)
    except OSError as error:
        raise EnvironmentFault(
            f"{artifact.path} cannot be read", why=error.strerror or str(error), fix="it may have been moved or deleted"
        ) from error
    if not regular:
        raise EnvironmentFault(f"{artifact.path} is no file", why="it is a folder or a device")
    return path
