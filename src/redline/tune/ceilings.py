"""`redline node ceilings`: what the card reaches, measured by a program of its own and kept for every later report."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import orjson

from redline import runtime
from redline.clock import wall_time
from redline.engines.launch import interpreter
from redline.errors import EnvironmentFault, UsageError
from redline.node.facts import facts
from redline.store.ceilings import Ceilings, card_of, keep

PROBE = Path(runtime.__file__).with_name("ceilings_probe.py")
PATIENCE_S = 300.0
SAYS = "redline-ceilings "


def node_ceilings(
    *,
    python: str = "",
    device: str = "",
    seconds: float = 0.5,
    progress: Callable[[str], None] = lambda text: None,
    cache: Path | None = None,
) -> tuple[Ceilings, Path]:
    """Measures in an interpreter that has torch (ours when empty) and keeps the result; (ceilings, its file).

    EnvironmentFault when torch is missing there, or the measurement broke.
    """
    if not 0 < seconds <= 60:
        raise UsageError(f"{seconds:g} seconds make no measurement", fix="--seconds 0.5")
    told = _run(interpreter(python), device, seconds, progress)
    card, driver = measured_card(told, facts())
    found = _ceilings(told, card, driver)
    return found, keep(found, cache)


def measured_card(told: Mapping[str, Any], box: Mapping[str, Any]) -> tuple[str, str]:
    """(card, driver) that the numbers are of. CUDA's first GPU is its fastest, NVML's the one on the lowest bus: on a
    box with several kinds the name that torch gives decides. A MIG instance goes by the name of its card."""
    if told["device"] == "cpu":
        return card_of({**box, "gpu": {}})
    card, driver = card_of(box)
    name = str(told.get("name") or "unknown")
    known = {str(one.get("name")) for one in (box.get("gpu") or {}).get("devices") or ()}
    return (name if name in known or not card else card), driver


def _run(python: str, device: str, seconds: float, progress: Callable[[str], None]) -> dict[str, Any]:
    command = [python, "-c", PROBE.read_text("utf-8"), "--seconds", str(seconds)]
    command += ["--device", device] if device else []
    env = {**os.environ, "PYTHONSAFEPATH": "1"}
    # From a folder that holds no package: before Python 3.11 the current one comes first on sys.path with -c.
    said: list[str] = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd="/", env=env
    ) as process:
        late = threading.Timer(PATIENCE_S, process.kill)
        late.start()
        try:
            assert process.stderr is not None
            for line in process.stderr:  # the result is one line, which fits the pipe
                said.append(line.rstrip())
                if line.startswith(SAYS):
                    progress(f"measuring {line.removeprefix(SAYS).strip()}")
            out = process.stdout.read() if process.stdout is not None else ""
        finally:
            late.cancel()
            if process.poll() is None:
                process.kill()
    try:
        told: dict[str, Any] = orjson.loads(out.strip().splitlines()[-1])
    except (IndexError, orjson.JSONDecodeError):
        raise _broken(python, said, process.returncode) from None
    return told


def _broken(python: str, said: list[str], code: int) -> EnvironmentFault:
    tail = [line for line in said if not line.startswith(SAYS)][-3:]
    if code == -signal.SIGKILL:
        at = next((line.removeprefix(SAYS) for line in reversed(said) if line.startswith(SAYS)), "starting")
        tail.append(f"it was killed, after {PATIENCE_S:.0f} s at the latest, at: {at}")
    if any("No module named 'torch'" in line for line in tail):
        return EnvironmentFault(
            f"torch is not installed in {python}", fix="pip install 'redline[engine]', or --python one that has it"
        )
    return EnvironmentFault("the card could not be measured", why="\n".join(tail))


def _ceilings(told: dict[str, Any], card: str, driver: str) -> Ceilings:
    parts = {"read": told["read"], "copy": told["copy"], **told["flops"]}
    skipped = {name: part["skipped"] for name, part in parts.items() if "skipped" in part}
    if "read" in skipped or not set(told["flops"]) - set(skipped):
        raise EnvironmentFault("the card could not be measured", why="; ".join(skipped.values()))
    rates = {name: float(part["per_s"]) for name, part in parts.items() if name not in skipped}
    return Ceilings(
        card=card,
        driver=driver,
        torch=str(told["torch"]),
        read=rates["read"],
        copy=rates.get("copy", 0.0),
        flops={name: rates[name] for name in told["flops"] if name in rates},
        spread={name: float(parts[name]["spread"]) for name in rates},
        skipped=skipped,
        measured_wall=wall_time(),
        about={**{k: v for k, v in told.items() if k not in ("read", "copy", "flops")}, "parts": parts},
    )
