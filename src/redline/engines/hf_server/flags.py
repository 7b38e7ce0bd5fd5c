"""The command line of the server. Standard library only: redline reads the flag names from here."""

from __future__ import annotations

import argparse

BATCHING = ("plain", "static", "continuous")
CONTINUOUS_NEEDS = (5, 13)
"""transformers before this answers wrongly once a request has lost its KV blocks to others."""


def version_tuple(version: str) -> tuple[int, ...]:
    """Leading numbers: `5.17.0.dev0` is (5, 17, 0)."""
    numbers: list[int] = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="hf_server",
        description="OpenAI-compatible server around Hugging Face transformers",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        allow_abbrev=False,
    )
    _model_flags(top.add_argument_group("model"))
    _server_flags(top.add_argument_group("server"))
    _batching_flags(top.add_argument_group("batching"))
    return top


def _model_flags(group: argparse._ArgumentGroup) -> None:
    yes_no = argparse.BooleanOptionalAction
    group.add_argument("--model", required=True, help="folder or hub id")
    group.add_argument("--served-model-name", default="", help="name in the API; --model when empty")
    group.add_argument("--tokenizer", default="", help="folder or hub id of the tokenizer; --model when empty")
    group.add_argument("--revision", default=None, help="hub revision of the model")
    group.add_argument("--trust-remote-code", action=yes_no, default=False, help="run code that the checkpoint brings")
    group.add_argument("--dtype", default="auto", help="auto (the checkpoint's), float32, bfloat16 or float16")
    group.add_argument("--device", default="auto", help="auto (cuda when there is one), cpu, cuda, cuda:1")
    group.add_argument("--attn-implementation", default="auto", help="auto, sdpa, eager, flash_attention_2, ...")
    group.add_argument("--random-weights", action=yes_no, default=False, help="initialise instead of loading")
    group.add_argument("--seed", type=int, default=0, help="of random weights, and of requests without a seed")
    group.add_argument("--max-model-len", type=int, default=0, help="prompt + answer; 0 is the model's own limit")


def _server_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--host", default="127.0.0.1", help="address to listen on")
    group.add_argument("--port", type=int, default=8000, help="0 lets the system pick one")
    group.add_argument("--max-waiting", type=int, default=0, help="refuse (503) beyond so many waiting; 0 never does")
    group.add_argument("--max-body-mib", type=float, default=32.0, help="largest request body")
    group.add_argument("--profile-dir", default="", help="folder for traces of /start_profile; off when empty")
    group.add_argument(
        "--profiler", choices=("torch", "cuda"), default="torch", help="cuda: mark the range for nsys around the server"
    )
    group.add_argument("--stall-timeout-s", type=float, default=120.0, help="unhealthy after so long without a token")


def _batching_flags(group: argparse._ArgumentGroup) -> None:
    yes_no = argparse.BooleanOptionalAction
    group.add_argument("--batching", choices=BATCHING, default="plain", help="how requests share the model")
    group.add_argument("--max-batch-size", type=int, default=0, help="requests computed together; 0 chooses")
    group.add_argument("--batch-wait-ms", type=float, default=10.0, help="static: wait for company after the first")
    group.add_argument("--max-batch-tokens", type=int, default=0, help="continuous: tokens per step; 0 chooses")
    group.add_argument("--num-blocks", type=int, default=0, help="continuous: KV blocks; 0 chooses from the memory")
    group.add_argument("--block-size", type=int, default=0, help="continuous: tokens per KV block; 0 chooses")
    group.add_argument("--memory-share", type=float, default=0.0, help="continuous: of free memory; 0 chooses")
    group.add_argument("--prefix-caching", action=yes_no, default=True, help="continuous: reuse KV of shared prefixes")
    group.add_argument("--scheduler", choices=("fifo", "prefill_first"), default="fifo", help="continuous: who is next")
    group.add_argument(
        "--cuda-graphs", action=yes_no, default=None, help="continuous; transformers decides when absent"
    )
    group.add_argument(
        "--compile", action=yes_no, default=False, help="torch.compile: plain (static cache), continuous"
    )
    group.add_argument("--threads", type=int, default=0, help="CPU threads of torch; 0 leaves one core to the server")


def flag_names() -> frozenset[str]:
    """Every flag, without dashes in front; `no-x` counts beside `x`."""
    names = {name for action in parser()._actions for name in action.option_strings if name.startswith("--")}
    return frozenset(name.removeprefix("--") for name in names) - {"help"}
