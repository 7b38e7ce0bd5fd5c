"""What redline writes for systemd-tmpfiles, carried out by it."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from redline.node.persist.lines import TMPFILES_FILES, tmpfiles
from tests.node.folder_box import folder_box
from tests.node.persist.test_lines import setting

pytestmark = pytest.mark.skipif(not shutil.which("systemd-tmpfiles"), reason="no systemd-tmpfiles: apt install systemd")


def test_lines_do_what_they_say(tmp_path: Path) -> None:
    target, odd = tmp_path / "attribute", tmp_path / "100% odd"
    for path in (target, odd):
        path.write_text("")
    box = folder_box(tmp_path / "box")
    settings = [setting("a", "always madvise", "tmpfiles", str(target)), setting("b", "50%h", "tmpfiles", str(odd))]
    form = tmpfiles(box, settings)
    config = tmp_path / "redline.conf"
    config.write_bytes(form.changes[0].after or b"")
    done = subprocess.run(["systemd-tmpfiles", "--create", str(config)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert target.read_text() == "always madvise"
    assert odd.read_text() == "50%h"


def test_the_first_of_our_names_is_the_first_it_takes(tmp_path: Path) -> None:
    target = tmp_path / "attribute"
    target.write_text("")
    configs = []
    for number, path in enumerate(reversed(TMPFILES_FILES)):
        config = tmp_path / Path(path).name
        config.write_text(f"w {target} - - - - {number}\n")
        configs.append(str(config))
    assert configs == sorted(configs), "the later one of our names comes before"
    subprocess.run(["systemd-tmpfiles", "--create", *configs], capture_output=True, check=False)
    assert target.read_text() == "0"
