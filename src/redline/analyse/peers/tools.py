"""The tools whose numbers can be recomputed, by the name that `--as` takes."""

from __future__ import annotations

from collections.abc import Callable

from redline.analyse.peers import aiperf, guidellm, inference_perf, sglang, vllm
from redline.analyse.peers.answers import Answers, Beside, answers_of
from redline.analyse.peers.figure import PeerDefinition, PeerReport
from redline.store.requests import Requests

_REPORTS: dict[str, Callable[[Answers, Beside], PeerReport]] = {
    "vllm": vllm.report,
    "guidellm": guidellm.report,
    "aiperf": aiperf.report,
    "sglang": sglang.report,
    "inference-perf": inference_perf.report,
}
TOOLS = tuple(_REPORTS)

PEER_DEFINITIONS: dict[str, PeerDefinition] = {
    definition.id: definition
    for module in (vllm, guidellm, aiperf, sglang, inference_perf)
    for definition in module.DEFINITIONS
}


def recompute(tool: str, requests: Requests, beside: Beside | None = None) -> PeerReport:
    """What `tool` would have reported, had it received the same bytes at the same times. KeyError: no such tool."""
    beside = beside or Beside()
    return _REPORTS[tool](answers_of(requests, beside), beside)
