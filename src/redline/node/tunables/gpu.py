"""Rows about GPUs. redline reads them; GPU clocks, power and modes are a person's to set."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Any

from redline.node.sys import Sys, SysFault
from redline.node.tunables.find import (
    here,
    of_smi,
    smi,
    smi_field,
)
from redline.node.tunables.rows import advice, everywhere, only_for, want
from redline.node.tunables.tunable import Fit, Place, Profile, Reader, Reason, Source, Tunable, Want

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


def _of_each(id_: str, title: str, wants: dict[Profile, Want | None], field: str = "", **more: Any) -> Tunable:
    """A row about each GPU that nvidia-smi lists; `field` is what it reads, and GPUs without it are left out."""
    settings: dict[str, Any] = {"group": "gpu", "scope": "device", "places": of_smi(), "absent": _NO_SMI}
    if field:
        settings |= {"read": _field(field), "applies": _has(field)}
    return advice(id_, title, wants, _SMI_DOC, _DCGM, **settings | more)


GPU: tuple[Tunable, ...] = (
    _of_each(
        "gpu.persistence",
        "driver stays loaded without clients",
        everywhere("equals", "enabled"),
        "persistence_mode",
        advice="enable nvidia-persistenced.service; nvidia-smi -pm 1 is on its way out",
        severity="medium",
        effect="Without it the first client of an idle GPU waits seconds and clocks start over.",
    ),
    _of_each(
        "gpu.ecc",
        "memory error correction",
        everywhere("equals", "enabled"),
        "ecc.mode.current",
        advice="nvidia-smi -e 1, then reset the GPU",
        severity="medium",
        effect="Off, a flipped bit is a wrong token that nobody sees; costs some memory on GDDR, nothing on HBM.",
    ),
    _of_each(
        "gpu.mig",
        "GPU cut into instances (MIG)",
        only_for("latency", "throughput", op="equals", values=("disabled",)),
        "mig.mode.current",
        advice="nvidia-smi -mig 0, once no instance is in use",
        severity="medium",
        effect="With MIG on and no instance made an engine finds no GPU; instances have no NVLink.",
    ),
    _of_each(
        "gpu.compute_mode",
        "who may use the GPU",
        everywhere("one of", "default", "exclusive_process"),
        "compute_mode",
        advice="nvidia-smi -c DEFAULT",
        severity="high",
        effect="prohibited refuses every engine.",
    ),
    _of_each(
        "gpu.power_limit",
        "power limit, W",
        everywhere("at least", 0),
        "power.limit",
        fit=_field_of("power.default_limit"),
        advice="nvidia-smi -pl <default>, unless the rack asks for less",
        severity="medium",
        effect="Below the default, prefill slows down long before decode does.",
        signal="gpu_power_w",
    ),
    _of_each(
        "gpu.slowdown",
        "why clocks are low now",
        everywhere("equals", "none"),
        read=_slowed_by,
        advice="look at cooling, at the power supplies and at the cables",
        severity="high",
        effect="A GPU that is too hot or short of power runs at a fraction; one slow GPU slows all of its group.",
        signal="gpu_clock_mhz",
    ),
    _of_each(
        "gpu.remapped_rows",
        "memory rows that wait for a reset or could not be replaced",
        everywhere("equals", "none"),
        places=of_smi("rows"),
        read=_rows,
        absent="no GPU here that remaps rows",
        advice="pending: drain and reset the GPU; failure: have it replaced",
        severity="high",
        effect="The next error in such a row ends every process on the GPU.",
    ),
    _of_each(
        "gpu.pcie_width",
        "lanes of the GPU's link",
        everywhere("at least", 0),
        "pcie.link.width.current",
        fit=_field_of("pcie.link.width.max"),
        advice="reseat the card or the riser; look for bifurcation in the firmware",
        severity="high",
        effect="Half the lanes, half the rate of weight loading, KV offload and, without NVLink, of all-reduce.",
        signal="pcie_gb_s",
    ),
    _of_each(
        "gpu.pcie_generation",
        "generation of the GPU's link under load",
        everywhere("at least", 0),
        "pcie.link.gen.gpucurrent",
        read=_link_gen,
        fit=_field_of("pcie.link.gen.gpumax"),
        advice="firmware: link speed auto; check risers and retimers",
        severity="high",
        effect="Each generation less halves what the link carries.",
        signal="pcie_gb_s",
    ),
    _of_each(
        "gpu.nvlink",
        "NVLinks that are down",
        everywhere("at most", 0),
        scope="host",
        places=_nvlink_places,
        read=_dead_links,
        absent="no NVLink",
        advice="reset the GPUs; then look at fabric manager's log and at the bridge",
        severity="high",
        effect="All-reduce runs over what is left, or over PCIe.",
        signal="nvlink_gb_s",
    ),
)
