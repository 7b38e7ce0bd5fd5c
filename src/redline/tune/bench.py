"""Load a server that somebody else runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from redline.spec.overrides import experiment_from
from redline.tune.compare import Outcome, compare


def bench(url: str, model: str, *, db: Path | None = None, **flags: Any) -> Outcome:
    """`redline bench` from Python. `flags` are its flags with underscores: `concurrency="1,10"`, `slo_ttft=200`.

    The server is never signalled. Raises what `compare` raises.
    """
    return compare(experiment_from(None, {"url": [url], "model": [model], **flags}), db=db, argv=["redline.bench"])
