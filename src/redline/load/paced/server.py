"""The paced server: an OpenAI-like endpoint that answers on an exact schedule and knows what it really did.

    python -m redline.load.paced --port 0 --ttft-ms 50 --itl-ms 20 --fault reset:0.1

It prints its port as one JSON line once it listens. In a test:

    with PacedServer(Pace(ttft_ms=50, itl_ms=20, faults={"stall": 0.1})) as server:
        ... server.endpoint ...
        truth = server.truth()
"""

from __future__ import annotations

import argparse
import gc
import json
import signal
import subprocess
import sys
import urllib.request
from dataclasses import asdict, fields
from types import TracebackType
from typing import get_args, get_type_hints

from redline.engines.endpoint import Dialect, Endpoint
from redline.errors import EnvironmentFault
from redline.load.paced.loop import PacedLoop, Truth
from redline.load.paced.pace import FAULTS, Pace
from redline.load.worker import open_files_limit


class PacedServer:
    """A paced server in its own process, from `with` to the end of it."""

    def __init__(self, pace: Pace | None = None, *, port: int = 0) -> None:
        self.pace = pace or Pace()
        self._asked_port = port
        self.port = 0
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> PacedServer:
        command = [sys.executable, "-m", "redline.load.paced", "--port", str(self._asked_port), "--pace", "-"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(asdict(self.pace)) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        if not line:
            self.stop()
            raise EnvironmentFault("the paced server did not start", why="see its message above")
        self.port = int(json.loads(line)["port"])
        return self

    def stop(self) -> None:
        """Ends the process; twice is fine."""
        if self.process is None:
            return
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.process.wait()
        self.process = None

    def __enter__(self) -> PacedServer:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def endpoint(self) -> Endpoint:
        dialect = Dialect(
            ignore_eos=True,
            min_tokens=True,
            token_id_prompts=True,
            tokenize=self.pace.tokenizer,
            stream_usage=self.pace.usage != "none",
            continuous_usage=self.pace.usage == "continuous",
            priority=True,
            responses=("ignore_eos", "min_tokens"),
        )
        return Endpoint(
            base_url=self.base_url,
            model=self.pace.model,
            engine="paced",
            engine_version="1",
            dialect=dialect,
            metrics_url=f"http://127.0.0.1:{self.port}/metrics" if self.pace.metrics else None,
            max_model_len=self.pace.max_model_len or None,
        )

    def truth(self, *, clear: bool = False) -> list[Truth]:
        """What was really sent, in the order of arrival; `clear` forgets it afterwards."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/_truth", method="DELETE" if clear else "GET", headers={"Connection": "close"}
        )
        if self.pace.api_key:
            request.add_header("Authorization", f"Bearer {self.pace.api_key}")
        with urllib.request.urlopen(request, timeout=30) as reply:
            return [Truth(**row) for row in json.loads(reply.read())["requests"]]


def _pace_from(arguments: argparse.Namespace) -> Pace:
    if arguments.pace:
        return Pace(**json.loads(sys.stdin.readline()))
    values = {f.name: getattr(arguments, f.name) for f in fields(Pace) if f.name != "faults"}
    faults = {}
    for item in arguments.fault:
        kind, _, share = item.partition(":")
        if kind not in FAULTS:
            raise SystemExit(f"unknown fault {kind!r}; one of {', '.join(FAULTS)}")
        try:
            faults[kind] = float(share or 1)
        except ValueError:
            raise SystemExit(f"--fault {item}: KIND:SHARE, such as reset:0.1") from None
    sizes = arguments.chunk_mix.split(",") if arguments.chunk_mix else []
    if not all(size.isdecimal() and int(size) for size in sizes):
        raise SystemExit(f"--chunk-mix {arguments.chunk_mix}: tokens of one chunk after the other, such as 1,3,5")
    return Pace(**values, faults=faults)


def main(argv: list[str] | None = None) -> None:
    """Serves until SIGTERM, SIGINT or, when started with `--pace -`, the end of the parent's pipe."""
    parser = argparse.ArgumentParser(prog="python -m redline.load.paced", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="0 picks a free port")
    parser.add_argument("--pace", default="", help="- reads every option as one JSON line from stdin")
    parser.add_argument("--fault", action="append", default=[], help=f"KIND:SHARE, may repeat; {', '.join(FAULTS)}")
    hints = get_type_hints(Pace)
    for option in fields(Pace):
        if option.name != "faults":
            default = option.default
            kind = (lambda text: text not in ("0", "false", "no")) if isinstance(default, bool) else type(default)
            choices = get_args(hints[option.name]) or None
            parser.add_argument("--" + option.name.replace("_", "-"), type=kind, default=default, choices=choices)
    arguments = parser.parse_args(argv)
    open_files_limit()
    loop = PacedLoop(_pace_from(arguments), arguments.port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: loop.stop())
    print(json.dumps({"port": loop.port, "url": f"http://127.0.0.1:{loop.port}/v1"}), flush=True)  # noqa: T201
    if arguments.pace:
        loop.watch_parent(sys.stdin.fileno())
    gc.freeze()
    gc.disable()
    loop.run()
