"""An engine that keeps an audit log: after each step a line, and the step ends when it is on the disk.

Python loads this by itself from PYTHONPATH. Where REDLINE_AUDIT_LOG is set, redline's engine writes and syncs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any


def _audit(path: str) -> None:
    import importlib.abc
    import importlib.machinery

    class Finder(importlib.abc.MetaPathFinder):
        def find_spec(self, name: str, where: Any, target: Any = None) -> Any:
            if name != "redline.runtime.loop":
                return None
            sys.meta_path.remove(self)
            found = importlib.machinery.PathFinder.find_spec(name, where)
            assert found is not None
            assert found.loader is not None
            run = found.loader.exec_module

            def audited(module: Any) -> None:
                run(module)
                wrap(module.EngineLoop)

            found.loader.exec_module = audited  # type: ignore[method-assign]
            return found

    def wrap(loop: Any) -> None:
        log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        collect: Callable[[Any], None] = loop._collect

        def collected(self: Any) -> None:
            collect(self)
            os.write(log, f"step {self.progress}\n".encode())
            os.fdatasync(log)

        loop._collect = collected

    sys.meta_path.insert(0, Finder())


if os.environ.get("REDLINE_AUDIT_LOG"):
    _audit(os.environ["REDLINE_AUDIT_LOG"])
