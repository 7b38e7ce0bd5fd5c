"""What is watched beside the load, over what is always sampled."""

from __future__ import annotations

from pydantic import Field

from redline.spec.record import Spec


class ObserveSpec(Spec):
    """Both cost something while the engine is measured, so both are off unless asked for."""

    explain: bool = Field(
        False, description="watch for what may hold up the engine, for redline explain: causes at 30 Hz, kernel events"
    )
    spans: bool = Field(
        False, description="take in the engine's OpenTelemetry spans (redline, vllm), linked to the requests"
    )
