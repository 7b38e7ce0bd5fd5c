"""WHO serves: one engine configuration."""

from __future__ import annotations

from pydantic import Field

from redline.spec.record import Spec

FlagValue = bool | int | float | str | list[str]


class EngineSpec(Spec):
    """One way to serve the model. `kind` names the adapter; `name` labels this configuration and is unique.

    `flags` go to the engine as its own command line has them (`max-num-seqs: 64`, `enforce-eager: true`), checked
    against the installed engine's own argument list before anything starts.
    """

    kind: str = Field(description="adapter: transformers, vllm, url, or one that a plug-in brings")
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
    port: int = Field(0, ge=0, le=65535, description="0 picks a free port")
    startup_timeout_s: float = Field(900.0, gt=0, description="give up when it is not ready by then")
    stop_timeout_s: float = Field(15.0, gt=0, description="grace after SIGTERM before SIGKILL")

    @property
    def label(self) -> str:
        return self.name or self.kind
