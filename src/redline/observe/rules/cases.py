"""Unit tests of the alerts for `promtool test rules`: for each of them a case in which it rings and one in which not.

They ship with the rules, so that whoever edits those can run them again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redline.observe.meanings import TIMES
from redline.observe.rules.alerts import XID_SEEN_FOR
from redline.observe.rules.engine import MORE_TIMES
from redline.observe.rules.rule import seconds
from redline.observe.rules.slo import BURNS, Objective, objectives
from redline.spec.slo import SloSpec

STEP_S, SLO_STEP_S = 15, 60
_VLLM = '{job="engine", instance="e:8000", model_name="m", engine="0"}'
_GPU = '{job="dcgm", instance="d:9400", gpu="0"}'
_UP = '{job="engine", instance="e:8000"}'


@dataclass(frozen=True)
class Case:
    """`series` as promtool writes them (start+stepxcount, one value every STEP_S); `at` when
    it is looked."""

    alert: str
    says: str
    rings: bool
    series: Mapping[str, str]
    at: str
    labels: str = ""

    def look(self) -> dict[str, Any]:
        chosen = ", ".join(filter(None, (f'alertname="{self.alert}"', 'alertstate="firing"', self.labels)))
        expr = f"count by (alertname) (ALERTS{{{chosen}}})"
        want = [{"labels": f'{{alertname="{self.alert}"}}', "value": 1}] if self.rings else []
        return {"expr": expr, "eval_time": self.at, "exp_samples": want}

    @property
    def title(self) -> str:
        return f"{self.alert} {'rings' if self.rings else 'is quiet'}: {self.says}"


def engine_and_box_tests(hung_after: str, rule_files: Sequence[str]) -> dict[str, Any]:
    """The document that `promtool test rules` takes; `rule_files` relative to where it will lie."""
    return _document([*_engine(hung_after), *_box()], rule_files, "1m", STEP_S)


def slo_tests(slo: SloSpec, success: float, rule_files: Sequence[str]) -> dict[str, Any]:
    """The same for the error budgets. Their windows are long, so the clock goes in larger steps."""
    return _document(list(_burns(slo, success)), rule_files, "5m", SLO_STEP_S)


def _document(cases: Sequence[Case], rule_files: Sequence[str], every: str, step_s: int) -> dict[str, Any]:
    """Cases of the same series are one test: what takes promtool its time is to play them."""
    together: dict[tuple[tuple[str, str], ...], list[Case]] = {}
    for case in cases:
        together.setdefault(tuple(case.series.items()), []).append(case)
    tests = [
        {
            "name": "; ".join(case.title for case in some),
            "interval": f"{step_s}s",
            "input_series": [{"series": name, "values": values} for name, values in series],
            "promql_expr_test": [case.look() for case in some],
        }
        for series, some in together.items()
    ]
    return {"rule_files": list(rule_files), "evaluation_interval": every, "tests": tests}


def _engine(hung_after: str) -> Iterator[Case]:
    late = f"{int(seconds(hung_after) / 60) + 10}m"
    steps = f"vllm:iteration_tokens_total_count{_VLLM}"
    running, waiting = f"vllm:num_requests_running{_VLLM}", f"vllm:num_requests_waiting{_VLLM}"
    idle = {waiting: "0x200"}
    stuck, moving = "120x200", "120+3x200"
    yield Case("EngineHung", "a request runs, no step", True, {running: "1x200", steps: stuck, **idle}, late)
    yield Case("EngineHung", "a request runs, and steps", False, {running: "1x200", steps: moving, **idle}, late)
    yield Case("EngineHung", "nothing to do", False, {running: "0x200", steps: stuck, **idle}, late)
    other = _VLLM.replace('"0"', '"1"')
    ranks = {running: "1x200", steps: moving, **idle} | {
        f"vllm:num_requests_running{other}": "1x200",
        f"vllm:num_requests_waiting{other}": "0x200",
        f"vllm:iteration_tokens_total_count{other}": stuck,
    }
    yield Case("EngineHung", "one rank of two", True, ranks, late, 'engine="1"')
    runtime = '{job="engine", instance="r:8000", model_name="m"}'
    own = {
        f"vllm:num_requests_running{runtime}": "0x200",
        f"vllm:num_requests_waiting{runtime}": "2x200",
        f"redline:steps_total{runtime}": stuck,
    }
    yield Case("EngineHung", "redline's runtime, work waits", True, own, late)
    kv = f"vllm:kv_cache_usage_perc{_VLLM}"
    yield Case("KvCacheFull", "full, and some wait", True, {kv: "0.99x200", waiting: "3x200"}, "10m")
    yield Case("KvCacheFull", "full, none waits", False, {kv: "0.99x200", waiting: "0x200"}, "10m")
    old = f"vllm:gpu_cache_usage_perc{_VLLM}"
    yield Case("KvCacheFull", "under its older name", True, {old: "0.99x200", waiting: "3x200"}, "10m")
    lost, done = (
        f"vllm:num_preemptions_total{_VLLM}",
        f'vllm:request_success_total{_VLLM[:-1]}, finished_reason="stop"}}',
    )
    yield Case("PreemptionStorm", "one for every request", True, {lost: "0+5x200", done: "0+5x200"}, "10m")
    yield Case("PreemptionStorm", "one for a hundred", False, {lost: "0+5x200", done: "0+500x200"}, "10m")


def _box() -> Iterator[Case]:
    bits = f"DCGM_FI_DEV_CLOCKS_EVENT_REASONS{_GPU}"
    own = '{job="redline", instance="r:9410", gpu="0", reason="thermal (hardware)"}'
    yield Case("GpuThrottled", "hardware heat (0x40) and power (0x4)", True, {bits: "68x200"}, "5m")
    yield Case("GpuThrottled", "idle (0x1)", False, {bits: "1x200"}, "5m")
    older = f"DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{_GPU}"
    yield Case("GpuThrottled", "under its older name", True, {older: "64x200"}, "5m")
    yield Case("GpuThrottled", "by NVML", True, {f"redline_gpu_clock_event{own}": "1x200"}, "5m")
    yield Case("GpuPowerCapped", "the power limit (0x4) alone", True, {bits: "4x200"}, "20m")
    yield Case("GpuPowerCapped", "for a minute", False, {bits: "0x72 4x4 0x200"}, "20m")
    seen = 'redline_gpu_xid_last_timestamp_seconds{{job="redline", instance="r:9410", xid="{}", kind="{}", pci="0"}}'
    for alert, xid, kind in (("GpuXidFatal", "79", "hardware"), ("GpuXid", "31", "application")):
        yield Case(alert, "a moment ago", True, {seen.format(xid, kind): "60x200"}, "2m")
        late = f"{XID_SEEN_FOR // 60 + 5}m"
        yield Case(alert, "long ago", False, {seen.format(xid, kind): "60x200"}, late)
    yield Case("EngineDown", "no answer", True, {f"up{_UP}": "0x200"}, "5m")
    yield Case("EngineDown", "answers", False, {f"up{_UP}": "1x200"}, "5m")
    for job in ("redline", "node", "dcgm"):
        yield Case("ExporterDown", f"{job} gone", True, {f'up{{job="{job}", instance="x"}}': "0x200"}, "5m")
    yield Case("ExporterDown", "the engine is not one", False, {f"up{_UP}": "0x200"}, "5m")
    log = 'redline_kernel_log_readable{job="redline", instance="r:9410"}'
    yield Case("XidWatchBlind", "not readable", True, {log: "0x200"}, "10m")
    yield Case("XidWatchBlind", "readable", False, {log: "1x200"}, "10m")


def _burns(slo: SloSpec, success: float) -> Iterator[Case]:
    wanted = [one for one in objectives(slo, success) if one.budget > 0]
    longest = int((max(seconds(burn.hold) for burn in BURNS) + 3600) / SLO_STEP_S)
    bad: dict[str, str] = {}
    good: dict[str, str] = {}
    over: dict[str, str] = {}
    for one in wanted:
        bad |= _traffic(one, longest, 0)
        good |= _traffic(one, longest, 20)
        over |= _over(one)
    for one in wanted:
        label = f'slo="{one.name}"'
        for burn in BURNS:
            at = f"{(seconds(burn.hold) + 1800) / 60:g}m"
            yield Case(burn.name, f"{one.name}, all are bad", True, bad, at, label)
            yield Case(burn.name, f"{one.name}, all are good", False, good, at, label)
        yield Case(BURNS[0].name, f"{one.name}, an hour of trouble", True, over, "60m", label)
        yield Case(BURNS[0].name, f"{one.name}, the trouble is over", False, over, "75m", label)


def _over(one: Objective) -> dict[str, str]:
    """An hour of trouble, then all is well: the long window still burns, the short one ends the alert."""
    trouble, well = 60, 25
    series = {}
    for (name, was), now in zip(_traffic(one, trouble, 0).items(), _traffic(one, well, 20).values(), strict=True):
        reached = trouble * 20 if was.startswith("0+20") else 0
        series[name] = f"{was} {now.replace('0+', f'{reached}+', 1)}"
    return series


def _traffic(one: Objective, count: int, good: int) -> dict[str, str]:
    """20 events every SLO_STEP_S, `good` of them."""
    grown = f"0+20x{count}"
    if one.name == "goodput":
        labels = '{job="redline", instance="r:9410", model="m", engine="vllm"}'
        return {
            f"redline_requests_judged_total{labels}": grown,
            f"redline_requests_good_total{labels}": f"0+{good}x{count}",
        }
    if one.limit_s is None:
        ended = f"vllm:request_success_total{_VLLM[:-1]}, finished_reason="
        return {f'{ended}"error"}}': f"0+{20 - good}x{count}", f'{ended}"stop"}}': f"0+{good}x{count}"}
    family = (TIMES | MORE_TIMES)[one.name][0]
    inside = f'{family}_bucket{_VLLM[:-1]}, le="{one.limit_s:g}"}}'
    everything = f'{family}_bucket{_VLLM[:-1]}, le="+Inf"}}'
    return {inside: f"0+{good}x{count}", everything: grown, f"{family}_count{_VLLM}": grown}
