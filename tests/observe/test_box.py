"""The box before and after: a recorded one that changes, and the real one with a stranger at work."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from redline.observe.box import BoxWatch, governors


def write(root: Path, **files: str) -> None:
    for name, content in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


CPU0 = "sys__devices__system__cpu__cpu0__"


def box(
    root: Path, *, governor: str = "performance", swapped: int = 0, heat: int = 0, busy: int = 0, steal: int = 0
) -> None:
    write(
        root,
        proc__stat=f"cpu  0 0 0 1000 0 0 0 {steal} 0 0\ncpu0 0\n",
        proc__vmstat=f"nr_free_pages 1\npswpin {swapped}\npswpout {swapped}\n",
        sys__devices__system__cpu__online="0-1\n",
        **{
            f"{CPU0}cpufreq__scaling_governor": f"{governor}\n",
            f"{CPU0}thermal_throttle__core_throttle_count": f"{heat}\n",
        },
    )


def test_what_changed_meanwhile(tmp_path: Path) -> None:
    box(tmp_path)
    with BoxWatch(root=tmp_path) as watch:
        box(tmp_path, governor="powersave", swapped=300, heat=2, steal=500)
    said = watch.as_dict()
    assert said["governors"] == ["performance", "powersave"]
    assert said["governor_changed"] is True
    assert (said["swapped_pages"], said["heat_events"]) == (600, 2)
    assert said["steal_cores"] > 1
    assert "others_cores" not in said, "nobody knows which processes are the server's"


def test_a_governor_that_saves_power_all_the_time(tmp_path: Path) -> None:
    """As in the case in which a load generator's TTFT doubled with the GPU's own time unchanged (AIPerf #1424)."""
    box(tmp_path, governor="powersave")
    assert governors(tmp_path) == ["powersave"]
    with BoxWatch(root=tmp_path) as watch:
        pass
    assert watch.as_dict()["governors"] == ["powersave"]
    assert watch.as_dict()["governor_changed"] is False


def test_a_box_that_tells_nothing(tmp_path: Path) -> None:
    with BoxWatch(pids=(1,), root=tmp_path) as watch:
        pass
    said = watch.as_dict()
    assert said["governors"] == []
    assert all(said[name] is None for name in ("swapped_pages", "heat_events", "steal_cores"))


def test_a_stranger_on_our_cores_is_seen_and_the_engine_is_none() -> None:
    spin = [sys.executable, "-c", "while True: pass"]
    with subprocess.Popen(spin) as engine, subprocess.Popen(spin) as stranger:
        with BoxWatch(pids=(engine.pid,)) as alone:
            time.sleep(1.5)
        with BoxWatch(pids=(engine.pid, stranger.pid)) as both:
            time.sleep(1.5)
        engine.kill()
        stranger.kill()
    assert alone.as_dict()["others_cores"] > 0.3
    assert both.as_dict()["others_cores"] < alone.as_dict()["others_cores"]
