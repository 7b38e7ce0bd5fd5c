"""Plans of made-up boxes, for the tests of every form."""

from __future__ import annotations

from pathlib import Path

from redline.node.audit import audit
from redline.node.change import Change
from redline.node.fake import FakeSys
from redline.node.plan import Plan, plan
from tests.node.fake_boxes import BOXES


def planned(name: str, root: Path) -> tuple[FakeSys, Plan]:
    """A box and what would bring it to the profile for latency."""
    sys = BOXES[name](root)
    return sys, plan(sys, audit(sys, "latency"))


ODD = Plan(
    (
        Change("attribute", "/sys/a b/it's", b"[x] y", b"y", ("odd.value",)),
        Change("file", "/etc/odd.conf", None, b"a='$HOME' `b` \\ %i {{ x }}\nREDLINE_END\n", ("odd.file",), mode=0o600),
        Change("file", "/etc/binary", None, b"\xff\x00no end", ("odd.binary",)),
        Change("file", "/etc/gone", b"x\n", None, ("odd.gone",)),
        Change(
            *("command", "", None, None, ("odd.command",)),
            argv=("grubby", "--args=a b"), covers=("/boot/x",), redo_argv=("grubby", "--remove-args=a b"),
            arguments=("a", "b=1"),
        ),
    )
)  # fmt: skip
"""Everything that has to be quoted somewhere."""
EMPTY = Plan(())
