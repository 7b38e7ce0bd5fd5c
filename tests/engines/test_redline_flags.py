from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

import pytest

from redline.engines.redline_flags import parser, speculation
from redline.runtime.config import EngineConfig, SpeculationConfig
from redline.runtime.serve import configuration

FIELDS = {field.name: field for field in dataclasses.fields(EngineConfig)}
ACTIONS = {action.dest: action for action in parser()._actions}


@pytest.mark.parametrize("name", FIELDS)
def test_every_field_of_the_configuration_is_a_flag(name: str) -> None:
    action, field = ACTIONS[name], FIELDS[name]
    assert action.option_strings[0] == "--" + name.replace("_", "-")
    if field.default is not dataclasses.MISSING:
        assert action.default == field.default
    kind = get_type_hints(EngineConfig)[name]
    if get_origin(kind) is not None and not action.type and action.choices:
        assert set(action.choices) == set(get_args(kind))


def test_every_flag_says_what_it_is_for() -> None:
    assert all(action.help for action in ACTIONS.values())


def test_the_configuration_of_a_command_line(tmp_path: Path) -> None:
    argv = ["--model", str(tmp_path), "--max-num-seqs", "3", "--no-enable-prefix-caching", "--speculation", "ngram"]
    config = configuration(parser().parse_args(argv))
    assert config == EngineConfig(
        model=tmp_path, max_num_seqs=3, enable_prefix_caching=False, speculation=SpeculationConfig("ngram")
    )


def test_speculation() -> None:
    known = {field.name for field in dataclasses.fields(SpeculationConfig)}
    given: dict[str, Any] = {"method": "draft", "draft_model": "d", "tokens": 2, "adaptive": False}
    assert set(given) <= known
    found = speculation(json.dumps(given))
    assert found is not None
    assert SpeculationConfig(**found) == SpeculationConfig("draft", tokens=2, draft_model=Path("d"), adaptive=False)
    assert speculation("none") is None
    with pytest.raises(ValueError, match=f"unknown: x; known: {', '.join(sorted(known))}"):
        speculation('{"method": "ngram", "x": 1}')
