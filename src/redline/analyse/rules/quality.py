"""Were these answers, or noise at high speed? Canaries against their own answers alone, and what texts look like."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from redline.analyse.case import Case, Rule, Said
from redline.analyse.slo import wilson

MOST_EARLY = 0.25
"""Lower bound of the share of canaries that are wrong from the start; two of two are above it, one of one is not."""
MOST_MISMATCHED = 0.5
DRIFT_NATS = 0.2
BROKEN_NATS = 1.0


def mixed_up(case: Case) -> Said:
    """A canary got another prompt's answer under load: one is enough."""
    told = _canary(case)
    if not told.get("mixed_up"):
        return None
    return "invalid", f"{told['mixed_up']} of {told['compared']} canaries got the answer of another prompt under load"


def spoilt(case: Case) -> Said:
    """Canaries that were answered well alone come back as garbage, a loop or nothing under load."""
    told = _canary(case)
    count = int(told.get("spoilt", 0))
    if not count:
        return None
    # one is a doubt, two are a pattern
    state = "invalid" if count > 1 and not case.outcome.get("random_weights") else "degraded"
    text = f"{count} of {told['compared']} canaries came back as garbage, a loop or nothing, and well when asked alone"
    return state, text + _random(case)


def diverged(case: Case) -> Said:
    """Near-ties flip in a batch; that alone makes few answers differ, and hardly one from its first token on."""
    told = _canary(case)
    compared, early, off = (int(told.get(key, 0)) for key in ("compared", "early", "mismatched"))
    if not compared or told.get("spoilt"):
        return None
    if told.get("unlike_alone"):
        return None  # it does not repeat itself alone either: nothing follows
    bound = wilson(early, compared)
    if bound is not None and bound.low > MOST_EARLY:
        state = "degraded" if case.outcome.get("random_weights") else "invalid"
        return state, f"{early} of {compared} canaries were wrong from the start under load" + _random(case)
    bound = wilson(off, compared)
    if bound is not None and bound.low > MOST_MISMATCHED and not case.outcome.get("random_weights"):
        return "degraded", (
            f"{off} of {compared} canaries were answered differently under load ({bound.low:.0%} or more, 95 %), "
            f"after {told.get('agreed_share', 0):.0%} of the text: more than near-ties explain"
        )
    return None


def drifted(case: Case) -> Said:
    """Log-probabilities of the same tokens differ under load: 0.2 nats are worth a word, one nat is another model."""
    drift = _canary(case).get("logprob_drift")
    if not isinstance(drift, (int, float)) or drift <= DRIFT_NATS:
        return None
    state = "invalid" if drift > BROKEN_NATS else "degraded"
    return state, f"log-probabilities of canaries drift by {drift:.2f} nats under load"


def garbage(case: Case) -> Said:
    """Ordinary answers hold characters that no text has, more of them than with little load."""
    return _more(case, "garbled", "hold characters that no text has", natural=False)


def loops(case: Case) -> Said:
    """Ordinary answers repeat one piece over and over, more of them than with little load."""
    return _more(case, "looping", "repeat one piece over and over", natural=True)


RULES: tuple[Rule, ...] = (mixed_up, spoilt, diverged, drifted, garbage, loops)


def _more(case: Case, what: str, words: str, *, natural: bool) -> Said:
    """Speaks when more answers have the feature than did with little load, beyond chance. `natural`: a sound model has
    it too at times, so without answers to compare with nothing follows."""
    told = case.outcome.get("answers")
    if not isinstance(told, Mapping):
        return None
    measured = told.get("measured") or {}
    before = next((some for key in ("alone", "warmup") if (some := told.get(key) or {}).get("answers")), {})
    n, count = int(measured.get("answers", 0)), int(measured.get(what, 0))
    now = wilson(count, n)
    if now is None or count < 2:
        return None
    usual, had = int(before.get(what, 0)), int(before.get("answers", 0))
    then = wilson(usual, had)
    if (usual or natural) and (then is None or now.low <= then.high):
        return None  # this model may do so by itself
    if now.low <= 0.002:
        return None
    state = "invalid" if now.low > 0.02 and not case.outcome.get("random_weights") else "degraded"
    beside = f", and {usual} of {had} did before the load" if had else ""
    return state, f"{count} of {n} answers {words}{beside}" + _random(case)


def _canary(case: Case) -> Mapping[str, Any]:
    told = case.outcome.get("canary")
    return told if isinstance(told, Mapping) else {}


def _random(case: Case) -> str:
    return " (a model with random weights)" if case.outcome.get("random_weights") else ""
