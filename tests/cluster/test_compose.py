from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from redline.cluster.compose import stack
from redline.cluster.images import IMAGES
from redline.errors import Unsupported, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.experiment import Experiment
from redline.spec.load_file import load_experiment
from redline.spec.model import ModelSpec
from redline.spec.slo import SloSpec
from tests.cluster.programs import program

VLLM = EngineSpec(
    kind="vllm", flags={"max-num-seqs": 64, "enable-prefix-caching": False, "chat-template": "$x"}, env={"A": "1"}
)


def experiment(engine: EngineSpec = VLLM, model: str = "meta-llama/Llama-3.1-8B") -> Experiment:
    return Experiment(models=[ModelSpec(id=model)], engines=[engine], slo=SloSpec(ttft_ms=300))


def written(folder: Path, what: Experiment, **more: Any) -> dict[str, Any]:
    files = stack(what, folder, **more)
    assert files[0].name == "docker-compose.yml"
    found: dict[str, Any] = yaml.safe_load(files[0].read_text())
    return found


@pytest.mark.parametrize(
    ("engine", "model", "gpus"),
    [(VLLM, "meta-llama/Llama-3.1-8B", "0,1"), (EngineSpec(kind="redline"), "bundled:tiny", "none")],
)
def test_it_is_valid_for_compose_and_by_its_specification(
    engine: EngineSpec, model: str, gpus: str, tmp_path: Path
) -> None:
    stack(experiment(engine, model), tmp_path, gpus=gpus)
    path = str(tmp_path / "docker-compose.yml")
    check = [str(Path(sys.executable).parent / "check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    compose = subprocess.run(
        [program("docker-compose"), "-f", path, "--profile", "bench", "config"], capture_output=True, text=True
    )
    assert (compose.returncode, compose.stderr) == (0, "")
    assert {"engine", "redline", "bench", "prometheus", "grafana"} <= set(yaml.safe_load(compose.stdout)["services"])


def test_nothing_listens_beyond_loopback(tmp_path: Path) -> None:
    services = written(tmp_path, experiment())["services"]
    assert all("ports" not in service for service in services.values())
    assert all(service["network_mode"] == "host" for service in services.values())
    words = {name: " ".join(map(str, service.get("command", []))) for name, service in services.items()}
    assert "--host 127.0.0.1" in words["engine"]
    assert "--web.listen-address=127.0.0.1:9090" in words["prometheus"]
    assert "--web.listen-address=127.0.0.1:9100" in words["node-exporter"]
    assert "-a 127.0.0.1:9400" in words["dcgm-exporter"]
    assert services["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == "127.0.0.1"
    assert "--host" not in words["redline"], "loopback is its default"
    assert not [line for line in (tmp_path / "docker-compose.yml").read_text().splitlines() if "0.0.0.0" in line]


def test_the_engine_is_that_of_the_experiment(tmp_path: Path) -> None:
    services = written(tmp_path, experiment(), gpus="0,1")["services"]
    command = " ".join(services["engine"]["command"])
    assert "--model meta-llama/Llama-3.1-8B --served-model-name Llama-3.1-8B" in command
    assert command.endswith("--max-num-seqs 64 --no-enable-prefix-caching --chat-template $$x")
    assert services["engine"]["restart"] == "always", "vLLM exits with 0 when its core was killed"
    assert services["engine"]["environment"]["A"] == "1"
    device = services["engine"]["deploy"]["resources"]["reservations"]["devices"][0]
    assert (device["driver"], device["device_ids"]) == ("cdi", ["nvidia.com/gpu=0", "nvidia.com/gpu=1"])


def test_the_load_of_the_experiment_runs_against_it(tmp_path: Path) -> None:
    stack(experiment(), tmp_path)
    again = load_experiment(tmp_path / "experiment.yaml", {})
    assert (again.engines[0].kind, again.engines[0].url) == ("url", "http://127.0.0.1:8000/v1")
    assert (again.models[0].id, again.slo.ttft_ms) == ("meta-llama/Llama-3.1-8B", 300)
    assert '"0.3' not in (tmp_path / "prometheus/rules/slo.yml").read_text()
    assert "slo: ttft" in (tmp_path / "prometheus/rules/slo.yml").read_text()


def test_a_folder_is_mounted_where_engine_and_client_look(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    services = written(tmp_path / "out", experiment(model=str(tmp_path / "weights")))["services"]
    mount = f"{tmp_path}/weights:/model:ro"
    assert mount in services["engine"]["volumes"]
    assert mount in services["bench"]["volumes"]
    assert "--model /model --served-model-name weights" in " ".join(services["engine"]["command"])
    again = load_experiment(tmp_path / "out" / "experiment.yaml", {})
    assert (again.models[0].id, again.models[0].served_name) == ("/model", "weights")


def test_without_gpus_nothing_asks_for_one(tmp_path: Path) -> None:
    text = yaml.safe_dump(written(tmp_path, experiment(EngineSpec(kind="redline"), "bundled:tiny"), gpus="none"))
    assert "nvidia" not in text
    assert "dcgm" not in text
    assert "9400" not in (tmp_path / "prometheus" / "prometheus.yml").read_text()


def test_images_are_pinned_and_dated() -> None:
    for image in IMAGES.values():
        assert image.tag != "latest"
        assert image.seen[:2] == "20"


@pytest.mark.parametrize(
    ("engine", "model", "said"),
    [
        (EngineSpec(kind="transformers"), "a/b", "no image"),
        (VLLM, "shape:llama-3-8b", "no weights"),
    ],
)
def test_what_has_no_image_or_no_weights(engine: EngineSpec, model: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(Unsupported, match=said):
        stack(experiment(engine, model), tmp_path)
    assert not (tmp_path / "docker-compose.yml").exists()


def test_which_of_several_engines_must_be_said(tmp_path: Path) -> None:
    two = Experiment(models=[ModelSpec(id="a/b")], engines=[VLLM, EngineSpec(kind="redline")])
    with pytest.raises(UsageError, match="2 engines"):
        stack(two, tmp_path)
    assert "image: redline:" in stack(two, tmp_path, engine="redline")[0].read_text()
