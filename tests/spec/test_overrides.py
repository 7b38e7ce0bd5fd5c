from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from redline.errors import SpecError, UsageError
from redline.spec.assign import field_paths
from redline.spec.dump import dump_experiment
from redline.spec.experiment import Experiment
from redline.spec.faults import type_at
from redline.spec.load_file import load_experiment
from redline.spec.overrides import FLAGS, experiment_from
from tests.spec.experiments import experiments

FILE = """
models: [{id: org/big, dtype: float16}, {id: org/small}]
engines:
  - {kind: vllm, name: tuned, python: /opt/vllm, flags: {max-num-seqs: 8}}
  - transformers-plain
load: {concurrency: [2, 4]}
workload: {prompt_tokens: {mean: 100, max: 200}}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "exp.yaml"
    path.write_text(FILE)
    return path


def given_flags(file: Path | None = None, **values: Any) -> Experiment:
    return experiment_from(file, values)


def test_every_field_has_a_flag_and_every_flag_a_field() -> None:
    flagged = {flag.field for flag in FLAGS if flag.name != "--set"}
    fields = set(field_paths())
    # an engine's kind and name, and a model's id, are what --engines and --model are made of
    reached = flagged | {"models.*.id", "engines.*.kind", "engines.*.name"}
    assert fields - reached == set()
    for flag in FLAGS:
        if flag.name != "--set":
            loc = tuple(0 if step == "*" else step for step in flag.field.split("."))
            assert type_at(Experiment, loc) is not None, flag.field


def test_flags_are_distinct_and_documented() -> None:
    names = [name for flag in FLAGS for name in (flag.name, flag.negative) if name]
    assert len(set(names)) == len(names)
    assert len({flag.python for flag in FLAGS}) == len(FLAGS)
    for flag in FLAGS:
        assert len(flag.help) > 8, flag.name
        assert flag.kind in ("text", "int", "float", "bool", "choice", "list")
        assert flag.kind != "choice" or len(flag.choices) > 1
        if flag.field.endswith("_s"):
            assert "seconds" in flag.help
    by_name = {flag.name: flag for flag in FLAGS}
    assert by_name["--drain"].help.endswith("[seconds; default 5]")
    assert by_name["--prompt-tokens"].default == 128
    assert by_name["--workload"].choices == ("synthetic", "text", "jsonl", "sharegpt", "hub")
    assert by_name["--stream"].negative == "--no-stream"


_NEEDS: dict[str, dict[str, Any]] = {
    "--embedding-batch": {"api": "embeddings"},
    "--images-per-request": {"api": "chat"},
    "--prefixes": {"shared_prefix_tokens": 4},
}
"""Flags that mean nothing without another."""


_NEEDS: dict[str, dict[str, Any]] = {
    "--embedding-batch": {"api": "embeddings"},
    "--images-per-request": {"api": "chat"},
    "--prefixes": {"shared_prefix_tokens": 4},
}
"""Flags that mean nothing without another."""


def test_each_plain_flag_sets_its_field() -> None:
    base = {"model": ["x"], "engines": "vllm"}
    samples: dict[str, Any] = {"bool": True, "int": 7, "float": 0.5, "text": "word"}
    for flag in FLAGS:
        if flag.kind == "list" or flag.name in (
            "--workload-path",
            "--cache",
            "--shared-prefix-tokens",
            "--prompt-tokens-min",
        ):
            continue
        for value in (
            [True, False] if flag.kind == "bool" else [flag.choices[-1] if flag.choices else samples[flag.kind]]
        ):
            values = base | {flag.python: value}
            if flag.name == "--workload":
                values["workload_path"] = "f"
            values = _NEEDS.get(flag.name, {}) | values
            if flag.name == "--search":
                values["slo_ttft"] = 100
            if flag.name in ("--search-low", "--search-high"):
                values = {"search_over": "rate", "search_low": 0.5} | values
            if flag.name.endswith("-max"):
                values[flag.python.removesuffix("_max")] = 3
            assert read(experiment_from(None, values), flag.field) == value, flag.name


def read(experiment: Experiment, field: str) -> Any:
    value: Any = experiment
    for step in field.split("."):
        value = value[0] if step == "*" else getattr(value, step)
    return value


def test_nothing_given_is_the_file(file: Path) -> None:
    assert given_flags(file, model=[], engines=None, stream=None) == load_experiment(file)


def test_flags_win_over_the_file(file: Path) -> None:
    found = given_flags(file, concurrency="8", prompt_tokens=150, dtype="bfloat16", stream=False, drain=1.5)
    assert found.load.concurrency == [8]
    assert (found.workload.prompt_tokens.mean, found.workload.prompt_tokens.max) == (150, 200)
    assert {model.dtype for model in found.models} == {"bfloat16"}
    assert (found.workload.stream, found.load.drain_s) == (False, 1.5)


def test_a_rate_replaces_the_files_concurrency_and_back(file: Path) -> None:
    assert given_flags(file, rate="1,2.5").load.rate == [1.0, 2.5]
    file.write_text(FILE.replace("concurrency: [2, 4]", "rate: 3"))
    assert given_flags(file, concurrency=["1", "2,3"]).load.concurrency == [1, 2, 3]
    assert given_flags(file, concurrency=["1"]).load.rate == []
    with pytest.raises(SpecError, match="cannot be had together"):
        given_flags(file, set=["load={rate: 1, concurrency: 2}"])


def test_engines_and_models_of_the_file_are_chosen_by_name(file: Path) -> None:
    found = given_flags(file, engines="transformers-plain,tuned,transformers-static", model=["small"])
    assert [engine.label for engine in found.engines] == ["transformers-plain", "tuned", "transformers-static"]
    assert found.engines[1].python == "/opt/vllm"
    assert [model.id for model in found.models] == ["org/small"]
    assert [model.id for model in given_flags(file, model=["a,b", "c"]).models] == ["a,b", "c"]


def test_engine_flags_by_label_kind_and_index(file: Path) -> None:
    found = given_flags(
        file,
        engine_flag=["tuned.max-num-seqs=16", "tuned.enforce-eager", "transformers.dotted.name=x", "tuned.j={a: 1}"],
        engine_env=["tuned.A=1", "vllm.B=x=y"],
        engine_python=["transformers-plain=/p"],
        startup_timeout=5.0,
    )
    tuned, plain = found.engines
    assert tuned.flags == {"max-num-seqs": 16, "enforce-eager": True, "j": '{"a": 1}'}
    assert plain.flags == {"batching": "plain", "dotted.name": "x"}
    assert tuned.env == {"A": "1", "B": "x=y"}
    assert (tuned.python, plain.python) == ("/opt/vllm", "/p")
    assert [engine.startup_timeout_s for engine in found.engines] == [5.0, 5.0]


def test_a_label_may_hold_dots() -> None:
    found = given_flags(model="x", engines="vllm,vllm-0.26=vllm", engine_flag=["vllm-0.26.a.b=1"])
    assert [engine.flags for engine in found.engines] == [{}, {"a.b": 1}]


def test_url_is_an_engine() -> None:
    found = given_flags(model="org/m", url="http://127.0.0.1:8000/v1", api_key_env="KEY")
    assert (found.engines[0].kind, found.engines[0].url) == ("url", "http://127.0.0.1:8000/v1")
    assert found.engines[0].api_key_env == "KEY"
    assert found.models[0].served_name == "org/m"


def test_set_reaches_every_field(file: Path) -> None:
    found = given_flags(
        file,
        set=["load.drain_s=3", "engines.tuned.flags.a.b=on", "engines.*.port=0", "models.1.dtype=float16", "name='1'"],
    )
    assert (found.load.drain_s, found.name, found.models[1].dtype) == (3.0, "1", "float16")
    assert found.engines[0].flags["a.b"] == "on"


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"set": ["load.drain=3"]}, "did you mean 'load.drain_s'"),
        ({"set": ["drain_s=3"]}, "'load.drain_s'"),
        ({"set": ["engines.tuned.pyhton=3"]}, "did you mean"),
        ({"set": ["engines.tunde.python=3"]}, "did you mean 'tuned'?"),
        ({"set": ["load.drain_s"]}, "is not FIELD=VALUE"),
        ({"set": ["load.drain_s=[1"]}, "cannot be read as YAML"),
        ({"set": ["load.drain_s=long"]}, "found the text 'long' (from --set"),
        ({"engine_flag": ["tunde.a=1"]}, "did you mean 'tuned'?"),
        ({"engine_flag": ["tuned"]}, "is not LABEL.FLAG=VALUE"),
        ({"engine_env": ["tuned.A"]}, "is not LABEL.NAME=VALUE"),
        ({"engine_python": ["tuned"]}, "is not LABEL=PATH"),
        ({"concurrency": "1,x"}, "found the text 'x' (from --concurrency)"),
        ({"concurrency": "0"}, "1 or more, found 0 (from --concurrency)"),
        ({"engines": "vlm"}, "there is no engine 'vlm' (from --engines)\ndid you mean 'vllm'"),
        ({"engines": "vllm,vllm"}, "2 engines are called 'tuned' (from --engines)"),
        ({"prompt_tokens": 500}, "mean 500 lies outside [1, 200]"),
    ],
)
def test_faults_name_the_flag(file: Path, values: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError) as caught:
        experiment_from(file, values)
    assert said in str(caught.value), str(caught.value)
    assert caught.value.exit_code == 2


def test_what_is_missing_without_a_file_says_which_flag_gives_it() -> None:
    with pytest.raises(SpecError) as caught:
        given_flags(python="/p")
    for said in ("--engines", "--model", "there are no engines"):
        assert said in str(caught.value)
    with pytest.raises(UsageError, match="no flag is called 'concurency'"):
        given_flags(concurency="1")


def test_a_flag_mends_a_wrong_file(file: Path) -> None:
    file.write_text(FILE.replace("[2, 4]", "0") + "engine: ['=x']\n")
    with pytest.raises(SpecError):
        load_experiment(file)
    file.write_text(FILE.replace("[2, 4]", "0").replace("transformers-plain", "trnsformers"))
    assert given_flags(file, engines="vllm", concurrency="3").load.concurrency == [3]


def test_load_experiment_takes_fields_as_python_values(file: Path) -> None:
    found = load_experiment(
        file, {"load.concurrency": [3], "engines.*.env": {"A": 1}, "workload.path": Path("f"), "workload.kind": "text"}
    )
    assert found.load.concurrency == [3]
    assert found.engines[1].env == {"A": "1"}
    assert found.workload.path == "f"


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(experiments())
def test_print_experiment_and_read_it_back_with_flags_changes_only_those(
    tmp_path: Path, experiment: Experiment
) -> None:
    path = tmp_path / "printed.yaml"
    path.write_text(dump_experiment(experiment), encoding="utf-8")
    found = given_flags(path, seed=5, drain=2.0)
    assert found == experiment.model_copy(
        update={"seed": 5, "load": experiment.load.model_copy(update={"drain_s": 2.0})}
    )
