"""Chat templates: jinja2 in a sandbox, with what templates expect of transformers (5.17, `chat_template_utils`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from redline.engines.hf_server.fault import bad


class Generation(jinja2.ext.Extension):
    """`{% generation %}` marks the assistant's words for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 -- the attribute is jinja2's

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@dataclass
class ChatTemplate:
    """`sources` by name: `default`, and `tool_use` where a model has one for tools."""

    sources: Mapping[str, str]
    special: Mapping[str, str]
    _ready: dict[str, jinja2.Template] = field(default_factory=dict)

    @classmethod
    def find(cls, folder: Path, config: Mapping[str, Any], special: Mapping[str, str]) -> ChatTemplate:
        """From `chat_template.jinja`, the folder `additional_chat_templates`, or the tokenizer's configuration."""
        files = {"default": folder / "chat_template.jinja"}
        files |= {path.stem: path for path in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
        found = {name: path.read_text("utf-8") for name, path in files.items() if path.is_file()}
        listed = config.get("chat_template")
        if not found and isinstance(listed, str):
            found = {"default": listed}
        elif not found and isinstance(listed, list):
            found = {str(one["name"]): str(one["template"]) for one in listed}
        return cls(found, special)

    def render(
        self,
        messages: Sequence[Mapping[str, Any]],
        tools: Sequence[Mapping[str, Any]] | None,
        options: Mapping[str, Any],
    ) -> str:
        """The prompt. 400 when there is no template, or when it rejects the messages."""
        name = "tool_use" if tools and "tool_use" in self.sources else "default"
        if name not in self.sources:
            raise bad("this model has no chat template; use /v1/completions", "messages")
        values = {"add_generation_prompt": True, "documents": None, **self.special, **options}
        try:
            if name not in self._ready:
                self._ready[name] = environment().from_string(self.sources[name])
            return self._ready[name].render(messages=messages, tools=tools or None, **values)
        except Exception as error:  # a template is a program of somebody else's
            raise bad(f"the chat template rejects these messages: {error}", "messages") from error


def environment() -> ImmutableSandboxedEnvironment:
    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _raise
    made.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return made


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own escapes HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
