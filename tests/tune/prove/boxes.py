"""A box in a folder whose settings a paced server obeys: the number in a setting's file multiplies its times."""

from __future__ import annotations

import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from redline.node.fake import Box, FakeSys
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load import LoadSpec
from redline.spec.model import ModelSpec
from redline.spec.workload import LengthSpec, WorkloadSpec
from redline.tune.events import Events
from redline.tune.prove.http import Target
from redline.tune.prove.prove import Options, Proven, prove

PLANTED = "vm.stat_interval"
"""The server's times are multiplied by it."""
OTHER = "vm.vfs_cache_pressure"
"""Nobody looks at it."""
FILES = {
    "/proc/sys/vm/stat_interval": "8",
    "/proc/sys/vm/vfs_cache_pressure": "100",
    "/proc/sys/vm/swappiness": "60",
    "/proc/sys/vm/max_map_count": "3",
    "/proc/swaps": "Filename Type Size Used Priority",
    "/proc/vmstat": "allocstall_normal 5\ncompact_stall 7\nnr_dirty 10",
    "/proc/stat": "cpu 1 0 1 1 0 0 0 0\ncpu0 1 0 1 1 0 0 0 0\nintr 5\nctxt 9",
}


def box(folder: Path, **more: Any) -> FakeSys:
    for path, content in FILES.items():
        place = folder / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(content + "\n")
    return FakeSys(folder, Box(**more))


def value(root: Path, id_: str) -> str:
    return (root / "proc/sys" / id_.replace(".", "/")).read_text()


def planted(root: Path, id_: str = PLANTED) -> str:
    return str(root / "proc/sys" / id_.replace(".", "/"))


def experiment(flags: dict[str, Any], **load: Any) -> Experiment:
    load = {"concurrency": [4], "requests": 24, "duration_s": 20, "warmup_requests": 1, "calibrate_s": 0, **load}
    return Experiment(
        models=[ModelSpec(id="paced")],
        engines=[EngineSpec(kind="paced", flags={"ttft-ms": 4.0, "itl-ms": 3.0, **flags})],
        workload=WorkloadSpec(prompt_tokens=LengthSpec(mean=16), output_tokens=LengthSpec(mean=6)),
        load=LoadSpec(**load),
    )


class Obeying:
    """A plain HTTP listener whose answers take 5 ms times the planted number."""

    def __init__(self, root: Path) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(0.005 * float(Path(planted(root)).read_text().strip() or 1))
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"ok")

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self.url = f"http://127.0.0.1:{self._server.server_port}/health"

    def __enter__(self) -> Obeying:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def prove_http(tmp_path: Path, *settings: str, events: Events | None = None, **more: Any) -> Proven:
    """Short connections to a listener that obeys PLANTED of the box in `tmp_path`."""
    root = tmp_path / "box"
    sys = more.pop("sys", None) or box(root)
    with Obeying(root) as listener:
        spec = EngineSpec(kind="url", url=listener.url)
        target = Target(listener.url, burst=4, seconds=0.2)
        usual = {
            "measure": "http",
            "rounds": 4,
            "settle_s": 0.0,
            "http": target,
            "metrics": ("e2e_ms.p50",),
            "pids": (os.getpid(),),
        }
        return prove(
            experiment({}).model_copy(update={"engines": [spec]}), settings, Options(**{**usual, **more}),
            sys=sys, state_dir=tmp_path / "state", db=tmp_path / "r.db", events=events,
        )  # fmt: skip
