"""redline takes a GPU box and a model from bare metal to a proven LLM serving configuration.

The verbs of the command line, as functions: `compare`, `compare_runs` (of stored ones), `bench`, `resume`, `serve`,
`watch`, `prove` (of settings of the box), `node_ceilings` (of the card), `profile` (of an engine's steps) and
`profile_trace` (of a recorded one), `explain` and `explain_request` (why a run was slow), `doctor`, `sql`, `ui` (pages
in a browser), `prometheus` (the exporter), `monitoring` (rules and dashboards as files), `shot` (of a dashboard) and
`stack` (a Compose project); and what they take and give:
`load_experiment`, `Experiment`, `Reader` (the results file), `load_report`, `write_files`.
They are imported when they are first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "compare": "redline.tune.compare:compare",
    "compare_runs": "redline.report.versus:compare_runs",
    "bench": "redline.tune.bench:bench",
    "resume": "redline.tune.resume:resume",
    "serve": "redline.tune.serve:serve",
    "watch": "redline.tune.watch:watch",
    "profile": "redline.tune.profile.profile:profile",
    "profile_trace": "redline.tune.profile.profile:profile_trace",
    "node_ceilings": "redline.tune.ceilings:node_ceilings",
    "prove": "redline.tune.prove.prove:prove",
    "doctor": "redline.node.doctor:doctor",
    "prometheus": "redline.cluster.exporter:prometheus",
    "monitoring": "redline.cluster.monitoring:monitoring",
    "shot": "redline.cluster.shot:shot",
    "stack": "redline.cluster.compose:stack",
    "explain": "redline.report.explain.read:explain",
    "explain_request": "redline.report.explain.request:explain_request",
    "sql": "redline.store.sql:query",
    "ui": "redline.pages.serve:ui",
    "load_experiment": "redline.spec.load_file:load_experiment",
    "Experiment": "redline.spec.experiment:Experiment",
    "Reader": "redline.store.read:Reader",
    "load_report": "redline.report.assemble:load_report",
    "write_files": "redline.report.files:write_files",
}
__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'redline' has no attribute {name!r}")
    module, _, attribute = _EXPORTS[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
