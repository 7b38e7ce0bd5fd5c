"""A stored load point as findings, with everything about the experiment that judging it needs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redline.analyse.summary import PointSummary, summarise_point
from redline.spec.experiment import Experiment
from redline.spec.load import LoadPoint
from redline.spec.promise import class_promises, exact_output
from redline.store.read import Reader


def summary_of(
    reader: Reader,
    experiment: Experiment,
    run_id: str,
    point_id: int,
    point: LoadPoint,
    *,
    window: tuple[int, int],
    outcome: Mapping[str, Any],
    seed: int,
) -> PointSummary:
    """`window` is when the warm-up was over and when the point ended, in monotonic ns."""
    stored = experiment.model_dump(mode="json")
    return summarise_point(
        reader.requests(point_id),
        window_hint=window,
        slo=experiment.slo.terms,
        attainment=experiment.slo.attainment,
        outcome=outcome,
        seed=seed,
        run_id=run_id,
        asked=(point.kind, point.value),
        exact_output=exact_output(stored),
        promises=class_promises(stored),
    )
