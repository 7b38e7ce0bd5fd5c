from __future__ import annotations

import json
import os

import pytest

from redline.errors import UsageError
from tests.cli.node_verbs import node
from tests.cli.test_main import redline


def test_the_command_gets_stdout_and_its_exit_code_is_ours() -> None:
    cpu = min(os.sched_getaffinity(0))
    script = 'grep Cpus_allowed_list /proc/self/status; echo "$@"; exit 7'
    command = ["sh", "-c", script, "sh", "--json", "--cpus", "x"]
    done = redline("node", "pin", "--cpus", str(cpu), "--cpus-only", "--json", "--", *command, code=7)
    assert done.stdout.split() == ["Cpus_allowed_list:", str(cpu), "--json", "--cpus", "x"]
    said = json.loads(done.stderr)
    assert (said["cpus"], said["nodes"], said["command"][0]) == (str(cpu), [], "sh")


@pytest.mark.parametrize(
    ("flags", "said"),
    [(["--node", "x"], "no list of numbers"), ([], "what to bind to"), (["--gpu", "99"], "no GPU 99")],
)
def test_what_cannot_be_meant(flags: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        node("pin", *flags, "--", "true")
