"""Mixed workloads as they are written: in a file, in a flag, and back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from redline.errors import SpecError
from redline.spec.dump import dump_experiment
from redline.spec.experiment import Experiment
from redline.spec.faults import type_at
from redline.spec.load_file import load_experiment
from redline.spec.overrides import experiment_from
from redline.spec.request_class import OWN
from redline.spec.workload import ClassSpec, WorkloadSpec

FILE = """
model: m
engines: vllm
workload:
  api: chat
  output_tokens: 50
  classes:
    - {name: chat, weight: 3, prompt_tokens: 128, slo: {ttft_ms: 200}}
    - {name: rag, prompt_tokens: {mean: 4000, stddev: 100}, output_tokens: 200, priority: 1}
"""
FLAGS = ["chat=weight:3,prompt_tokens:128,slo.ttft_ms:200", "rag=prompt_tokens:4000,prompt_tokens.stddev:100,"]


def from_file(tmp_path: Path, text: str = FILE) -> Experiment:
    path = tmp_path / "e.yaml"
    path.write_text(text)
    return load_experiment(path)


def from_flags(*texts: str, **values: Any) -> Experiment:
    return experiment_from(None, {"model": ["m"], "engines": "vllm", "class_": list(texts), **values})


def test_what_a_class_does_not_say_is_as_around_it(tmp_path: Path) -> None:
    parts = from_file(tmp_path).workload.parts
    assert list(parts) == ["chat", "rag"]
    assert [(p.prompt_tokens.mean, p.output_tokens.mean, p.api) for p in parts.values()] == [
        (128, 50, "chat"),
        (4000, 200, "chat"),
    ]
    assert parts["rag"].prompt_tokens.stddev == 100
    assert WorkloadSpec().parts == {"": WorkloadSpec()}


def test_a_flag_says_the_same_as_the_file(tmp_path: Path) -> None:
    flags = [FLAGS[0], FLAGS[1] + "output_tokens:200,priority:1"]
    assert from_flags(*flags, api="chat", output_tokens=50) == from_file(tmp_path)


def test_it_reads_back_as_it_was_written(tmp_path: Path) -> None:
    found = from_file(tmp_path)
    again = tmp_path / "again.yaml"
    again.write_text(dump_experiment(found))
    assert load_experiment(again) == found
    assert Experiment.model_validate(found.model_dump(mode="json")) == found


def test_flags_replace_the_classes_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "e.yaml"
    path.write_text(FILE)
    assert [one.name for one in experiment_from(path, {"class_": ["other"]}).workload.classes] == ["other"]


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("=weight:3", "names no class"),
        ("a=weight", "'weight' is not FIELD:VALUE"),
        ("a=wait:3", "there is no such field"),
        ("a=weight:0", "a number above 0"),
        ("a=weight.x:0", "wants a number, found a mapping"),
        ("a=weight:1,weight.x:0", "has no part"),
        ("a=slo.tft_ms:3", "there is no such field"),
        ("a=kind:jsonl", "class a: workload kind jsonl reads a file"),
        ("a=shared_prefix_tokens:500", "class a: a shared prefix of 500"),
        ("a=images_per_request:1,api:completions", "takes no pictures"),
        ("a=api:speech", "wants one of chat, completions"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(flag: str, said: str) -> None:
    with pytest.raises(SpecError) as caught:
        from_flags(flag)
    assert said in str(caught.value), str(caught.value)


def test_names_are_unique() -> None:
    with pytest.raises(SpecError, match="two classes are called 'a'"):
        from_flags("a", "a")


def test_a_fault_in_a_file_has_its_line(tmp_path: Path) -> None:
    with pytest.raises(SpecError) as caught:
        from_file(tmp_path, FILE.replace("priority: 1", "kind: jsonl"))
    assert (caught.value.line, caught.value.field) == (9, "workload.classes[1].path")


def test_whatever_a_class_may_change_is_a_field_of_the_workload() -> None:
    for name in ClassSpec.model_fields:
        if name not in OWN:
            assert type_at(WorkloadSpec, (name,)) == type_at(ClassSpec, (name,)), name
