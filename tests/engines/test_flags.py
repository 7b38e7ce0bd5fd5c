from __future__ import annotations

import argparse
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redline.engines import vllm_probe
from redline.engines.flags import Flag, FlagTable, normal, plain_arguments
from redline.errors import UsageError


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(allow_abbrev=False)
    made.add_argument("--max-num-seqs", type=int)
    made.add_argument("--gpu-memory-utilization", type=float, default=0.9)
    made.add_argument("--dtype", choices=["auto", "bfloat16", "float16"])
    made.add_argument("--tensor-parallel-size", "-tp", type=int)
    made.add_argument("--enable-prefix-caching", action=argparse.BooleanOptionalAction)
    made.add_argument("--disable-log-stats", action="store_true")
    made.add_argument("--served-model-name", nargs="+")
    made.add_argument("--hf-token", nargs="?", const=True)
    made.add_argument("--attention-config")
    made.add_argument("--optimization-level")
    return made


TABLE = FlagTable(Flag.from_json(vllm_probe.row(a)) for a in parser()._actions if a.dest != "help")


def test_what_the_probe_reads_from_a_parser() -> None:
    flag = TABLE.find("tp")
    assert flag == Flag("tensor-parallel-size", ("tp",), "value", "int", (), "None")
    kinds = {name: TABLE.find(name).kind for name in ("enable-prefix-caching", "disable-log-stats", "hf-token")}  # type: ignore[union-attr]
    assert kinds == {"enable-prefix-caching": "toggle", "disable-log-stats": "switch", "hf-token": "optional"}
    assert TABLE.find("O") is TABLE.find("optimization-level")
    assert "no-enable-prefix-caching" in TABLE.names()


@pytest.mark.parametrize(
    ("flags", "arguments"),
    [
        ({"max_num_seqs": 64}, ["--max-num-seqs", "64"]),
        ({"--max-num-seqs": 64}, ["--max-num-seqs", "64"]),
        ({"tp": 2}, ["--tensor-parallel-size", "2"]),
        ({"enable-prefix-caching": True}, ["--enable-prefix-caching"]),
        ({"enable-prefix-caching": False}, ["--no-enable-prefix-caching"]),
        ({"no-enable-prefix-caching": True}, ["--no-enable-prefix-caching"]),
        ({"no-enable-prefix-caching": False}, ["--enable-prefix-caching"]),
        ({"disable-log-stats": True}, ["--disable-log-stats"]),
        ({"disable-log-stats": False}, []),
        ({"served-model-name": ["a", "b"]}, ["--served-model-name", "a", "b"]),
        ({"hf-token": True}, ["--hf-token"]),
        ({"hf-token": "x"}, ["--hf-token", "x"]),
        ({"attention-config.use_it": True}, ["--attention-config.use_it", "true"]),
        ({"O": 3}, ["--optimization-level", "3"]),
    ],
)
def test_arguments(flags: dict[str, Any], arguments: list[str]) -> None:
    TABLE.check(flags, "engine")
    assert TABLE.arguments(flags) == arguments
    if "." not in next(iter(flags)):
        parser().parse_args(arguments)  # the real parser takes them


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"max-num-sequences": 3}, "Did you mean --max-num-seqs"),
        ({"prefix-caching": True}, "--enable-prefix-caching"),
        ({"attention-cfg.backend": "X"}, "Did you mean --attention-config"),
        ({"max-num-seqs": "many"}, "needs a number, not 'many'"),
        ({"max-num-seqs": True}, "needs a value, not true"),
        ({"dtype": "bf16"}, r"did you mean 'bfloat16'\?\nPossible values: auto, bfloat16, float16\."),
        ({"disable-log-stats": 1}, "is a switch: true or false, not 1"),
        ({"zzz": 1}, "has no flag --zzz"),
    ],
)
def test_refusals(flags: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        TABLE.check(flags, "engine")


def test_plain_arguments() -> None:
    assert plain_arguments({"a_b": True, "c": False, "d": 1, "e": ["x", "y"]}) == ["--a-b", "--d", "1", "--e", "x", "y"]


@given(st.text(alphabet="abc-_.X", min_size=1))
def test_normal_is_idempotent(name: str) -> None:
    assert normal(normal(name)) == normal(name)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "max-num-seqs": st.integers(1, 10**6),
            "gpu-memory-utilization": st.floats(0, 1),
            "dtype": st.sampled_from(["auto", "bfloat16"]),
            "enable-prefix-caching": st.booleans(),
            "disable-log-stats": st.booleans(),
            "served-model-name": st.lists(st.from_regex(r"[a-z]{1,5}", fullmatch=True), min_size=1, max_size=3),
        },
    )
)
def test_what_is_asked_is_what_the_engine_parses(flags: dict[str, Any]) -> None:
    TABLE.check(flags, "engine")
    parsed = vars(parser().parse_args(TABLE.arguments(flags)))
    assert {name: parsed[name.replace("-", "_")] for name in flags} == flags
