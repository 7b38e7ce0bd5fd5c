"""A server that somebody else runs: looked at carefully, asked politely, never signalled."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from typing import Any, NoReturn
from urllib.parse import urlsplit, urlunsplit

from redline.engines.dialect import Prober, probe_dialect
from redline.engines.endpoint import Endpoint
from redline.engines.engine import Progress, Start
from redline.engines.http import Reply, fetch, try_fetch
from redline.engines.identify import identify
from redline.engines.launch import root_of
from redline.engines.ready import answered, one_token
from redline.errors import EngineStartFailed, EnvironmentFault, Skipped, UsageError
from redline.spec.engine import EngineSpec
from redline.spec.faults import did_you_mean
from redline.spec.model import ModelSpec

METRICS_PATHS = ("/metrics", "/prometheus/metrics")
"""The second is TensorRT-LLM's: its /metrics is JSON."""

FIRST_ANSWER_S = 300.0
"""A cold server may compile for minutes at its first request."""


class UrlServer:
    """A server with no process of ours. `stop` leaves it alone."""

    def __init__(self, endpoint: Endpoint, headers: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self._headers = headers

    def alive(self) -> bool:
        parts = urlsplit(self.endpoint.base_url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
        try:
            socket.create_connection((parts.hostname or "", port), timeout=2.0).close()
        except OSError:
            return False
        return True

    def healthy(self, timeout_s: float = 5.0) -> bool:
        root = root_of(self.endpoint.base_url)
        replies = (
            try_fetch(root + path, headers=self._headers, timeout_s=timeout_s) for path in ("/health", "/v1/models")
        )
        return any(reply is not None and reply.ok for reply in replies)

    def log_tail(self, lines: int = 40) -> str:
        return ""

    def diagnose(self) -> tuple[str, str, str]:
        if self.alive():
            return "", "", ""
        where = self.endpoint.base_url
        return "unreachable", f"Nothing accepts connections at {where} any more.", "Ask whoever runs that server."

    def stop(self) -> None:
        """Nothing: it is not ours."""


class UrlEngine:
    """Adapter for `url: http(s)://host:port/v1`."""

    kind = "url"

    def available(self, spec: EngineSpec) -> Skipped | None:
        return None

    def version(self, spec: EngineSpec) -> str:
        """What the server says; empty when it does not answer."""
        root, headers = _root(spec), _headers(spec)
        reply = try_fetch(f"{root}/v1/models", headers=headers)
        listed = _listed(reply) if reply and reply.ok else []
        return identify(root, listed[0] if listed else {}, headers).version if reply else ""

    def known_flags(self, spec: EngineSpec) -> frozenset[str] | None:
        return frozenset()

    def check(self, spec: EngineSpec, model: ModelSpec) -> None:
        _root(spec)
        _headers(spec)
        if spec.flags:
            raise UsageError(
                f"a running server takes no flags: {', '.join('--' + name for name in spec.flags)}",
                why="redline did not start it and cannot change it.",
                fix="Remove them, or let redline start the engine with another kind.",
            )

    def start(self, start: Start, progress: Progress) -> UrlServer:
        spec = start.spec
        self.check(spec, start.model)
        root, headers = _root(spec), _headers(spec)
        progress(f"looking at {root}")
        entry = _chosen(_models(root, headers), start.model)
        name = str(entry["id"])
        progress("asking for a first token")
        _first_answer(root, name, headers, min(FIRST_ANSWER_S, spec.startup_timeout_s))
        metrics_url, text = _metrics(root, headers)
        identity = identify(root, entry, headers, text)
        progress("finding out what it understands")
        dialect = probe_dialect(Prober(root, name, headers, _chat_only(root, name, headers)), identity.engine)
        endpoint = Endpoint(
            base_url=f"{root}/v1",
            model=name,
            engine=identity.engine,
            engine_version=identity.version,
            flags=identity.flags,
            metrics_url=metrics_url,
            dialect=dialect,
            max_model_len=identity.max_model_len,
        )
        return UrlServer(endpoint, headers)


def _metrics(root: str, headers: Mapping[str, str]) -> tuple[str | None, str]:
    """(where the server's metrics are, what they say); (None, "") where there are none."""
    for path in METRICS_PATHS:
        reply = try_fetch(root + path, headers=headers)
        if reply is not None and reply.ok and "# TYPE" in reply.text:
            return root + path, reply.text
    return None, ""


def _root(spec: EngineSpec) -> str:
    """The address without `/v1`. UsageError for what is no address."""
    parts = urlsplit(spec.url)
    try:
        valid = bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        valid = False
    if not valid:
        raise UsageError(f"{spec.url!r} is no http address", fix="For example: http://127.0.0.1:8000/v1")
    if parts.username or parts.password:
        raise UsageError("the url holds a password, which would be stored with the run", fix="Use api_key_env.")
    path = parts.path.rstrip("/")
    for ending in ("/chat/completions", "/completions", "/models"):
        path = path.removesuffix(ending)
    return urlunsplit((parts.scheme, parts.netloc, path.removesuffix("/v1"), "", ""))


def _headers(spec: EngineSpec) -> dict[str, str]:
    if not spec.api_key_env:
        return {}
    key = os.environ.get(spec.api_key_env, "")
    if not key:
        raise EnvironmentFault(
            f"the environment variable {spec.api_key_env} is not set", fix="It must hold the API key."
        )
    return {"Authorization": f"Bearer {key}"}


def _models(root: str, headers: Mapping[str, str]) -> list[dict[str, Any]]:
    """The entries of /v1/models; empty when the server has no such page."""
    try:
        reply = fetch(f"{root}/v1/models", headers=headers, timeout_s=15.0)
    except OSError as error:
        raise EngineStartFailed(
            f"no server answers at {root}",
            why=str(error),
            fix="Check host and port, and that the server is up and reachable from here.",
            diagnosis="unreachable",
        ) from error
    if reply.status in (401, 403):
        _refused(root, reply)
    if not reply.ok and reply.status not in (404, 405):
        raise EngineStartFailed(
            f"{root}/v1/models answers HTTP {reply.status}", why=reply.error, fix="Is it ready?", diagnosis="not-ready"
        )
    return _listed(reply) if reply.ok else []


def _listed(reply: Reply) -> list[dict[str, Any]]:
    found = reply.json()
    entries = found.get("data") if isinstance(found, dict) else None
    return [e for e in entries if isinstance(e, dict) and "id" in e] if isinstance(entries, list) else []


def _refused(root: str, reply: Reply) -> NoReturn:
    raise EngineStartFailed(
        f"{root} refuses: HTTP {reply.status}",
        why=reply.error,
        fix="Put the API key into an environment variable and name that with api_key_env.",
        diagnosis="unauthorised",
    )


def _chosen(listed: list[dict[str, Any]], model: ModelSpec) -> dict[str, Any]:
    """The entry that the experiment means. UsageError, with what is served, when it is not there."""
    wanted = [word for word in (model.name, model.id, model.served_name) if word]
    by_id = {str(entry["id"]): entry for entry in listed}
    for word in wanted[:1] if model.name else wanted:
        if word in by_id:
            return by_id[word]
    if not listed:  # no such page: the first answer will tell
        return {"id": wanted[0]}
    raise UsageError(
        f"the server does not serve a model named {wanted[0]!r}",
        why=f"It serves: {', '.join(by_id)}.",
        fix=did_you_mean(wanted[0], by_id) or f"Name it: --model {next(iter(by_id))}",
    )


def _first_answer(root: str, name: str, headers: Mapping[str, str], timeout_s: float) -> None:
    try:
        reply = one_token(root, name, headers, timeout_s)
    except OSError as error:
        raise EngineStartFailed(
            f"{root} did not answer a request for one token", why=str(error), diagnosis="no-answer"
        ) from error
    if reply.status in (401, 403):
        _refused(root, reply)
    if not answered(reply):
        raise EngineStartFailed(
            f"{root} answers a request for one token with HTTP {reply.status}: {reply.error}",
            why="A server that lists its models, and does not complete, cannot be measured.",
            diagnosis="no-answer",
        )


def _chat_only(root: str, name: str, headers: Mapping[str, str]) -> bool:
    body = {"model": name, "prompt": "Hello", "max_tokens": 1}
    reply = try_fetch(f"{root}/v1/completions", body=body, headers=headers, timeout_s=60.0)
    return reply is not None and reply.status in (404, 405, 501)
