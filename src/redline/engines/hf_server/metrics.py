"""Prometheus text. Names follow vLLM's where the meaning is the same, under a prefix of our own."""

from __future__ import annotations

from .service import Service

PREFIX = "redline_hf:"


def allocated(service: Service) -> float | None:
    """What torch's allocator has handed out; None on a CPU, where torch does not count."""
    if service.loaded is None or not service.loaded.device.startswith("cuda"):
        return None
    import torch

    return float(torch.cuda.memory_allocated(service.loaded.device))


def render(service: Service) -> str:
    worker = service.worker
    load = worker.load() if worker is not None and service.phase == "ready" else None
    totals = service.totals
    rows: list[tuple[str, str, str, float | None]] = [
        ("num_requests_running", "gauge", "Requests that are being computed", load and load.running),
        ("num_requests_waiting", "gauge", "Requests that wait for a place", load and load.waiting),
        ("kv_cache_usage_perc", "gauge", "Share of KV blocks in use, 0 to 1", load and load.kv_usage),
        ("prompt_tokens_total", "counter", "Prompt tokens accepted", totals.prompt_tokens),
        ("generation_tokens_total", "counter", "Tokens handed to requests", totals.generation_tokens),
        ("request_success_total", "counter", "Requests that ended well", totals.finished),
        ("request_failure_total", "counter", "Requests that ended with an error", totals.failed),
        ("request_cancelled_total", "counter", "Requests whose client went away", totals.cancelled),
        ("torch_allocated_bytes", "gauge", "Memory of tensors on the GPU", allocated(service)),
        ("steps_total", "counter", "Steps of the model", worker.steps() if worker else 0),
    ]
    lines = []
    for name, kind, text, value in rows:
        if value is not None:
            lines += [f"# HELP {PREFIX}{name} {text}", f"# TYPE {PREFIX}{name} {kind}", f"{PREFIX}{name} {value:g}"]
    return "\n".join(lines) + "\n"
