from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from redline.errors import SpecError
from redline.spec.load_file import load_experiment, loads_experiment

GOOD = "model: x\nengines: vllm\n"


def fault(text: str) -> SpecError:
    with pytest.raises(SpecError) as caught:
        loads_experiment(text, "exp.yaml")
    return caught.value


@pytest.mark.parametrize(
    ("text", "line", "field", "said"),
    [
        (GOOD + "load:\n  concurency: 4\n", 4, "load.concurency", "did you mean 'concurrency'?"),
        (GOOD + "reapeats: 4\n", 3, "reapeats", "did you mean 'repeats'?"),
        (GOOD + "load:\n  requests: many\n", 4, "load.requests", "wants a whole number, found the text 'many'"),
        (GOOD + "load:\n  requests: 1.5\n", 4, "load.requests", "wants a whole number, found 1.5"),
        (GOOD + "load:\n  duration_s: 0\n", 4, "load.duration_s", "wants a number above 0, found 0"),
        (GOOD + "load:\n  duration_s: .inf\n", 4, "load.duration_s", "wants a finite number"),
        (GOOD + "load:\n  duration_s:\n", 4, "load.duration_s", "found nothing"),
        (GOOD + "load:\n  concurrency:\n  - 1\n  - 0\n", 6, "load.concurrency[1]", "1 or more, found 0"),
        (GOOD + "load:\n  concurrency: []\n", 4, "load.concurrency", "at least 1 of them, found an empty list"),
        (GOOD + "load:\n  concurrency: 1,ten\n", 4, "load.concurrency[1]", "found the text 'ten'"),
        (GOOD + "load:\n  rate: 1\n  concurrency: [1, 10, 50]\n", 4, "load.rate", "cannot be had together"),
        (GOOD + "load:\n  rate: [0]\n", 4, "load.rate[0]", "a number above 0, found 0"),
        (GOOD + "load: 3\n", 3, "load", "wants a mapping (field: value), found 3"),
        (GOOD + "repeats: yes\n", 3, "repeats", "wants a whole number, found the text 'yes'"),
        (GOOD + "repeats: true\n", 3, "repeats", "wants a whole number, found true"),
        (GOOD + "name: 12\n", 3, "name", "put it in quotes: '12'"),
        (GOOD + "workload:\n  kind: sharegtp\n", 4, "workload.kind", "did you mean 'sharegpt'?"),
        (GOOD + "workload:\n  kind: text\n", 3, "workload.path", "reads a file"),
        (GOOD + "workload:\n  prompt_tokens:\n    mean: 9\n    min: 10\n", 5, "workload.prompt_tokens.mean", "outside"),
        ("model: x\nengines: [vllm, vlm]\n", 2, "engines[1].kind", "did you mean 'vllm'?"),
        ("model: x\nengines:\n  - kind: vlm\n", 3, "engines[0].kind", "there is no engine 'vlm'"),
        ("model: x\nengines:\n  - vllm\n  - kind: vllm\n", 4, "engines[1]", "2 engines are called 'vllm'"),
        ("model: x\nengines:\n  - kind: url\n", 3, "engines[0].url", "needs the address"),
        ("model: x\nengines:\n  - kind: vllm\n    flags: {eager: on}\n", 4, "engines[0].flags.eager", "true or false"),
        ("model: x\nengines:\n  - kind: vllm\n    flags: {--eager: 1}\n", 4, "engines[0].flags", "write 'eager'"),
        ("model: x\nengines:\n  - kind: vllm\n    env: {A: 0.5}\n", 4, "engines[0].env.A", "put it in quotes: '0.5'"),
        ("model: x\nengines:\n  - kind: vllm\n    flags:\n      a:\n", 5, "engines[0].flags.a", "true or false, "),
        ("engines: vllm\n", 1, "models", "is missing"),
        ("model: x\n", 1, "engines", "is missing"),
        ("model: x\nmodels: [y]\nengines: vllm\n", 1, "model", "twice"),
        ("models: [a/x, b/x]\nengines: vllm\n", 1, "models[1]", "2 models are called 'x'"),
        ("model: ''\nengines: vllm\n", 1, "models[0].id", "some text"),
    ],
)
def test_each_fault_is_named_by_line_and_field(text: str, line: int, field: str, said: str) -> None:
    error = fault(text)
    assert (error.file, error.line, error.field) == ("exp.yaml", line, field), str(error)
    assert said in str(error)
    assert str(error).startswith(f"exp.yaml:{line}: {field}: ")


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 0, "is empty"),
        ("# nothing\n", 0, "is empty"),
        ("- a\n- b\n", 1, "an experiment is a mapping (field: value), found a list"),
        ("just text", 1, "an experiment is a mapping"),
        ("model: a: b\n", 1, "in quotes"),
        ("load:\n\trequests: 1\n", 2, "indent with spaces"),
        ("model: [a\n", 2, "is not valid YAML"),
        ("model: a\nrepeats: 1\nmodel: b\n", 3, "is given twice, first in line 1"),
        ("model: a\n---\nmodel: b\n", 2, "one experiment per file"),
        ("model: &a [*a]\n", 1, "alias"),
        ("model: !!python/object:os.system x\n", 1, "tag"),
        ("model: !!int abc\n", 1, "is no int"),
        ("model: a\x07b\n", 1, "is not valid YAML"),
        ("[a, b]: c\n", 1, "a field's name is text"),
        ("a: " + "[" * 5000, 0, "nested too deeply"),
    ],
)
def test_what_is_no_experiment_at_all(text: str, line: int, said: str) -> None:
    error = fault(text)
    assert (error.file, error.line) == ("exp.yaml", line), str(error)
    assert said in str(error)


