"""Verbs of `redline node` in this process: quicker than a program of their own, which the verbs of pin need."""

from __future__ import annotations

from typer.testing import CliRunner, Result

from redline.cli.node import application


def node(*arguments: str, code: int = 0) -> Result:
    """What it printed; a RedlineError is raised, as the command line's entry point wants it."""
    done = CliRunner().invoke(application(), list(arguments))
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    assert done.exit_code == code, done.output
    return done
