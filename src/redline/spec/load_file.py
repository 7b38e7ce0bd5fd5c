"""Reads an experiment: a YAML file, then the fields that were set beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from redline.spec.assign import Assignment, build
from redline.spec.experiment import Experiment
from redline.spec.tree import Mark, Table, read_file, read_text


def load_experiment(path: Path | None, overrides: Mapping[str, object] | None = None) -> Experiment:
    """The experiment of a file with `overrides` (dotted field -> value) on top; without a file, of these alone.

    Raises SpecError; when several fields are wrong, it lists all of them.
    """
    tree = read_file(path) if path is not None else Table(Mark(""))
    return build(tree, [Assignment(field, value, field) for field, value in (overrides or {}).items()])


def loads_experiment(text: str, source: str = "text") -> Experiment:
    """The experiment of YAML text. Raises SpecError."""
    return build(read_text(text, source), [])
