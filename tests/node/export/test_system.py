from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

from redline.node.change import Change, value_of
from redline.node.export.forms import export
from redline.node.plan import Plan
from tests.node.export.planned import EMPTY, ODD, planned


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    return planned("epyc_8gpu", tmp_path_factory.mktemp("box"))[1]


def test_a_profile_has_every_live_value(plan: Plan) -> None:
    parsed = configparser.ConfigParser(interpolation=None, delimiters="=")
    parsed.optionxform = str  # type: ignore[assignment,method-assign]
    parsed.read_string(export(plan, "tuned"))
    found = {f"/proc/sys/{name.replace('.', '/')}": value for name, value in parsed["sysctl"].items()}
    found |= dict(parsed["sysfs"])
    assert found == {c.path: value_of(c.after or b"") for c in plan.changes if c.kind == "attribute"}


def test_boot_arguments_and_names_with_dots() -> None:
    assert "cmdline_redline=+a b=1" in export(ODD, "tuned")
    change = Change("attribute", "/proc/sys/net/ipv4/conf/eth0.10/rp_filter", b"1", b"0", ("x",))
    assert "net.ipv4.conf.eth0/10.rp_filter=0" in export(Plan((change,)), "tuned")
    assert "# not a matter of TuneD's: /etc/odd.conf" in export(ODD, "tuned")


def test_a_unit_writes_every_live_value_and_says_nothing_else(plan: Plan) -> None:
    text = export(plan, "systemd")
    values = [change for change in plan.changes if change.kind == "attribute"]
    assert text.count("ExecStart=") == len(values)
    assert all(change.path in text for change in values)
    assert "ExecStart=/bin/true" in export(EMPTY, "systemd")


@pytest.mark.parametrize("odd", [False, True])
def test_against_systemd(plan: Plan, odd: bool, tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed: apt install systemd")
    unit = tmp_path / "redline-node.service"
    unit.write_text(export(ODD if odd else plan, "systemd"))
    done = subprocess.run([program, "verify", "--man=no", str(unit)], capture_output=True, text=True, check=False)
    assert "redline-node.service" not in done.stderr
