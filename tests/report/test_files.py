from __future__ import annotations

import errno
from pathlib import Path

import orjson
import pytest

from redline.errors import EnvironmentFault
from redline.report import files
from redline.report.charts import Chart
from redline.report.files import write_files
from redline.report.model import Report


def fault() -> None:
    raise EnvironmentFault("no charts", fix="pip install 'redline[charts]'")


def test_page_text_numbers_and_charts(plain: Report, tmp_path: Path) -> None:
    written = write_files(plain, tmp_path / "out", ("html", "md", "json", "svg"))
    names = [path.relative_to(tmp_path / "out").as_posix() for path in written]
    assert names[:3] == ["report.html", "report.md", "report.json"]
    assert "charts/throughput.svg" in names
    text = written[1].read_text()
    for name in names[3:]:
        assert f"]({name})" in text
    assert orjson.loads(written[2].read_bytes())["title"] == plain.title
    assert written[0].read_text().count("<svg") == len(names) - 3


def test_no_format_writes_nothing(plain: Report, tmp_path: Path) -> None:
    assert write_files(plain, tmp_path, ()) == []


def test_without_the_extra_page_and_text_do_without(
    plain: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(report: Report, svg: bool = False) -> list[Chart]:
        fault()
        return []

    monkeypatch.setattr(files, "available", lambda: False)
    monkeypatch.setattr(files, "require", fault)
    monkeypatch.setattr("redline.report.html.charts", none)
    written = write_files(plain, tmp_path, ("html", "md", "svg"))
    assert [path.name for path in written] == ["report.html", "report.md"]
    with pytest.raises(EnvironmentFault):
        write_files(plain, tmp_path, ("svg", "png"))


def test_a_folder_that_cannot_be_written(plain: Report, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(EnvironmentFault, match="cannot write the report"):
        write_files(plain, tmp_path / "file" / "out", ("md",))


def test_a_full_disk_leaves_the_report_before(plain: Report, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_files(plain, tmp_path, ("md",))
    before = (tmp_path / "report.md").read_bytes()

    def full(path: Path, content: bytes) -> int:
        with path.open("wb") as file:
            file.write(content[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(EnvironmentFault, match="cannot write the report"):
        write_files(plain, tmp_path, ("md",))
    assert (tmp_path / "report.md").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report.md"]
