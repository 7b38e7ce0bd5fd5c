"""Profiles read once more from the traces they kept, by today's reading, and put side by side.

    python bench/profile_again.py FOLDER [FOLDER ...] --out FOLDER

Each FOLDER is what `redline profile --output` or bench/profile_engines.py wrote, of one model on one card. Where
kernels spend their time is taken from the traces anew; what was measured without the profiler (step times, KV memory,
ceilings) stays as it was. A trace that was not kept keeps its old reading, which is named.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path

from redline.analyse.profile.record import EngineProfile, PhaseProfile, Profile, profile_from
from redline.cli.profile_files import write_profile
from redline.tune.profile.profile import Profiled, file_name, profile_trace
from redline.tune.profile.read import Reading


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER")
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    told = [profile_from(json.loads((folder / "profile.json").read_text())) for folder in asked.folders]
    if unlike := {(one.model, one.card) for one in told} - {(told[0].model, told[0].card)}:
        sys.exit(f"not of one model on one card: {sorted(unlike)}")
    engines: list[EngineProfile] = []
    readings: dict[str, list[Reading]] = {}
    for folder, one in zip(asked.folders, told, strict=True):
        for engine in one.engines:
            if engine.phases or not any(
                engine.label == other.label for each in told for other in each.engines if other.phases
            ):
                made, readings[engine.label] = again(engine, folder / file_name(engine.label))
                engines.append(made)
    whole: Profile = replace(told[0], engines=tuple(engines))
    for path in write_profile(Profiled(whole, readings), asked.out):
        print(path)
    return 0


def again(engine: EngineProfile, folder: Path) -> tuple[EngineProfile, list[Reading]]:
    phases, readings = [], []
    for one in engine.phases:
        made, reading = read_again(one, folder)
        phases.append(made)
        if reading is not None:
            label = f"{engine.label} · {one.phase} · batch {one.batch} · context {one.asked}"
            readings.append(replace(reading, label=label))
    return replace(engine, phases=tuple(phases)), readings


def read_again(one: PhaseProfile, folder: Path) -> tuple[PhaseProfile, Reading | None]:
    path = folder / one.trace
    if not one.trace or not path.exists():
        print(
            f"{folder.name} {one.phase} {one.batch} x {one.asked}: no trace was kept, its old reading stays",
            file=sys.stderr,
        )
        return one, None
    reading = profile_trace(path)
    part = reading.analysed and (reading.analysed.phase(one.phase) or reading.analysed.phase("whole"))
    kept = tuple(note for note in one.notes if note not in reading.notes)
    if part and one.phase == "prefill" and (pieces := round(one.batch * one.asked / part.prompt_tokens)) > 1:
        part = part.added_up(pieces)
    host, stand = (one.host_ms, one.standing) if part else (None, None)
    return replace(one, breakdown=part, host_ms=host, standing=stand, notes=(*kept, *reading.notes)), reading


if __name__ == "__main__":
    sys.exit(main())
