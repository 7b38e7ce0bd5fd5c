"""One test at a time may touch this machine's own settings, also among several test runs on it."""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def alone() -> Iterator[None]:
    """Holds a lock that every test which writes live settings takes."""
    path = Path(tempfile.gettempdir()) / "redline-live-settings.lock"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
