"""`redline node export --as compose -f EXPERIMENT`: the engine and all that watches it, as a Compose project.

Every service is in the host's network and listens on 127.0.0.1 only: no bridge and no proxy stand between a client and
the engine, node_exporter sees the host's own interfaces, and the host's settings (`redline node apply`) hold. GPUs are
asked for by CDI (`nvidia.com/gpu=…`), which the NVIDIA Container Toolkit provides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from redline import __version__
from redline.cluster.exporter import PORT as EXPORTER_PORT
from redline.cluster.images import IMAGES
from redline.cluster.monitoring import monitoring_files, write_texts
from redline.engines.flags import normal, plain_arguments
from redline.errors import Unsupported, UsageError
from redline.node.export.declared import container_settings
from redline.observe.rules.files import to_yaml
from redline.spec.dump import dump_experiment
from redline.spec.engine import EngineSpec, FlagValue
from redline.spec.experiment import Experiment
from redline.spec.model import ModelSpec
from redline.spec.resolve import ensure_available

HEAD = """# Written by `redline node export --as compose`. The model and the engine are those of experiment.yaml.
# Before: NVIDIA Container Toolkit 1.18 or newer and Docker 28.3 or newer, which have CDI switched on
#   (nvidia-ctk cdi list shows nvidia.com/gpu=…), and Docker Compose 2.24 or newer.
# Start: docker compose up -d --wait      Measure: docker compose run --rm bench      Look: http://127.0.0.1:3000
"""
Service = dict[str, Any]
T = TypeVar("T")
_LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Stack:
    """What is rendered: one engine and one model of an experiment. `gpus` are CDI names after `nvidia.com/gpu=`."""

    experiment: Experiment
    engine: EngineSpec
    model: ModelSpec
    gpus: tuple[str, ...]

    @property
    def port(self) -> int:
        return self.engine.port or 8000


def stack(
    experiment: Experiment,
    folder: Path,
    *,
    engine: str = "",
    model: str = "",
    gpus: str = "all",
    hung_after: str = "60s",
) -> list[Path]:
    """Writes the project; the files written, docker-compose.yml first.

    `engine` and `model` choose by name where the experiment has several. `gpus`: all, none, or numbers (0,1).
    UsageError when there is no such engine; Unsupported for one that has no image.
    """
    chosen = Stack(
        experiment,
        _one("engine", engine, {one.label: one for one in experiment.engines}),
        _one("model", model, {one.served_name: one for one in experiment.models}),
        _gpus(gpus),
    )
    targets = {
        "engine": (f"{_LOOPBACK}:{chosen.port}",),
        "redline": (f"{_LOOPBACK}:{EXPORTER_PORT}",),
        "node": (f"{_LOOPBACK}:9100",),
        "dcgm": (f"{_LOOPBACK}:9400",) if chosen.gpus else (),
    }
    texts = {
        "docker-compose.yml": to_yaml(project(chosen), HEAD),
        "experiment.yaml": dump_experiment(_for_bench(chosen)),
        "redline/Dockerfile": dockerfile(),
        **monitoring_files(experiment.slo, targets=targets, hung_after=hung_after),
    }
    return write_texts(folder, texts)


def _one(what: str, name: str, choices: dict[str, T]) -> T:
    if not name and len(choices) > 1:
        raise UsageError(f"the experiment has {len(choices)} {what}s", fix=f"--{what} {' or '.join(choices)}")
    if name and name not in choices:
        raise UsageError(f"the experiment has no {what} {name!r}", fix=f"--{what} {' or '.join(choices)}")
    return choices[name or next(iter(choices))]


def _gpus(text: str) -> tuple[str, ...]:
    names = tuple(word.strip() for word in text.split(",") if word.strip())
    if names == ("none",):
        return ()
    if not names or not all(name == "all" or name.replace(":", "").isdigit() for name in names):
        raise UsageError(f"{text!r} names no GPUs", fix="all, none, numbers such as 0,1, or MIG devices such as 0:1")
    return names


def _for_bench(chosen: Stack) -> Experiment:
    """The same experiment against the server of this project."""
    running = EngineSpec(kind="url", name=chosen.engine.label, url=f"http://{_LOOPBACK}:{chosen.port}/v1")
    model = chosen.model
    if not model.id.startswith("bundled:"):  # those are in redline's image too
        model = model.model_copy(update={"id": _weights(model)[0], "name": model.served_name})
    return chosen.experiment.model_copy(update={"engines": [running], "models": [model]})


def project(chosen: Stack) -> dict[str, Any]:
    """The Compose project, as the specification of Compose has it."""
    services = {
        "engine": _ENGINES[_kind(chosen.engine)](chosen) | _engine_of_any_kind(chosen),
        "redline": _exporter(chosen),
        "bench": _bench(chosen),
        "prometheus": _prometheus(),
        "node-exporter": _node_exporter(),
        "grafana": _grafana(),
    }
    if chosen.gpus:
        services["dcgm-exporter"] = _dcgm(chosen)
    every: Service = {
        "network_mode": "host",
        "security_opt": ["no-new-privileges:true"],
        "logging": {"driver": "json-file", "options": {"max-size": "50m", "max-file": "3"}},
    }
    return {
        "name": "redline",
        "services": {name: service | every for name, service in services.items()},
        "volumes": {"prometheus-data": {}, "grafana-data": {}, "hub-cache": {}},
    }


def _kind(engine: EngineSpec) -> str:
    if engine.kind not in _ENGINES:
        raise Unsupported(
            f"there is no image for the engine {engine.kind}", fix=f"an engine of kind {' or '.join(_ENGINES)}"
        )
    return engine.kind


def _engine_of_any_kind(chosen: Stack) -> Service:
    """An engine that was killed may exit with 0, which `on-failure` would not start again."""
    check = f"import urllib.request as u; u.urlopen('http://{_LOOPBACK}:{chosen.port}/health', timeout=5)"
    return {
        **container_settings(),
        **_devices(chosen.gpus),
        "restart": "always",
        "stop_grace_period": f"{max(chosen.engine.stop_timeout_s, 1):.0f}s",
        # says that the server answers, not that the engine works: the alert EngineHung watches that
        "healthcheck": _check(["python3", "-c", check], start=f"{chosen.engine.startup_timeout_s:.0f}s"),
    }


def _vllm(chosen: Stack) -> Service:
    location, volumes = _weights(chosen.model)
    own: dict[str, FlagValue] = {
        "model": location, "served-model-name": chosen.model.served_name, "host": _LOOPBACK, "port": chosen.port,
        "seed": chosen.experiment.seed,
        **({"dtype": chosen.model.dtype} if chosen.model.dtype != "auto" else {}),
        **({"revision": chosen.model.revision} if chosen.model.revision else {}),
    }  # fmt: skip
    command = [*plain_arguments(own), *_vllm_arguments(chosen.engine.flags)]
    environment = {**chosen.engine.env, "HF_TOKEN": "${HF_TOKEN:-}", "VLLM_NO_USAGE_STATS": "1"}
    cache = "hub-cache:/root/.cache/huggingface"
    return {
        "image": IMAGES["vllm"].reference,
        "command": _literal(command),
        "environment": environment,
        "volumes": [cache, *volumes],
    }


def _vllm_arguments(flags: Mapping[str, FlagValue]) -> list[str]:
    """False is `--no-x`, as vLLM's command line has it: to leave it out would be its default."""
    words: list[str] = []
    for name, value in flags.items():
        words += [f"--no-{normal(name)}"] if value is False else plain_arguments({name: value})
    return words


