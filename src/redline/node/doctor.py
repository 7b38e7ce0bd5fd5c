"""What this box can do, what is missing, and how to get it. Changes nothing, imports nothing heavy."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from redline.node import checks_box as box
from redline.node import checks_software as software
from redline.node.check import Check
from redline.node.facts import facts
from redline.node.interpreter import Interpreter, look_into
from redline.node.packages import package_versions
from redline.node.tree import Fact, is_skipped

BESIDE = ".venv-vllm"
DEFAULT_DB = Path("redline-results/redline.db")


def doctor(pythons: Sequence[str] = (), *, db: Path | None = None, hub: bool = True) -> list[Check]:
    """Every check, in the order in which a person would fix things.

    `pythons` are further interpreters or virtual environments to look into; `.venv-vllm` is looked into when it is
    there. `hub=False` sends nothing to the network.
    """
    with ThreadPoolExecutor(max_workers=4) as pool:
        hub_asked = pool.submit(software.check_hub) if hub else None
        others = pool.map(look_into, _places(pythons))
        found = facts()
        results = db or DEFAULT_DB
        here = Interpreter(Path(sys.executable), str(found["python"].get("version", "")), package_versions())
        interpreters = [here, *others]
        checks = [*_software(found, interpreters), *_box(found, results)]
        checks.append(_guarded("results file", lambda: software.check_results(results)))
        if hub_asked is not None:
            checks.append(_guarded("model hub", hub_asked.result))
    return checks


def _places(pythons: Sequence[str]) -> list[str]:
    beside = [BESIDE] if Path(BESIDE, "bin", "python").exists() and BESIDE not in pythons else []
    return [*pythons, *beside]


def _software(found: Fact, interpreters: list[Interpreter]) -> list[Check]:
    gpu, build = found["gpu"], found["torch_build"]
    checks = [_guarded("Python", software.check_python)]
    checks += [_guarded(f"redline[{name}]", partial(software.check_extra, name)) for name in software.EXTRAS]
    checks.append(_guarded("torch", lambda: software.check_torch(None if is_skipped(build) else build, gpu)))
    checks.append(_guarded("engine transformers", software.check_transformers))
    checks.append(_guarded("engine redline", software.check_own_engine))
    checks.append(_guarded("engine vllm", lambda: software.check_vllm(interpreters, gpu)))
    checks.append(_guarded("C++ compiler", software.check_compiler))
    for python in interpreters[1:]:
        if python.error:
            how = "give the path of an interpreter or of a virtual environment"
            checks.append(Check("interpreter", "fail", str(python.path), python.error, how))
    return checks


def _box(found: Fact, results: Path) -> list[Check]:
    cpu, memory, load, gpu = found["cpu"], found["memory"], found["load"], found["gpu"]
    probes: dict[str, Callable[[], Check]] = {
        "GPU": lambda: box.check_gpu(gpu),
        "cores": lambda: box.check_cores(cpu),
        "CPU arithmetic": lambda: box.check_features(cpu),
        "CPU clock": lambda: box.check_governor(cpu),
        "other load": lambda: box.check_load(load, cpu),
        "memory": lambda: box.check_memory(memory),
        "shared memory": box.check_shared_memory,
        "disk": lambda: box.check_disk(results),
        "open files": box.check_open_files,
        "kernel timestamps": box.check_timestamps,
    }
    return [_guarded(name, probe) for name, probe in probes.items()]


def _guarded(name: str, probe: Callable[[], Check]) -> Check:
    """A check that itself fails is a finding about this box, not a stack trace."""
    try:
        return probe()
    except Exception as error:
        return Check(name, "warn", "could not be checked", f"{type(error).__name__}: {error}")
