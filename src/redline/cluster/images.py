"""Container images, pinned by tag: dated data. None of them was pulled when this list was made.

Look for newer ones twice a year; a tag that is gone fails at `docker compose pull`, before anything starts.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Image:
    """`seen` says when and where the tag or the release was seen."""

    name: str
    tag: str
    seen: str

    @property
    def reference(self) -> str:
        return f"{self.name}:{self.tag}"


IMAGES = {
    "vllm": Image("vllm/vllm-openai", "v0.30.0", "2026-11, release 0.30.0 on PyPI; tags are v and the version"),
    "prometheus": Image("prom/prometheus", "v3.11.3", "2026-05, release of prometheus/prometheus"),
    "node": Image("prom/node-exporter", "v1.11.1", "2026-04, release of prometheus/node_exporter"),
    "grafana": Image("grafana/grafana", "13.0.1", "2026-04, release of grafana/grafana"),
    "dcgm": Image(
        "nvcr.io/nvidia/k8s/dcgm-exporter",
        "4.5.3-4.8.2-distroless",
        "2026-05, manifest inspected in NVIDIA/deepops 1348",
    ),
    "python": Image("python", "3.12-slim-bookworm", "2026-11, base of redline's own image"),
}
