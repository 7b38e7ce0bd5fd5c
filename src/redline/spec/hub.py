"""The Hugging Face hub from outside: what its local cache holds, and whether it can be reached.

Cache layout: `models--ORG--NAME/refs/REVISION` holds a commit, `snapshots/COMMIT/` the files. The environment
variables read here are the hub's own cache paths, its offline switch, its address and its token.
"""

from __future__ import annotations

import os
import threading
import urllib.error
import urllib.request
from pathlib import Path

from redline.errors import ModelNotFound

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")


def hub_cache() -> Path:
    """The folder where the hub's clients keep models."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HUGGINGFACE_HUB_CACHE", ""), ("HF_HOME", "hub")):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser() / below
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "huggingface" / "hub"


def cached_snapshot(hub_id: str, revision: str = "", cache: Path | None = None) -> Path | None:
    """The folder of a downloaded model, or None: nothing there, or the download never began."""
    home = (cache or hub_cache()) / f"models--{hub_id.replace('/', '--')}"
    commit = revision or "main"
    reference = home / "refs" / commit
    if reference.is_file():
        commit = reference.read_text().strip()
    snapshot = home / "snapshots" / commit
    return snapshot if (snapshot / "config.json").is_file() else None


def offline_reason() -> str:
    """The variable that forbids the hub, as `NAME=value`; '' when none does."""
    for name in _OFFLINE:
        if os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on"):
            return f"{name}={os.environ[name]}"
    return ""


def check_hub_reachable(hub_id: str, revision: str = "", timeout_s: float = 5.0) -> None:
    """Returns when the hub has this model for us; raises ModelNotFound that says why not. Never hangs."""
    if reason := offline_reason():
        raise ModelNotFound(
            f"model {hub_id} is not on this machine, and {reason} forbids the download",
            why=f"looked in {hub_cache()}",
            fix=f"unset {reason.partition('=')[0]}, or give a folder, bundled:tiny or shape:NAME",
        )
    answer = hub_answer(f"models/{hub_id}" + (f"/revision/{revision}" if revision else ""), timeout_s)
    if answer == 200:
        return
    raise _refusal(hub_id, revision, hub_address(), answer)


def hub_address() -> str:
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or "https://huggingface.co"


def hub_answer(page: str, timeout_s: float = 5.0) -> int | str:
    """The HTTP status of a page of the hub's API, such as `datasets/OWNER/NAME`, or why there is none. Never hangs."""
    outcome: list[int | str] = []
    url = f"{hub_address()}/api/{page}"
    # name resolution has no timeout of its own, so the whole question runs beside us
    asker = threading.Thread(target=lambda: outcome.append(_ask(url, timeout_s)), daemon=True)
    asker.start()
    asker.join(timeout_s + 1.0)
    return outcome[0] if outcome else f"no answer within {timeout_s:g} s"


def _refusal(hub_id: str, revision: str, address: str, answer: int | str) -> ModelNotFound:
    if answer in (401, 403):  # the hub says 401 for what does not exist, too
        return ModelNotFound(
            f"the hub does not give us {hub_id}",
            why=f"{address} answers {answer}: the name is wrong, or the model is private or behind a licence",
            fix="check the name; accept the licence on its page and set HF_TOKEN",
        )
    if answer == 404:
        what = f"{hub_id} at revision {revision!r}" if revision else hub_id
        return ModelNotFound(f"there is no model {what} on the hub", why=f"{address} answers 404", fix="check the name")
    return ModelNotFound(
        f"model {hub_id} is not on this machine, and the hub cannot be reached",
        why=f"{address}: {answer if isinstance(answer, str) else f'HTTP {answer}'}; looked in {hub_cache()}",
        fix="check the network or proxy (HTTPS_PROXY), or give a folder, bundled:tiny or shape:NAME",
    )


def _ask(url: str, timeout_s: float) -> int | str:
    """The HTTP status, or what went wrong in words."""
    try:
        request = urllib.request.Request(url, headers={"User-Agent": "redline"})
        if token := _token():
            # an unredirected header stays with the host that it is for
            request.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(request, timeout=timeout_s) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code
    except urllib.error.URLError as error:
        return str(error.reason)
    except (OSError, ValueError) as error:
        return str(error) or type(error).__name__


def _token() -> str:
    if token := os.environ.get("HF_TOKEN", "").strip():
        return token
    file = Path(os.environ.get("HF_HOME") or hub_cache().parent).expanduser() / "token"
    try:
        return file.read_text().strip()
    except OSError:
        return ""
