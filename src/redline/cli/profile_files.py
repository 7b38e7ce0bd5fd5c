"""A profile as files in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redline.tune.profile.profile import Profiled


def write_profile(profiled: Profiled, folder: Path) -> list[Path]:
    """The notes, the numbers, the timeline, and the charts where they can be drawn."""
    import orjson

    from redline.errors import EnvironmentFault
    from redline.report.charts import available, write_whole
    from redline.report.profile.notes import notes
    from redline.report.profile.timeline import timeline_html
    from redline.tune.profile.profile import without_nan

    told = profiled.profile
    drawn = [(one.label, one.analysed) for each in profiled.readings.values() for one in each if one.analysed]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        pictures: list[tuple[str, str]] = []
        if available() and drawn:
            from redline.report.profile.pictures import write_pictures

            pictures = [(title, f"charts/{name}") for title, name in write_pictures(told, folder / "charts")]
        files = {
            "notes.md": notes(told, pictures, "timeline.html" if drawn else "").encode(),
            "profile.json": orjson.dumps(without_nan(told.as_dict()), option=orjson.OPT_INDENT_2),
        }
        if drawn:
            files["timeline.html"] = timeline_html(f"Profile of {told.model}", drawn, told).encode()
        for name, content in files.items():
            write_whole(folder / name, content)
    except OSError as error:
        raise EnvironmentFault(f"cannot write to {folder}", why=str(error), fix="--output FOLDER") from error
    return [folder / name for name in files]
