"""Rows about GPUs. redline reads them; GPU clocks, power and modes are a person's to set."""

from __future__ import annotations

import errno
from collections.abc import Sequence

from redline.node.sys import Sys, SysFault
from redline.node.tunables.find import (
    here,
    of_smi,
    smi,
    smi_field,
)
from redline.node.tunables.rows import advice, everywhere, only_for, want
from redline.node.tunables.tunable import Fit, Place, Reader, Reason, Source, Tunable, Want

_SMI_DOC = Source("vendor", "nvidia-smi(1), driver 595", "2026-08")
_DCGM = Source("tool", "DCGM 4.6.0 diagnostics", "2026-08")
_NO_SMI = "nvidia-smi finds no GPU here"


def _field(name: str) -> Reader:
    return lambda sys, place: smi_field(sys, place, name)


def _has(name: str) -> Reason:
    """Reason for GPUs that do not tell this field."""

    def reason(sys: Sys, place: Place) -> str:
        value = smi_field(sys, place, name)
        return "this GPU does not have it" if not value or value.startswith(("[", "n/a")) else ""

    return reason


def _field_of(name: str) -> Fit:
    def fit(sys: Sys, place: Place, wanted: Want) -> Want:
        return want(wanted.op, smi_field(sys, place, name))

    return fit


def _slowed_by(sys: Sys, place: Place) -> str:
    found = smi(sys, "reasons").get(place.name.removeprefix("GPU "), {})
    if not found:
        raise SysFault("unsupported", "nvidia-smi", errno.ENOTSUP, "this driver does not tell why clocks are low")
    active = [name.rpartition(".")[2] for name, value in found.items() if value == "active"]
    return " ".join(active) or "none"


def _rows(sys: Sys, place: Place) -> str:
    found = smi(sys, "rows").get(place.name.removeprefix("GPU "), {})
    bad = [name.rpartition(".")[2] for name, value in found.items() if value not in ("no", "0") and value[:1] != "["]
    return " ".join(bad) or "none"


def _link_gen(sys: Sys, place: Place) -> str:
    """The link's generation under load; an idle link drops it, so then nobody knows."""
    now, most = (smi_field(sys, place, f"pcie.link.gen.gpu{which}") for which in ("current", "max"))
    state = smi_field(sys, place, "pstate")
    if now != most and state not in ("p0", "p1", "p2"):
        raise SysFault(
            "unsupported", "nvidia-smi", errno.ENOTSUP, f"generation {now}: an idle link is slow, ask under load"
        )
    return now


def _nvlink_places(sys: Sys) -> Sequence[Place]:
    return here("all GPUs")(sys) if "Link 0" in sys.run(["nvidia-smi", "nvlink", "-s"], timeout_s=60).out else []


def _dead_links(sys: Sys, _place: Place) -> str:
    return str(sys.run(["nvidia-smi", "nvlink", "-s"], timeout_s=60).out.lower().count("inactive"))


def _smi_row(
    id_: str, title: str, field: str, value: str, effect: str, how: str, severity: str, *sources: Source
) -> Tunable:
    return advice(
        id_,
        title,
        everywhere("equals", value),
        *(sources or (_SMI_DOC,)),
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field(field),
        applies=_has(field),
        absent=_NO_SMI,
        advice=how,
        severity=severity,
        effect=effect,
    )


GPU: tuple[Tunable, ...] = (
    _smi_row(
        "gpu.persistence",
        "driver stays loaded without clients",
        "persistence_mode",
        "enabled",
        "Without it the first client of an idle GPU waits seconds and clocks start over.",
        "enable nvidia-persistenced.service; nvidia-smi -pm 1 is on its way out",
        "medium",
    ),
    _smi_row(
        "gpu.ecc",
        "memory error correction",
        "ecc.mode.current",
        "enabled",
        "Off, a flipped bit is a wrong token that nobody sees; costs about 6 % of memory on GDDR, nothing on HBM.",
        "nvidia-smi -e 1, then reset the GPU",
        "medium",
        _SMI_DOC,
        _DCGM,
    ),
    advice(
        "gpu.mig",
        "GPU cut into instances (MIG)",
        only_for("latency", "throughput", op="equals", values=("disabled",)),
        _SMI_DOC,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("mig.mode.current"),
        applies=_has("mig.mode.current"),
        absent=_NO_SMI,
        advice="nvidia-smi -mig 0, once no instance is in use",
        severity="medium",
        effect="With MIG on and no instance made an engine finds no GPU; instances have no NVLink.",
    ),
    advice(
        "gpu.compute_mode",
        "who may use the GPU",
        everywhere("one of", "default", "exclusive_process"),
        _SMI_DOC,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("compute_mode"),
        applies=_has("compute_mode"),
        absent=_NO_SMI,
        advice="nvidia-smi -c DEFAULT",
        severity="high",
        effect="prohibited refuses every engine.",
    ),
    advice(
        "gpu.power_limit",
        "power limit, W",
        everywhere("at least", 0),
        _SMI_DOC,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("power.limit"),
        fit=_field_of("power.default_limit"),
        applies=_has("power.limit"),
        absent=_NO_SMI,
        advice="nvidia-smi -pl <default>, unless the rack asks for less",
        severity="medium",
        effect="Below the default, prefill slows down long before decode does.",
        signal="gpu_power_w",
    ),
    advice(
        "gpu.slowdown",
        "why clocks are low now",
        everywhere("equals", "none"),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_slowed_by,
        absent=_NO_SMI,
        advice="look at cooling, at the power supplies and at the cables",
        severity="high",
        effect="A GPU that is too hot or short of power runs at a fraction; one slow GPU slows all of its group.",
        signal="gpu_clock_mhz",
    ),
    advice(
        "gpu.remapped_rows",
        "memory rows that wait for a reset or could not be replaced",
        everywhere("equals", "none"),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi("rows"),
        read=_rows,
        absent="this GPU does not remap rows",
        advice="pending: drain and reset the GPU; failure: have it replaced",
        severity="high",
        effect="The next error in such a row ends every process on the GPU.",
    ),
    advice(
        "gpu.pcie_width",
        "lanes of the GPU's link",
        everywhere("at least", 0),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_field("pcie.link.width.current"),
        fit=_field_of("pcie.link.width.max"),
        applies=_has("pcie.link.width.current"),
        absent=_NO_SMI,
        advice="reseat the card or the riser; look for bifurcation in the firmware",
        severity="high",
        effect="Half the lanes, half the rate of weight loading, KV offload and, without NVLink, of all-reduce.",
        signal="pcie_gb_s",
    ),
    advice(
        "gpu.pcie_generation",
        "generation of the GPU's link under load",
        everywhere("at least", 0),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        scope="device",
        places=of_smi(),
        read=_link_gen,
        fit=_field_of("pcie.link.gen.gpumax"),
        applies=_has("pcie.link.gen.gpucurrent"),
        absent=_NO_SMI,
        advice="firmware: link speed auto; check risers and retimers",
        severity="high",
        effect="Each generation less halves what the link carries.",
        signal="pcie_gb_s",
    ),
    advice(
        "gpu.nvlink",
        "NVLinks that are down",
        everywhere("at most", 0),
        _SMI_DOC,
        _DCGM,
        group="gpu",
        places=_nvlink_places,
        read=_dead_links,
        absent="no NVLink",
        advice="reset the GPUs; then look at fabric manager's log and at the bridge",
        severity="high",
        effect="All-reduce runs over what is left, or over PCIe.",
        signal="nvlink_gb_s",
    ),
)