def test_all_faults_of_a_file_in_one_error_in_its_order() -> None:
    error = fault("model: x\nengines: [vlm]\nload:\n  requests: many\n  concurency: 1\nrepeats: 0\n")
    assert error.line == 2
    lines = str(error).splitlines()
    assert lines[0] == "exp.yaml:2: engines[0].kind: there is no engine 'vlm'"
    assert lines[1] == "did you mean 'vllm'?"
    assert lines[2] == "3 more:"
    assert [line.split(": ")[0].strip() for line in lines[3:]] == ["exp.yaml:4", "exp.yaml:5", "exp.yaml:6"]


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "demo.yaml").write_text(GOOD)
    (tmp_path / "latin.yaml").write_bytes(b"model: \xe9\n")
    for path, said in (
        (tmp_path / "dmo.yaml", "no such file"),
        (tmp_path, "is a folder"),
        (tmp_path / "latin.yaml", "is not UTF-8 text"),
        (tmp_path / "none" / "x.yaml", "no such file"),
    ):
        with pytest.raises(SpecError, match=said) as caught:
            load_experiment(path)
        assert caught.value.file == str(path)
        assert caught.value.exit_code == 2
    with pytest.raises(SpecError, match=r"demo\.yaml"):
        load_experiment(tmp_path / "dmo.yaml")


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbf" + GOOD.encode())
    assert load_experiment(tmp_path / "bom.yaml").models[0].id == "x"


def test_words_of_older_yaml_stay_what_they_look_like() -> None:
    experiment = loads_experiment(
        "name: on\nmodels: [{id: no, name: 12:30, revision: 2026-01-01}]\nengines: vllm\n"
        "load: {duration_s: 1e3, requests: 1_000, concurrency: 010}\nworkload: {stream: no, ignore_eos: off}\n"
    )
    model = experiment.models[0]
    assert (experiment.name, model.id, model.name, model.revision) == ("on", "no", "12:30", "2026-01-01")
    assert (experiment.load.duration_s, experiment.load.requests) == (1000.0, 1000)
    assert experiment.load.concurrency == [10]
    assert (experiment.workload.stream, experiment.workload.ignore_eos) == (False, False)


