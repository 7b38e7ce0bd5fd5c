"""Which requests have a client that hangs up or reads slowly: decided by seed and name, the same for every engine."""

from __future__ import annotations

import random
from typing import NamedTuple

from redline.spec.workload import SLOW_READER, WorkloadSpec
from redline.units import NS_PER_S


class Client(NamedTuple):
    """How the client of one request behaves; zeros are an ordinary one."""

    cancel_after_ns: int = 0
    read_bytes_per_s: int = 0
    request_class: str = ""


def client_of(workload: WorkloadSpec, key: int, name: str) -> Client:
    """`name` tells requests under the same key apart."""
    if not workload.cancel_share and not workload.slow_share:
        return Client()
    draw = random.Random(f"{key}/{name}/client").random()
    if draw < workload.cancel_share:
        return Client(cancel_after_ns=int(workload.cancel_after_s * NS_PER_S))
    if draw < workload.cancel_share + workload.slow_share:
        return Client(read_bytes_per_s=workload.slow_bytes_per_s, request_class=SLOW_READER)
    return Client()
