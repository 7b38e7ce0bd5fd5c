"""An engine's own flags: checked against what the installed version knows, then turned into a command line."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from redline.errors import UsageError
from redline.spec.engine import FlagValue

Kind = Literal["switch", "toggle", "value", "optional", "list"]


@dataclass(frozen=True)
class Flag:
    """One flag of the installed engine, without dashes in front.

    `kind`: switch (`--x`), toggle (`--x` and `--no-x`), value (`--x V`), optional (`--x` or `--x V`), list
    (`--x A B`). `type` is the name of the parser's type; `choices` is empty when anything goes.
    """

    name: str
    aliases: tuple[str, ...] = ()
    kind: Kind = "value"
    type: str = ""
    choices: tuple[str, ...] = ()
    default: str = ""

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> Flag:
        return cls(
            row["name"], tuple(row["aliases"]), row["kind"], row["type"], tuple(row["choices"]), str(row["default"])
        )


def normal(name: str) -> str:
    """`--max_num_seqs` → `max-num-seqs`; what follows a dot (`compilation-config.cudagraph_mode`) stays as it is."""
    head, dot, rest = name.lstrip("-_").partition(".")
    return head.replace("_", "-") + dot + rest


class FlagTable:
    """All flags of one installed engine."""

    def __init__(self, flags: Iterable[Flag]) -> None:
        self._by_name: dict[str, Flag] = {}
        for flag in flags:
            for name in (flag.name, *flag.aliases):
                self._by_name.setdefault(normal(name), flag)

    def names(self) -> frozenset[str]:
        return frozenset(self._by_name)

    def find(self, name: str) -> Flag | None:
        """The flag for a name as a user types it; `attention-config.backend` finds `attention-config`."""
        return self._by_name.get(normal(name).partition(".")[0])

    def check(self, flags: Mapping[str, FlagValue], engine: str) -> None:
        """UsageError for the first flag that this engine lacks, or whose value cannot be."""
        for name, value in flags.items():
            flag = self.find(name)
            if flag is None:
                raise self._unknown(name, engine)
            if trouble := _trouble(flag, name, value):
                raise UsageError(f"{engine}: --{normal(name)} {trouble}", fix=_allowed(flag))

    def _unknown(self, name: str, engine: str) -> UsageError:
        wanted = normal(name).partition(".")[0]
        near = difflib.get_close_matches(wanted, self._by_name, n=3, cutoff=0.6)
        near += [known for known in sorted(self._by_name) if wanted in known and known not in near and len(wanted) > 3]
        return UsageError(
            f"{engine} has no flag --{normal(name)}",
            why="The installed version's own argument list was asked; nothing was started.",
            fix=f"Did you mean {' or '.join('--' + known for known in near[:3])}?" if near else "",
        )

    def arguments(self, flags: Mapping[str, FlagValue]) -> list[str]:
        """The command line for checked flags. A false switch is left out: absent is what false means there."""
        return [part for name, value in flags.items() for part in self._argument(name, value)]

    def _argument(self, name: str, value: FlagValue) -> list[str]:
        flag = self.find(name)
        head, dot, rest = normal(name).partition(".")
        negated = flag is not None and flag.kind == "toggle" and head == f"no-{flag.name}"
        dashed = "--" + (flag.name if flag else head) + dot + rest  # the long name: `-tp` has one dash, `--tp` none
        kind = flag.kind if flag and not dot else "value"
        if isinstance(value, bool):
            if kind == "toggle":
                return [dashed if value is not negated else "--no-" + dashed.removeprefix("--")]
            if kind in ("switch", "optional"):
                return [dashed] if value else []
            return [dashed, "true" if value else "false"]
        if isinstance(value, list):
            return [dashed, *map(str, value)] if kind == "list" else [w for v in value for w in (dashed, str(v))]
        return [dashed, str(value)]


def plain_arguments(flags: Mapping[str, FlagValue]) -> list[str]:
    """The command line when the engine's flags are not known: true is `--x`, false is left out."""
    return FlagTable(
        Flag(normal(name).partition(".")[0], kind="switch" if isinstance(value, bool) else "list")
        for name, value in flags.items()
    ).arguments(flags)


def _trouble(flag: Flag, name: str, value: FlagValue) -> str:
    """What is wrong with the value; empty when nothing is."""
    if "." in name:
        return ""
    if flag.kind in ("switch", "toggle"):
        return "" if isinstance(value, bool) else f"is a switch: true or false, not {value!r}"
    if isinstance(value, bool):
        return "" if flag.kind == "optional" or _takes_bool(flag) else f"needs a value, not {str(value).lower()}"
    values = value if isinstance(value, list) else [value]
    for each in values:
        if flag.choices and str(each) not in flag.choices:
            near = difflib.get_close_matches(str(each), flag.choices, n=1)
            return f"cannot be {each!r}" + (f"; did you mean {near[0]!r}?" if near else "")
        if flag.type in ("int", "float") and not _parses(str(each), flag.type):
            return f"needs a number, not {each!r}"
    return ""


def _takes_bool(flag: Flag) -> bool:
    return "bool" in flag.type.lower() or {"true", "false"} <= {choice.lower() for choice in flag.choices}


def _parses(text: str, kind: str) -> bool:
    try:
        int(text) if kind == "int" else float(text)
    except ValueError:
        return text.lower() == "none"
    return True


def _allowed(flag: Flag) -> str:
    return f"Possible values: {', '.join(flag.choices)}." if flag.choices else ""
