"""`redline export monitoring`: everything that a Prometheus and a Grafana read, as files in one folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from redline.errors import EnvironmentFault, UsageError
from redline.observe.rules.files import TARGETS, dcgm_counters, prometheus_yml, rule_files
from redline.observe.rules.rule import seconds
from redline.report.dashboards.boards import BOARDS
from redline.report.dashboards.grafana import FOLDER, datasource_yml, grafana_json, provider_yml
from redline.spec.slo import SloSpec

PROMETHEUS_URL = "http://127.0.0.1:9090"


def monitoring(
    folder: Path,
    slo: SloSpec | None = None,
    *,
    success: float = 0.99,
    hung_after: str = "60s",
    targets: Mapping[str, Sequence[str]] = TARGETS,
    prometheus_url: str = PROMETHEUS_URL,
) -> list[Path]:
    """Writes and returns the files. Without an SLO there are no alerts on latency: nothing was promised.

    `success` is the share of requests that must be answered without an error; `targets` by job: engine, redline, node,
    dcgm. EnvironmentFault when the folder cannot be written or grafana-foundation-sdk is missing.
    """
    texts = monitoring_files(
        slo or SloSpec(), success=success, hung_after=hung_after, targets=targets, prometheus_url=prometheus_url
    )
    return write_texts(folder, texts)


def monitoring_files(
    slo: SloSpec,
    *,
    success: float = 0.99,
    hung_after: str = "60s",
    targets: Mapping[str, Sequence[str]] = TARGETS,
    prometheus_url: str = PROMETHEUS_URL,
    dashboards: str = FOLDER,
) -> dict[str, str]:
    """Texts by their path in the folder. `dashboards` is where Grafana will find them."""
    if not 0 < success < 1:
        raise UsageError(f"{success:g} is no share of requests", fix="a share below 1, such as 0.99")
    if seconds(hung_after) < 15:
        raise UsageError(f"an engine that took {hung_after} for a step need not hang", fix="15s or more")
    rules = rule_files(slo, success=success, hung_after=hung_after)
    return {
        "prometheus/prometheus.yml": prometheus_yml(targets),
        **{f"prometheus/{name}": text for name, text in rules.items()},
        "dcgm/counters.csv": dcgm_counters(),
        "grafana/provisioning/datasources/redline.yml": datasource_yml(prometheus_url),
        "grafana/provisioning/dashboards/redline.yml": provider_yml(dashboards),
        **{f"grafana/dashboards/{board.uid}.json": grafana_json(board) for board in BOARDS.values()},
    }


def write_texts(folder: Path, texts: Mapping[str, str]) -> list[Path]:
    """The files written, in that order."""
    written = []
    try:
        for name, text in texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            written.append(path)
    except OSError as error:
        raise EnvironmentFault(f"{folder} cannot be written: {error.strerror}", fix="name another folder") from error
    return written