def _redline_engine(chosen: Stack) -> Service:
    location, volumes = _weights(chosen.model)
    flags = [word for name, value in chosen.engine.flags.items() for word in ("--flag", f"{name}={_plain(value)}")]
    command = [
        "serve", location, "--engine", chosen.engine.kind, "--host", _LOOPBACK, "--port", str(chosen.port),
        "--model-name", chosen.model.served_name, *flags,
    ]  # fmt: skip
    return {
        **_own_image(),
        "command": _literal(command),
        "environment": {**chosen.engine.env, "HF_TOKEN": "${HF_TOKEN:-}"},
        "volumes": ["hub-cache:/root/.cache/huggingface", *volumes],
    }


_ENGINES: dict[str, Callable[[Stack], Service]] = {"vllm": _vllm, "redline": _redline_engine}


def _plain(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else ",".join(value) if isinstance(value, list) else str(value)


def _literal(words: list[str]) -> list[str]:
    """A `$` of a value is no variable of Compose's."""
    return [word.replace("$", "$$") for word in words]


def _weights(model: ModelSpec) -> tuple[str, list[str]]:
    """Where the container finds the model, and the mounts for it. ModelNotFound for a folder that is not here."""
    if model.id.startswith("shape:") or model.random_weights:
        raise Unsupported("a shape has no weights to serve", fix="a folder, a hub id or bundled:NAME as the model")
    if model.id.startswith("bundled:"):
        folder = Path(ensure_available(model).location)
    elif Path(model.id).expanduser().is_dir():
        folder = Path(model.id).expanduser()
    else:
        return model.id, []
    return "/model", [f"{folder.resolve()}:/model:ro"]


def _devices(gpus: tuple[str, ...]) -> Service:
    if not gpus:
        return {}
    request = {"driver": "cdi", "device_ids": [f"nvidia.com/gpu={gpu}" for gpu in gpus], "capabilities": ["gpu"]}
    return {"deploy": {"resources": {"reservations": {"devices": [request]}}}}


def _check(command: list[str], start: str = "60s") -> Service:
    times = {"interval": "15s", "timeout": "10s", "retries": 4, "start_period": start, "start_interval": "2s"}
    return {"test": ["CMD", *command], **times}


def _own_image() -> Service:
    return {"image": f"redline:{__version__}", "build": {"context": "./redline"}}


def _exporter(chosen: Stack) -> Service:
    url = f"http://{_LOOPBACK}:{EXPORTER_PORT}/metrics"
    return {
        **_own_image(),
        **_devices(chosen.gpus),
        "command": ["export", "prometheus", "--db", "/results/redline.db", "--port", str(EXPORTER_PORT)],
        "volumes": ["./results:/results"],
        "devices": ["/dev/kmsg:/dev/kmsg:r"],
        "cap_add": ["SYSLOG"],
        "restart": "always",
        "healthcheck": _check(["python3", "-c", f"import urllib.request as u; u.urlopen('{url}', timeout=5)"]),
    }


def _bench(chosen: Stack) -> Service:
    """Not started with the others: docker compose run --rm bench."""
    return {
        **_own_image(),
        "profiles": ["bench"],
        "command": ["bench", "-f", "/experiment.yaml", "--db", "/results/redline.db"],
        "volumes": ["./results:/results", "./experiment.yaml:/experiment.yaml:ro", *_weights(chosen.model)[1]],
        "depends_on": {"engine": {"condition": "service_healthy"}},
    }


def _prometheus() -> Service:
    return {
        "image": IMAGES["prometheus"].reference,
        "command": [
            "--config.file=/etc/prometheus/prometheus.yml", "--storage.tsdb.path=/prometheus",
            "--storage.tsdb.retention.time=30d", f"--web.listen-address={_LOOPBACK}:9090",
        ],
        "volumes": ["./prometheus:/etc/prometheus:ro", "prometheus-data:/prometheus"],
        "restart": "always",
        "healthcheck": _check(["wget", "-q", "-O", "/dev/null", f"http://{_LOOPBACK}:9090/-/ready"]),
    }  # fmt: skip


def _node_exporter() -> Service:
    return {
        "image": IMAGES["node"].reference,
        "command": ["--path.rootfs=/host", f"--web.listen-address={_LOOPBACK}:9100"],
        "pid": "host",
        "volumes": ["/:/host:ro,rslave"],
        "restart": "always",
        "healthcheck": _check(["wget", "-q", "-O", "/dev/null", f"http://{_LOOPBACK}:9100/metrics"]),
    }


def _dcgm(chosen: Stack) -> Service:
    """The image has no shell and no client, so no health check either: the alert ExporterDown watches it."""
    return {
        "image": IMAGES["dcgm"].reference,
        "command": ["-f", "/etc/dcgm-exporter/redline.csv", "-a", f"{_LOOPBACK}:9400"],
        **_devices(chosen.gpus),
        "cap_add": ["SYS_ADMIN"],  # the profiling fields
        "volumes": ["./dcgm/counters.csv:/etc/dcgm-exporter/redline.csv:ro"],
        "restart": "always",
    }


def _grafana() -> Service:
    """Everybody on this box may look, nobody can log in: there is no password to forget to change."""
    settings = {
        "SERVER_HTTP_ADDR": _LOOPBACK, "SERVER_HTTP_PORT": "3000", "AUTH_ANONYMOUS_ENABLED": "true",
        "AUTH_ANONYMOUS_ORG_ROLE": "Viewer", "AUTH_DISABLE_LOGIN_FORM": "true", "AUTH_BASIC_ENABLED": "false",
        "ANALYTICS_REPORTING_ENABLED": "false", "ANALYTICS_CHECK_FOR_UPDATES": "false",
        "DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH": "/etc/grafana/redline-dashboards/redline-engine.json",
    }  # fmt: skip
    return {
        "image": IMAGES["grafana"].reference,
        "environment": {f"GF_{name}": value for name, value in settings.items()},
        "volumes": [
            *(
                f"./grafana/provisioning/{one}/redline.yml:/etc/grafana/provisioning/{one}/redline.yml:ro"
                for one in ("datasources", "dashboards")
            ),
            "./grafana/dashboards:/etc/grafana/redline-dashboards:ro",
            "grafana-data:/var/lib/grafana",
        ],
        "depends_on": {"prometheus": {"condition": "service_healthy"}},
        "restart": "always",
        "healthcheck": _check(["wget", "-q", "-O", "/dev/null", f"http://{_LOOPBACK}:3000/api/health"]),
    }


def dockerfile() -> str:
    """redline's own image. `REDLINE` is whatever pip takes: a release, a wheel beside this file, an address of git."""
    return f"""# Written by redline. A wheel in this folder wins over the release: pip wheel --no-deps -w . redline
FROM {IMAGES["python"].reference}
ARG REDLINE="redline[engine,monitoring]=={__version__}"
COPY . /wheels
RUN set -eu; for wheel in /wheels/redline-*.whl; do \\
      if [ -e "$wheel" ]; then REDLINE="redline[engine,monitoring] @ file://$wheel"; fi; done; \\
    pip install --no-cache-dir "$REDLINE"
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["redline"]
"""
