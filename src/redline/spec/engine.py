"""WHO serves: one engine configuration."""

from __future__ import annotations

import json
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from redline.spec.record import Number, Spec, Whole, fault


def _flag_value(value: Any) -> Any:
    """A mapping becomes the JSON text that engines take (`speculative-config`), list items become text."""
    if isinstance(value, dict):
        return json.dumps(value)
    if isinstance(value, list | tuple):
        return [item if isinstance(item, str) else json.dumps(item) for item in value]
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53:
        raise fault(f"{value} is beyond what JSON keeps exact", fix="write it in quotes")
    return value


FlagValue = Annotated[bool | int | float | str | list[str], BeforeValidator(_flag_value)]


class EngineSpec(Spec):
    """One way to serve the model. `kind` names the adapter; `name` labels this configuration and is unique.

    `flags` go to the engine as its own command line has them (`max-num-seqs: 64`, `enforce-eager: true`), checked
    against the installed engine's own argument list before anything starts.
    """

    kind: str = Field(min_length=1, description="adapter: transformers, vllm, url, or one that a plug-in brings")
    name: str = Field("", description="label in tables; the kind when empty")
    python: str = Field(
        "", description="Python interpreter (or virtual environment) that has the engine; ours when empty"
    )
    flags: dict[str, FlagValue] = Field(
        default_factory=dict, description="the engine's own flags, without dashes in front"
    )
    env: dict[str, str] = Field(default_factory=dict, description="environment variables for the engine alone")
    url: str = Field("", description="for kind url: http://host:port/v1 of a running server")
    api_key_env: str = Field("", description="name of the environment variable that holds the API key")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Whole = Field(0, ge=0, le=65535, description="0 picks a free port")
    keep_up: bool = Field(False, description="stay up beside the other engines for all rounds; a url always is")
    startup_timeout_s: Number = Field(900.0, gt=0, description="give up when it is not ready by then")
    stop_timeout_s: Number = Field(15.0, gt=0, description="grace after SIGTERM before SIGKILL")

    @property
    def label(self) -> str:
        return self.name or self.kind

    @field_validator("flags", mode="after")
    @classmethod
    def _bare_flag_names(cls, flags: dict[str, FlagValue]) -> dict[str, FlagValue]:
        for name in flags:
            if name.startswith("-") or not name.strip() or "=" in name:
                raise fault(f"flag {name!r} is not a bare name", fix=f"write {name.lstrip('-').partition('=')[0]!r}")
        return flags

    @field_validator("env", mode="before")
    @classmethod
    def _whole_numbers_are_text(cls, env: Any) -> Any:
        """`OMP_NUM_THREADS: 2` is what everybody writes; an environment holds text."""
        if not isinstance(env, dict):
            return env
        return {key: str(item) if type(item) is int else item for key, item in env.items()}

    @model_validator(mode="after")
    def _url_goes_with_kind_url(self) -> Self:
        if self.kind == "url" and not self.url:
            raise fault("kind url needs the address of the server", field="url", fix="url: http://host:port/v1")
        if self.kind == "url" and not self.url.startswith(("http://", "https://")):
            raise fault(
                f"{self.url!r} does not start with http:// or https://", field="url", fix="url: http://host:port/v1"
            )
        if self.url and self.kind != "url":
            raise fault(f"only kind url takes a url, and this is kind {self.kind}", field="url", fix="kind: url")
        return self
