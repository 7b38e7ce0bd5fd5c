"""`redline node`: what a box is, how it should be, and the way there and back. Each verb is a file `node_<verb>.py`."""

from __future__ import annotations

import importlib
import pkgutil

import typer

import redline.cli


def application() -> typer.Typer:
    """The sub-application with every verb that registers itself."""
    app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False)
    app.callback()(_group)  # a group also while it has one verb only
    for found in pkgutil.iter_modules(redline.cli.__path__):
        if found.name.startswith("node_"):
            module = importlib.import_module(f"redline.cli.{found.name}")
            if hasattr(module, "register"):
                module.register(app)
    return app


def _group() -> None:
    """Prepare a GPU box: audit its settings, change them, prove it, undo it."""
