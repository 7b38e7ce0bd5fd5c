"""Every flag of `compare` and `bench`: each is a field of the experiment, and flags win over the file."""

from __future__ import annotations

import keyword
import typing
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic.fields import FieldInfo

from redline.errors import SpecError, UsageError
from redline.spec.assign import Assignment, build
from redline.spec.class_flag import class_rows
from redline.spec.experiment import Experiment
from redline.spec.faults import did_you_mean, fields_at, type_at
from redline.spec.tree import Mark, Table, read_file, read_scalar

Kind = Literal["text", "int", "float", "bool", "choice", "list"]


@dataclass(frozen=True)
class Flag:
    """One flag. A `list` flag takes `a,b,c` and may be repeated; a `bool` flag has a `--no-` twin.

    `shape` is '' for a plain value, else the form of the text: `LABEL.NAME=VALUE` and the like.
    """

    name: str
    field: str
    group: str
    metavar: str = ""
    shape: Literal["", "LABEL.NAME=VALUE", "LABEL=VALUE", "FIELD=VALUE", "NAME=FIELD:VALUE,..."] = ""

    @property
    def python(self) -> str:
        """The key in the `values` of `experiment_from`."""
        name = self.name.removeprefix("--").replace("-", "_")
        return f"{name}_" if keyword.iskeyword(name) else name

    @property
    def negative(self) -> str:
        return f"--no-{self.name.removeprefix('--')}" if self.kind == "bool" else ""

    @property
    def kind(self) -> Kind:
        if self.shape or self.field in ("models", "engines") or self.name == "--url":
            return "list"
        wanted = type_at(Experiment, self._loc())
        if typing.get_origin(wanted) is Literal:
            return "choice"
        if typing.get_origin(wanted) is list:
            return "list"
        kinds: dict[Any, Kind] = {bool: "bool", int: "int", float: "float"}
        return kinds.get(wanted, "text")

    @property
    def choices(self) -> tuple[str, ...]:
        return tuple(typing.get_args(type_at(Experiment, self._loc()))) if self.kind == "choice" else ()

    @property
    def default(self) -> Any:
        """What the field is when neither file nor flag sets it; None for required fields."""
        info = self._info()
        if info is None or self.shape or self.field in ("models", "engines") or self.name == "--url":
            return None
        if self._loc()[-1] == "mean":
            parent = fields_at(Experiment, self._loc()[:-2])[str(self._loc()[-2])]
            return parent.get_default().mean
        return None if info.is_required() else info.get_default(call_default_factory=True)

    @property
    def help(self) -> str:
        """The field's description, its unit, its default."""
        info, loc = self._info(), self._loc()
        text = _HELP.get(self.name) or (info.description if info else None) or ""
        unit = next((word for end, word in _UNITS.items() if str(loc[-1]).endswith(end)), "")
        if text == "tokens":  # a part of a length
            parent = fields_at(Experiment, loc[:-2])[str(loc[-2])]
            text, unit = f"{parent.description}: {loc[-1]}".removesuffix(": mean"), "tokens"
        text = f"{text}, as {self.metavar}" if self.shape else text
        shown = self.default if self.default not in (None, "", [], {}) else None
        if isinstance(shown, list):
            shown = ",".join(f"{item:g}" for item in shown)
        elif isinstance(shown, float):
            shown = f"{shown:g}"
        elif isinstance(shown, bool):
            shown = "yes" if shown else "no"
        tail = "; ".join(part for part in (unit, f"default {shown}" if shown is not None else "") if part)
        return f"{text} [{tail}]" if tail else text

    def _loc(self) -> tuple[str | int, ...]:
        return tuple(0 if step == "*" else step for step in self.field.split("."))

    def _info(self) -> FieldInfo | None:
        return fields_at(Experiment, self._loc()[:-1]).get(str(self._loc()[-1]))


_UNITS = {"_ms": "milliseconds", "_bytes_per_s": "bytes per second", "_s": "seconds"}
_HELP = {
    "--set": "any field of the experiment",
    "--model": "folder, hub id, bundled:NAME or shape:NAME; repeat it for several models",
    "--stages": "load that changes within one point: 2..10/s:30 ramps from 2 to 10 requests per second in 30 s, "
    "16:20 is 16 clients for 20 s; one or more of a kind",
    "--engines": "transformers (plain and continuous batching), vllm, http://host:port/v1, a name from the file, "
    "or NAME=any of these; the first is the reference of ratios",
}

