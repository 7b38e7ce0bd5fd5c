"""`python -m redline` is `redline`."""

from redline.cli.main import run

run()