def test_shorthands_mean_their_long_form() -> None:
    short = loads_experiment(
        "model: a/x\nengines: transformers,mine=vllm,http://h:1/v1\n"
        "workload: {prompt_tokens: 64, output_tokens: {mean: 8, stddev: 2}}\nload: {concurrency: '1,10'}\n"
    )
    long = loads_experiment(
        "models: [{id: a/x}]\nengines:\n"
        "  - {kind: transformers, name: transformers-plain, flags: {batching: plain}}\n"
        "  - {kind: transformers, name: transformers-continuous, flags: {batching: continuous}}\n"
        "  - {kind: vllm, name: mine}\n  - {kind: url, name: 'h:1', url: 'http://h:1/v1'}\n"
        "workload: {prompt_tokens: {mean: 64}, output_tokens: {mean: 8, stddev: 2}}\nload: {concurrency: [1, 10]}\n"
    )
    assert short == long


def test_engine_words() -> None:
    def engine(word: str) -> list[tuple[str, str, dict[str, object]]]:
        found = loads_experiment(f"model: x\nengines: ['{word}']\n").engines
        return [(one.label, one.kind, dict(one.flags)) for one in found]

    assert engine("transformers-static") == [("transformers-static", "transformers", {"batching": "static"})]
    assert engine("hf=transformers") == [
        ("hf-plain", "transformers", {"batching": "plain"}),
        ("hf-continuous", "transformers", {"batching": "continuous"}),
    ]
    assert engine("a=transformers-plain") == [("a", "transformers", {"batching": "plain"})]
    url = loads_experiment("model: x\nengines: ['prod=https://h/v1?key=a=b']\n").engines[0]
    assert (url.kind, url.label, url.url) == ("url", "prod", "https://h/v1?key=a=b")
    mapped = loads_experiment(
        "model: x\nengines:\n  - {kind: transformers-continuous, flags: {batching: static, b: 1}}\n"
    )
    assert mapped.engines[0].flags == {"batching": "static", "b": 1}
    assert "not NAME=ENGINE" in str(fault("model: x\nengines: ['=vllm']\n"))


def test_a_servers_model_keeps_its_whole_id() -> None:
    assert loads_experiment("model: org/name\nengines: http://h/v1").models[0].served_name == "org/name"
    assert loads_experiment("model: org/name\nengines: [http://h/v1, vllm]").models[0].served_name == "name"
    assert loads_experiment("model: bundled:tiny\nengines: http://h/v1").models[0].served_name == "tiny"


def test_anchors_and_merges() -> None:
    experiment = loads_experiment(
        "model: x\nengines:\n  - &base {kind: vllm, name: a, env: {A: 1}}\n  - {<<: *base, name: b}\n"
    )
    assert [(one.label, one.env) for one in experiment.engines] == [("a", {"A": "1"}), ("b", {"A": "1"})]


def test_a_list_or_mapping_for_an_engines_flag_is_text_that_engines_read() -> None:
    flags = (
        loads_experiment(
            "model: x\nengines:\n  - {kind: vllm, flags: {speculative-config: {method: ngram}, sizes: [1, 2]}}\n"
        )
        .engines[0]
        .flags
    )
    assert flags == {"speculative-config": '{"method": "ngram"}', "sizes": ["1", "2"]}


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(
        st.text(max_size=60),
        st.lists(
            st.sampled_from(
                ["model: x\n", "engines: ", "[vllm]\n", "load:\n", "  rate: 1\n", "- ", "{", "&a ", "*a", "?"]
            )
        ).map("".join),
    )
)
def test_any_text_is_an_experiment_or_a_spec_error(text: str) -> None:
    with contextlib.suppress(SpecError):
        loads_experiment(text)


def test_the_example_experiments_load() -> None:
    folder = Path(__file__).parents[2] / "src/redline/recipes/experiments"
    found = {file.stem: load_experiment(file) for file in folder.glob("*.yaml")}
    assert {"demo", "compare-8b", "models"} <= set(found)
    assert [engine.label for engine in found["demo"].engines] == ["transformers-continuous", "redline"]
    assert found["compare-8b"].load.concurrency == [1, 10, 50, 100]
    assert len(found["models"].models) == 3
