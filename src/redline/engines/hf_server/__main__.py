"""`python path/to/hf_server …`: works by path alone, where redline is not installed."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAME = "redline_hf_server"


def load_package() -> None:
    """Imports this folder as a package under a name of its own, and takes it off the path.

    Python puts the folder of a script (or the script itself, when it is a folder) first on the path, where `app` or
    `text` could shadow somebody's module; its parent has a `transformers.py`.
    """
    sys.path[:] = [entry for entry in sys.path if not entry or Path(entry).resolve() not in (HERE, HERE.parent)]
    spec = importlib.util.spec_from_file_location(NAME, HERE / "__init__.py", submodule_search_locations=[str(HERE)])
    assert spec is not None
    assert spec.loader is not None
    package = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    if not __package__:
        load_package()
        serve = importlib.import_module(f"{NAME}.serve")
    else:
        from . import serve
    sys.exit(serve.main())
