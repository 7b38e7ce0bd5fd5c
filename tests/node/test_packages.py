from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import pytest

import redline
from redline.node import packages


def test_versions_are_those_of_this_environment() -> None:
    versions = packages.package_versions()
    assert versions["numpy"] == metadata.version("numpy")
    assert "no-such-package" not in versions


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (
            "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n",
            {"version": "2.13.0+cpu", "cuda": "", "hip": ""},
        ),
        (
            "__version__ = '2.13.0'\ndebug = False\ncuda: Optional[str] = '12.8'\nhip: Optional[str] = None\n",
            {"version": "2.13.0", "cuda": "12.8", "hip": ""},
        ),
        ("__version__ = '2.6.0'\ncuda = '12.4'\nhip = None\n", {"version": "2.6.0", "cuda": "12.4", "hip": ""}),
    ],
)
def test_the_build_of_torch_is_read_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: dict[str, str]
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "torch" / "version.py").write_text(source)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    assert packages.torch_build() == expected


def test_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "find_spec", lambda name: None)
    assert packages.torch_build() is None


def test_redline_names_its_version_and_outside_a_checkout_nothing_else(tmp_path: Path) -> None:
    assert packages.redline_facts()["version"] == redline.__version__
    package = tmp_path / "lib" / "python3" / "redline"
    package.mkdir(parents=True)
    assert packages._commit(package) == {}
