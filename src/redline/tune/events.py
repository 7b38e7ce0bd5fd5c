"""What a run tells whoever watches it while it goes on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redline.analyse.summary import PointSummary
from redline.engines.endpoint import Endpoint
from redline.errors import RedlineError, Skipped
from redline.spec.load import LoadPoint

if TYPE_CHECKING:
    from redline.load.run import LoadProgress
    from redline.tune.preflight import Job


class Events:
    """Silent; a terminal view overrides what it wants to show. Called from the thread that runs the experiment."""

    def run(self, run_id: str, jobs: list[Job], points: int) -> None:
        """The run has its id; everything from here on is kept. `points` 0: a search decides how many."""

    def proof(self, run_id: str, settings: int, rounds: int) -> None:
        """As `run`, for settings of the box: each is measured at two values in so many rounds."""

    def trial(self, job: Job, repeat: int) -> None:
        """An engine is about to start."""

    def turn(self, job: Job, number: int) -> None:
        """An engine that is already up is about to be measured in round `number`, from 0."""

    def phase(self, text: str) -> None:
        """The start-up entered a new phase, or something else worth a line is under way."""

    def ready(self, endpoint: Endpoint) -> None: ...

    def point(self, point: LoadPoint) -> None:
        """A load point begins."""

    def progress(self, progress: LoadProgress) -> None: ...

    def point_done(self, point: LoadPoint, summary: PointSummary) -> None:
        """A load point is measured, judged and stored."""

    def skipped(self, job: Job, skipped: Skipped) -> None: ...

    def failed(self, job: Job, error: RedlineError) -> None:
        """The engine failed; the run goes on where it can."""