FLAGS: tuple[Flag, ...] = (
    Flag("--model", "models", "Model", "ID"),
    Flag("--model-name", "models.*.name", "Model", "NAME"),
    Flag("--tokenizer", "models.*.tokenizer", "Model", "ID"),
    Flag("--revision", "models.*.revision", "Model", "REV"),
    Flag("--dtype", "models.*.dtype", "Model"),
    Flag("--random-weights", "models.*.random_weights", "Model"),
    Flag("--engines", "engines", "Engines", "NAME,..."),
    Flag("--url", "engines.*.url", "Engines", "URL"),
    Flag("--python", "engines.*.python", "Engines", "PATH"),
    Flag("--engine-python", "engines.*.python", "Engines", "LABEL=PATH", "LABEL=VALUE"),
    Flag("--engine-flag", "engines.*.flags", "Engines", "LABEL.FLAG=VALUE", "LABEL.NAME=VALUE"),
    Flag("--engine-env", "engines.*.env", "Engines", "LABEL.NAME=VALUE", "LABEL.NAME=VALUE"),
    Flag("--api-key-env", "engines.*.api_key_env", "Engines", "NAME"),
    Flag("--host", "engines.*.host", "Engines", "ADDRESS"),
    Flag("--port", "engines.*.port", "Engines"),
    Flag("--keep-up", "engines.*.keep_up", "Engines"),
    Flag("--startup-timeout", "engines.*.startup_timeout_s", "Engines"),
    Flag("--stop-timeout", "engines.*.stop_timeout_s", "Engines"),
    Flag("--concurrency", "load.concurrency", "Load", "N,..."),
    Flag("--rate", "load.rate", "Load", "R,..."),
    Flag("--arrivals", "load.arrivals", "Load"),
    Flag("--max-in-flight", "load.max_in_flight", "Load"),
    Flag("--burstiness", "load.burstiness", "Load"),
    Flag("--stages", "load.stages", "Load", "A..B/s:SECONDS,..."),
    Flag("--trace-speed", "load.trace_speed", "Load", "N,..."),
    Flag("--trace-from", "load.trace_from_s", "Load"),
    Flag("--requests", "load.requests", "Load"),
    Flag("--duration", "load.duration_s", "Load"),
    Flag("--warmup-requests", "load.warmup_requests", "Load"),
    Flag("--warmup", "load.warmup", "Load"),
    Flag("--warmup-time", "load.warmup_s", "Load"),
    Flag("--warmup-again", "load.warmup_again_s", "Load"),
    Flag("--ramp", "load.ramp_s", "Load"),
    Flag("--drain", "load.drain_s", "Load"),
    Flag("--calibrate", "load.calibrate_s", "Load"),
    Flag("--stamps", "load.stamps", "Load"),
    Flag("--workers", "load.workers", "Load"),
    Flag("--pin", "load.pin", "Load"),
    Flag("--timeout", "load.timeout_s", "Load"),
    Flag("--idle-timeout", "load.idle_timeout_s", "Load"),
    Flag("--workload", "workload.kind", "Workload"),
    Flag("--workload-path", "workload.path", "Workload", "FILE"),
    Flag("--api", "workload.api", "Workload"),
    *(
        Flag(f"--{side}-tokens{end}", f"workload.{side}_tokens.{part}", "Workload")
        for side in ("prompt", "output", "turn")
        for end, part in (("", "mean"), ("-stddev", "stddev"), ("-min", "min"), ("-max", "max"))
    ),
    Flag("--shared-prefix-tokens", "workload.shared_prefix_tokens", "Workload"),
    Flag("--ignore-eos", "workload.ignore_eos", "Workload"),
    Flag("--stream", "workload.stream", "Workload"),
    Flag("--temperature", "workload.temperature", "Workload"),
    Flag("--cache", "workload.cache", "Workload", "STATE"),
    Flag("--canary-share", "workload.canary_share", "Workload", "SHARE"),
    Flag("--keep-text", "workload.keep_text", "Workload"),
    Flag("--trace-format", "workload.trace_format", "Workload"),
    Flag("--turns", "workload.turns.mean", "Workload"),
    *(Flag(f"--turns-{part}", f"workload.turns.{part}", "Workload") for part in ("stddev", "min", "max")),
    Flag("--think-time", "workload.think_time_s", "Workload"),
    Flag("--think-time-spread", "workload.think_time", "Workload"),
    Flag("--cancel-share", "workload.cancel_share", "Workload"),
    Flag("--cancel-after", "workload.cancel_after_s", "Workload"),
    Flag("--slow-share", "workload.slow_share", "Workload"),
    Flag("--slow-bytes-per-s", "workload.slow_bytes_per_s", "Workload"),
    Flag("--prefixes", "workload.prefixes", "Workload"),
    Flag("--prefix-skew", "workload.prefix_skew", "Workload"),
    Flag("--hub-split", "workload.hub_split", "Workload", "NAME"),
    Flag("--hub-column", "workload.hub_column", "Workload", "NAME"),
    Flag("--images-per-request", "workload.images_per_request", "Workload"),
    Flag("--image-width", "workload.image_width", "Workload"),
    Flag("--image-height", "workload.image_height", "Workload"),
    Flag("--image-path", "workload.image_path", "Workload", "FOLDER"),
    Flag("--class", "workload.classes", "Workload", "NAME=FIELD:VALUE,...", "NAME=FIELD:VALUE,..."),
    Flag("--embedding-batch", "workload.embedding_batch", "Workload"),
    Flag("--embedding-format", "workload.embedding_format", "Workload"),
    Flag("--slo-ttft", "slo.ttft_ms", "SLO"),
    Flag("--slo-tpot", "slo.tpot_ms", "SLO"),
    Flag("--slo-itl", "slo.itl_ms", "SLO"),
    Flag("--slo-e2e", "slo.e2e_ms", "SLO"),
    Flag("--slo-attainment", "slo.attainment", "SLO"),
    Flag("--threshold", "thresholds", "SLO", "TERM"),
    Flag("--price-gpu-hour", "price.gpu_hour", "SLO"),
    Flag("--price-gpus", "price.gpus", "SLO"),
    Flag("--price-currency", "price.currency", "SLO"),
    Flag("--search", "search.goal", "Search"),
    Flag("--search-over", "search.over", "Search"),
    Flag("--search-low", "search.low", "Search"),
    Flag("--search-high", "search.high", "Search"),
    Flag("--search-budget", "search.budget_s", "Search"),
    Flag("--search-precision", "search.precision", "Search"),
    Flag("--explain", "observe.explain", "Experiment"),
    Flag("--spans", "observe.spans", "Experiment"),
    Flag("--name", "name", "Experiment", "TEXT"),
    Flag("--repeats", "repeats", "Experiment"),
    Flag("--rounds", "rounds", "Experiment"),
    Flag("--seed", "seed", "Experiment"),
    Flag("--set", "set", "Experiment", "FIELD=VALUE", "FIELD=VALUE"),
)


