"""Runs other load generators against a server, each from a virtual environment of its own, and reads what they report.

    tool = find("guidellm")            # None or why not: see `Peer.missing`
    folder holds the result file that `redline import` reads

`make peers` installs them into `.venv-peers/TOOL`. Nothing of theirs is imported here.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import yaml

from redline.errors import EnvironmentFault
from redline.load.paced.loop import Truth
from redline.load.record import RequestRecord

_VLLM_BENCH = (
    "from vllm.benchmarks.serve import add_cli_args, main\n"
    "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
    "parser = FlexibleArgumentParser(); add_cli_args(parser); main(parser.parse_args())"
)
"""What `vllm bench serve` runs. The command itself wants a package called vllm, and the CPU build has another name."""

_SGLANG_BENCH = """
import importlib.util, sys, types
root = importlib.util.find_spec("sglang").submodule_search_locations[0]
for name in ("sglang", "sglang.srt", "sglang.srt.utils"):
    package = types.ModuleType(name)
    package.__path__ = [root + name.removeprefix("sglang").replace(".", "/")]
    sys.modules[name] = package
engine = types.ModuleType("sglang.srt.disaggregation.utils")
engine.FAKE_BOOTSTRAP_HOST = ""
sys.modules[engine.__name__] = engine
from sglang.benchmark.serving import cli_main
cli_main()
"""
"""What `python -m sglang.bench_serving` runs. Its packages' own `__init__` files import the engine, and with it torch
and CUDA kernels; of these the benchmark uses the name of one host, with `--fake-prefill` alone. They are passed by."""


@dataclass(frozen=True)
class PeerPlan:
    """One load point. `rate` requests per second by Poisson, or `clients` in a closed loop when it is 0."""

    url: str
    tokenizer: Path
    requests: int
    prompt_tokens: int = 32
    output_tokens: int = 40
    rate: float = 0.0
    clients: int = 0
    model: str = "paced"
    seed: int = 1


@dataclass(frozen=True)
class Peer:
    """A tool, its interpreter, and how it is called."""

    name: str
    python: Path
    arguments: Callable[[Path, PeerPlan, Path], list[str]]

    def command(self, plan: PeerPlan, folder: Path) -> list[str]:
        """Writes its results into `folder`, which `redline import` reads."""
        return self.arguments(self.python, plan, folder)

    def run(self, plan: PeerPlan, folder: Path, *, timeout_s: float = 300.0) -> Path:
        """What to import. EnvironmentFault with the end of its output when it failed."""
        folder.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            self.command(plan, folder),
            capture_output=True,
            text=True,
            timeout=timeout_s,
            env=environment(),
            check=False,
        )
        if done.returncode:
            raise EnvironmentFault(f"{self.name} failed", why=(done.stdout + done.stderr)[-2000:])
        return result(folder)


def find(name: str, root: Path | None = None) -> Peer | None:
    """None when it is not installed: neither REDLINE_<NAME>_PYTHON says where, nor is it in `.venv-peers`."""
    variable = f"REDLINE_{name.upper().replace('-', '_')}_PYTHON"
    root = root or Path.cwd()
    places = [os.environ.get(variable, ""), str(root / ".venv-peers" / name / "bin/python")]
    if name == "vllm":
        places.append(str(root / ".venv-vllm/bin/python"))
    # not resolved: a virtual environment's python is a link, and knows its packages by where the link lies
    python = next((Path(place) for place in places if place and Path(place).exists()), None)
    return None if python is None else Peer(name, python.absolute(), PEERS[name])


def environment() -> dict[str, str]:
    """Ours, without what would put our packages before theirs."""
    without = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return without | {"VLLM_LOGGING_LEVEL": "ERROR", "PYTHONUNBUFFERED": "1"}


def result(folder: Path) -> Path:
    """The file that holds the results: the one in `folder`, or the folder itself when it holds several."""
    single = (folder / name for name in ("benchmarks.json", "vllm.json", "sglang.jsonl"))
    return next((file for file in single if file.exists()), folder)


def _vllm(python: Path, plan: PeerPlan, folder: Path) -> list[str]:
    load = ["--request-rate", f"{plan.rate}"] if plan.rate else ["--max-concurrency", f"{plan.clients}"]
    return [
        *(str(python), "-c", _VLLM_BENCH, "--backend", "openai", "--base-url", plan.url, "--model", plan.model),
        *("--endpoint", "/v1/completions", "--tokenizer", str(plan.tokenizer), "--dataset-name", "random"),
        *("--random-input-len", f"{plan.prompt_tokens}", "--random-output-len", f"{plan.output_tokens}"),
        *("--num-prompts", f"{plan.requests}", "--seed", f"{plan.seed}", "--ignore-eos", "--disable-tqdm"),
        *("--save-result", "--save-detailed", "--result-dir", str(folder), "--result-filename", "vllm.json"),
        *("--percentile-metrics", "ttft,tpot,itl,e2el", "--metric-percentiles", "50,90,99", *load),
    ]


def _guidellm(python: Path, plan: PeerPlan, folder: Path) -> list[str]:
    profile = f"kind=poisson,rate={plan.rate}" if plan.rate else f"kind=concurrent,streams={plan.clients}"
    return [
        *(str(python.parent / "guidellm"), "run", "--disable-console", "--profile", profile),
        *("--backend", f"kind=openai_http,target={plan.url},model={plan.model},request_format=/v1/completions"),
        *("--constraint", f"kind=max_requests,count={plan.requests}", "--seed", f"kind=static,value={plan.seed}"),
        *("--tokenizer", f"kind=hf_auto,model={plan.tokenizer}"),
        *("--data", f"kind=synthetic_text,prompt_tokens={plan.prompt_tokens},output_tokens={plan.output_tokens}"),
        *("--output", f"kind=json,path={folder / 'benchmarks.json'}"),
    ]


def _aiperf(python: Path, plan: PeerPlan, folder: Path) -> list[str]:
    load = ["--concurrency", f"{plan.clients}"]
    if plan.rate:
        load = ["--request-rate", f"{plan.rate}", "--request-rate-mode", "poisson"]
    return [
        *(str(python.parent / "aiperf"), "profile", "--model", plan.model, "--url", plan.url, "--streaming"),
        *("--endpoint-type", "completions", "--request-count", f"{plan.requests}", "--tokenizer", str(plan.tokenizer)),
        *("--synthetic-input-tokens-mean", f"{plan.prompt_tokens}", "--output-tokens-mean", f"{plan.output_tokens}"),
        *("--extra-inputs", "ignore_eos:true", "--use-server-token-count", "--random-seed", f"{plan.seed}"),
        *("--ui", "none", "--output-artifact-dir", str(folder), *load),
    ]


def _inference_perf(python: Path, plan: PeerPlan, folder: Path) -> list[str]:
    """Its load is given in a file. An open loop runs for a time, not for a number of requests."""

    def length(tokens: int) -> dict[str, int]:
        return {"min": tokens, "max": tokens, "mean": tokens, "std_dev": 0, "total_count": plan.requests}

    stage: dict[str, float] = {"num_requests": plan.requests, "concurrency_level": plan.clients}
    if plan.rate:
        stage = {"rate": plan.rate, "duration": max(1, round(plan.requests / plan.rate))}
    config = {
        "api": {"type": "completion", "streaming": True},
        "data": {
            "type": "random",
            "input_distribution": length(plan.prompt_tokens),
            "output_distribution": length(plan.output_tokens),
        },
        "load": {"type": "poisson" if plan.rate else "concurrent", "stages": [stage]},
        "server": {"type": "vllm", "model_name": plan.model, "base_url": plan.url, "ignore_eos": True},
        "tokenizer": {"pretrained_model_name_or_path": str(plan.tokenizer)},
        "report": {"request_lifecycle": {"summary": True, "per_stage": False, "per_request": True}},
        "storage": {"local_storage": {"path": str(folder)}},
    }
    file = folder / "inference-perf.yaml"
    file.write_text(yaml.safe_dump(config), encoding="utf-8")
    return [str(python.parent / "inference-perf"), "-c", str(file)]


def _sglang(python: Path, plan: PeerPlan, folder: Path) -> list[str]:
    load = ["--request-rate", f"{plan.rate}"] if plan.rate else ["--max-concurrency", f"{plan.clients}"]
    return [
        *(str(python), "-c", _SGLANG_BENCH, "--backend", "sglang-oai", "--base-url", plan.url, "--model", plan.model),
        *("--tokenizer", str(plan.tokenizer), "--dataset-name", "random-ids", "--num-prompts", f"{plan.requests}"),
        *("--random-input-len", f"{plan.prompt_tokens}", "--random-output-len", f"{plan.output_tokens}"),
        *("--random-range-ratio", "1.0", "--seed", f"{plan.seed}", "--disable-tqdm", "--output-details"),
        *("--output-file", str(folder / "sglang.jsonl"), *load),
    ]


PEERS: dict[str, Callable[[Path, PeerPlan, Path], list[str]]] = {
    "vllm": _vllm,
    "guidellm": _guidellm,
    "aiperf": _aiperf,
    "inference-perf": _inference_perf,
    "sglang": _sglang,
}


def redline_command(plan: PeerPlan, db: Path) -> list[str]:
    """redline itself, through the same door as everybody else."""
    load = ["--rate", f"{plan.rate}"] if plan.rate else ["--concurrency", f"{plan.clients}"]
    return [
        *(sys.executable, "-m", "redline", "bench", "--url", f"{plan.url}/v1", "--model", plan.model, "--db", str(db)),
        *("--requests", f"{plan.requests}", "--duration", "600", "--seed", f"{plan.seed}", "--json", *load),
        *("--prompt-tokens", f"{plan.prompt_tokens}", "--output-tokens", f"{plan.output_tokens}"),
        *("--calibrate", "0", "--canary-share", "0"),  # no other tool does either
    ]


def true_record(truth: Truth) -> RequestRecord:
    """As a client that sees every chunk in the moment in which it is sent."""
    return RequestRecord(
        index=truth.number,
        intended_ns=truth.arrived_ns,
        sent_ns=truth.arrived_ns,
        chunk_ns=list(truth.before_ns),
        chunk_tokens=list(truth.tokens),
        answer_first_ns=truth.before_ns[0],
        finished_ns=truth.finished_ns or truth.before_ns[-1],
        output_tokens=sum(truth.tokens),
        prompt_tokens=truth.prompt_tokens,
    )
