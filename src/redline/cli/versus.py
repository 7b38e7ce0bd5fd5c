"""How `redline compare A B` shows its result, and the exit code that a CI job reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from redline.cli.show import print_json, stderr, working


@dataclass(frozen=True)
class Asked:
    """What was asked of a comparison of stored runs; `tolerance` 0.02 is 2 %."""

    metrics: tuple[str, ...]
    tolerance: float
    db: Path | None
    output: Path | None
    as_json: bool

    def check(self, baseline: str) -> None:
        """UsageError before anything is measured when there is no such run or metric."""
        from redline.report.sides import stored_sides
        from redline.report.versus import metrics_of
        from redline.store.read import Reader, default_path

        metrics_of(self.metrics)
        with Reader.open(self.db or default_path()) as reader:
            stored_sides(reader, baseline)

    def show(self, a: str, b: str) -> None:
        """Prints it, writes versus.md and versus.html where --output says, and leaves with 5 or 6 if need be."""
        from rich.console import Console

        from redline.report.versus import compare_runs
        from redline.report.versus_text import as_dict, print_versus

        with working("comparing"):
            versus = compare_runs(a, b, db=self.db, metrics=self.metrics, tolerance=self.tolerance)
        if self.as_json:
            print_json(as_dict(versus))
        else:
            print_versus(versus, Console(highlight=False))
        if self.output is not None:
            self._write(versus, self.output)
        if versus.exit_code:
            raise typer.Exit(versus.exit_code)

    def _write(self, versus: object, folder: Path) -> None:
        from redline.errors import EnvironmentFault
        from redline.report.versus import Versus
        from redline.report.versus_text import html, markdown

        assert isinstance(versus, Versus)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "versus.md").write_text(markdown(versus))
            (folder / "versus.html").write_text(html(versus))
        except OSError as error:
            raise EnvironmentFault(f"cannot write to {folder}", why=str(error), fix="--output FOLDER") from error
        stderr().print(f"comparison: {folder / 'versus.html'}", soft_wrap=True)