def experiment_from(path: Path | None, values: Mapping[str, Any]) -> Experiment:
    """The experiment of a file (or none) with flags on top.

    `values` maps `Flag.python` to what was parsed; None, and an empty list, mean not given. Raises SpecError.
    """
    by_name = {flag.python: flag for flag in FLAGS}
    unknown = [name for name in values if name not in by_name]
    if unknown:
        raise UsageError(f"no flag is called {unknown[0]!r}", fix=did_you_mean(unknown[0], by_name))
    tree = read_file(path) if path is not None else Table(Mark(""))
    assignments: list[Assignment] = []
    for flag in FLAGS:  # in this order: models and engines exist before a part of them is set
        value = values.get(flag.python)
        if value is not None and not (isinstance(value, list | tuple | dict) and not value):
            assignments += _assignments(flag, value)
    return build(tree, assignments)


def _assignments(flag: Flag, value: Any) -> list[Assignment]:
    if flag.name == "--url":
        return [Assignment("engines", _items(value, ""), flag.name)]
    if flag.field in ("models", "engines"):
        return [Assignment(flag.field, _items(value, "," if flag.field == "engines" else ""), flag.name)]
    if flag.field == "workload.classes":
        return [Assignment(flag.field, class_rows([value] if isinstance(value, str) else value), flag.name)]
    if flag.shape:
        return [_shaped(flag, text) for text in ([value] if isinstance(value, str) else value)]
    if flag.kind == "list":
        value = _items(value, ",")
    return [Assignment(flag.field, value, flag.name)]


def _items(value: Any, separator: str) -> list[Any]:
    """Repeats of a list flag are one list: `--concurrency 1,10 --concurrency 50`."""
    items: list[Any] = []
    for item in value if isinstance(value, list | tuple) else [value]:
        parts = item.split(separator) if isinstance(item, str) and separator else [item]
        items += [part.strip() if isinstance(part, str) else part for part in parts]
    return [item for item in items if item != ""]


def _shaped(flag: Flag, text: str) -> Assignment:
    """`LABEL.NAME=VALUE` and its kin. A flag of the engine without `=VALUE` is set to true."""
    left, equals, value = text.partition("=")
    source = f"{flag.name} {text}"
    missing = not left.strip() or (not equals and flag.name != "--engine-flag")
    if missing or (flag.shape == "LABEL.NAME=VALUE" and "." not in left):
        raise SpecError(f"{text!r} is not {flag.metavar}", field=flag.name, fix=_EXAMPLES[flag.name])
    if flag.name == "--set":
        return Assignment(left.strip(), read_scalar(value, source), flag.name)
    if flag.shape == "LABEL=VALUE":
        return Assignment(flag.field.replace("*", left.strip()), value, source)
    # a label may hold dots and so may a flag's name; the label is matched against the engines later
    return Assignment(
        f"engines.{left.strip()}",
        (read_scalar(value, source) if equals else True) if flag.name == "--engine-flag" else value,
        source,
        inside=flag.field.rsplit(".", 1)[-1],
    )


_EXAMPLES = {
    "--engine-python": "such as  --engine-python vllm=/opt/vllm/bin/python",
    "--engine-flag": "such as  --engine-flag vllm.max-num-seqs=64",
    "--engine-env": "such as  --engine-env vllm.VLLM_CPU_KVCACHE_SPACE=1",
    "--set": "such as  --set load.drain_s=3",
}
