"""An engine in a network namespace of its own, behind a router in another one that loses packets now and then.

Loss has to happen on the way: a packet that is dropped where it is sent is no lost one to TCP, it knows of it.
"""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from redline.engines.endpoint import Endpoint
from redline.errors import Skipped
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model
from redline.testing.plants import Plant, calmed

HERE, NEAR, FAR, THERE, PORT = "10.213.77.1", "10.213.77.2", "10.213.77.5", "10.213.77.6", 8000
LOSS_PERCENT = 20
READY_S = 90.0


class Lossy(Plant):
    """Drops packets that the router would pass on, by nftables."""

    def __init__(self, space: str, **rest: float) -> None:
        super().__init__(**rest)  # type: ignore[arg-type]
        self._space = space

    def begin(self) -> None:
        rules = "\n".join(
            (
                "add table ip plant",
                "add chain ip plant way { type filter hook forward priority 0; }",
                f"add rule ip plant way numgen random mod 100 < {LOSS_PERCENT} counter drop\n",
            )
        )
        _in(self._space, "nft", "-f", "-", text=rules)

    def end(self) -> None:
        with suppress(subprocess.CalledProcessError):
            _in(self._space, "nft", "delete", "table", "ip", "plant")


@dataclass(frozen=True)
class Found:
    router: str
    pid: int
    flags: dict[str, Any]

    def planting(self, endpoint: Endpoint) -> Plant:
        calmed([self.pid])
        return Lossy(self.router, lasts_s=0.8, share=0.25)


@contextmanager
def lossy_engine() -> Iterator[Found | Skipped]:
    missing = [name for name in ("ip", "nft") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        yield Skipped("no network namespace with loss here", "root, apt-get install iproute2 nftables")
        return
    token = secrets.token_hex(3)
    space, router = f"redline-{token}", f"redline-{token}-router"
    ours, near, far, theirs = (f"rl{name}{token}" for name in "abcd")
    engine: subprocess.Popen[bytes] | None = None
    try:
        for line in (
            f"ip netns add {router}", f"ip netns add {space}",
            f"ip link add {ours} type veth peer name {near} netns {router}",
            f"ip -n {router} link add {far} type veth peer name {theirs} netns {space}",
            f"ip addr add {HERE}/30 dev {ours}", f"ip link set {ours} up",
            f"ip -n {router} addr add {NEAR}/30 dev {near}", f"ip -n {router} link set {near} up",
            f"ip -n {router} addr add {FAR}/30 dev {far}", f"ip -n {router} link set {far} up",
            f"ip -n {space} addr add {THERE}/30 dev {theirs}", f"ip -n {space} link set {theirs} up",
            f"ip -n {space} link set lo up", f"ip -n {space} route add default via {FAR}",
            f"ip route add {THERE}/32 via {NEAR}",
            f"ip netns exec {router} sysctl -qw net.ipv4.ip_forward=1",
        ):  # fmt: skip
            subprocess.run(line.split(), check=True)
        folder = str(resolve_model(ModelSpec(id="bundled:tiny")).path)
        command = [
            sys.executable,
            "-m",
            "redline.runtime.serve",
            "--model",
            folder,
            "--served-model-name",
            "tiny",
            "--host",
            THERE,
            "--port",
            str(PORT),
        ]
        engine = subprocess.Popen(
            ["ip", "netns", "exec", space, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        _wait(engine)
        yield Found(
            router,
            engine.pid,
            {"engines": None, "url": [f"http://{THERE}:{PORT}/v1"], "model": ["tiny"], "tokenizer": folder},
        )
    finally:
        if engine is not None:
            engine.terminate()
            with suppress(subprocess.TimeoutExpired):
                engine.wait(15)
            engine.kill()
            engine.wait()
        for line in (f"ip netns del {space}", f"ip netns del {router}", f"ip link del {ours}"):
            subprocess.run(line.split(), check=False, stderr=subprocess.DEVNULL)


def _wait(engine: subprocess.Popen[bytes]) -> None:
    ends = time.monotonic() + READY_S
    while time.monotonic() < ends and engine.poll() is None:
        with suppress(OSError), urllib.request.urlopen(f"http://{THERE}:{PORT}/health", timeout=2) as reply:
            if reply.status == 200:
                return
        time.sleep(0.3)
    raise RuntimeError("the engine in the namespace does not answer")


def _in(space: str, *command: str, text: str = "") -> None:
    subprocess.run(["ip", "netns", "exec", space, *command], input=text.encode(), check=True, stderr=subprocess.DEVNULL)
