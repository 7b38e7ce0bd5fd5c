"""redline takes a GPU box and a model from bare metal to a proven LLM serving configuration.

The verbs of the command line, as functions: `compare`, `compare_runs` (of stored ones), `bench`, `serve`, `prove` (of
settings of the box), `explain` and `explain_request` (why a run was slow), `doctor`, `sql`; and what they take and
give:
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
    "serve": "redline.tune.serve:serve",
    "prove": "redline.tune.prove.prove:prove",
    "doctor": "redline.node.doctor:doctor",
    "explain": "redline.report.explain.read:explain",
    "explain_request": "redline.report.explain.request:explain_request",
    "sql": "redline.store.sql:query",
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
