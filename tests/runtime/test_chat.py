from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from redline.engines.hf_server.fault import ApiError
from redline.runtime.chat import ChatTemplate
from redline.runtime.tokenizer import Tokenizer
from redline.spec.model import ModelSpec
from redline.spec.resolve import resolve_model

MESSAGES = [
    {"role": "user", "content": "<a> & 'b'"},
    {"role": "assistant", "content": "ü"},
    {"role": "user", "content": "c"},
]
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object", "properties": {"é": {}}}}}]
TEMPLATES = {
    "whitespace": "{% for m in messages %}\n    {%- if loop.first %}\n  1\n    {% endif %}\n{{ m.role }}{% endfor %}",
    "tools": "{% if tools %}{{ tools | tojson }}|{{ tools[0] | tojson(indent=2) }}{% endif %}{{ messages | length }}",
    "loops": "{% for m in messages %}{% if loop.index0 == 1 %}{% continue %}{% endif %}{{ m.content }}{% endfor %}",
    "break": "{% for m in messages %}{{ m.content }}{% if loop.index0 == 1 %}{% break %}{% endif %}{% endfor %}",
    "generation": "{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}",
    "space": "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
    "tokens": "{{ bos_token }}{{ messages[0].content | trim }}{{ eos_token }}{{ add_generation_prompt }}",
    "date": "{{ strftime_now('%Y') }}{{ extra }}",
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("tools", [None, TOOLS])
def test_against_transformers(name: str, tools: Any) -> None:
    rendering: Any = pytest.importorskip("transformers.utils.chat_template_utils")
    special, options = {"bos_token": "<s>", "eos_token": "</s>"}, {"add_generation_prompt": True, "extra": 3}
    expected = rendering.render_jinja_template([MESSAGES], tools, None, TEMPLATES[name], **options, **special)
    whole = expected[0][0] if isinstance(expected, tuple) else expected
    ours = ChatTemplate({"default": TEMPLATES[name]}, special).render(MESSAGES, tools, options)
    assert ours == whole


def test_the_bundled_model_against_transformers() -> None:
    folder = resolve_model(ModelSpec(id="bundled:tiny")).path
    assert folder is not None
    reference = pytest.importorskip("transformers").AutoTokenizer.from_pretrained(folder)
    ours = Tokenizer(folder)
    for prompt in (True, False):
        text = ours.template.render(MESSAGES, None, {"add_generation_prompt": prompt})
        assert text == reference.apply_chat_template(MESSAGES, tokenize=False, add_generation_prompt=prompt)
        ids = reference.apply_chat_template(MESSAGES, add_generation_prompt=prompt, return_dict=False)
        assert ours.encode(text, special=False) == ids


def rejects(source: str, match: str) -> None:
    with pytest.raises(ApiError, match=match) as caught:
        ChatTemplate({"default": source}, {}).render(MESSAGES, None, {})
    assert (caught.value.status, caught.value.param) == (400, "messages")


def test_what_a_template_may_say_and_may_not_do() -> None:
    rejects("{{ raise_exception('roles must alternate') }}", "roles must alternate")
    rejects("{{ ''.__class__.__mro__ }}", "unsafe|access")
    rejects("{{ messages.append(1) }}", "unsafe|not safely callable")
    rejects("{% for %}", "rejects")


def test_without_a_template() -> None:
    with pytest.raises(ApiError, match="no chat template"):
        ChatTemplate({}, {}).render(MESSAGES, None, {})


def test_where_templates_are_found(tmp_path: Path) -> None:
    listed = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "with tools"}]
    found = ChatTemplate.find(tmp_path, {"chat_template": listed}, {})
    assert (found.render([], None, {}), found.render([], TOOLS, {})) == ("plain", "with tools")
    assert ChatTemplate.find(tmp_path, {"chat_template": "one"}, {}).render([], TOOLS, {}) == "one"
    (tmp_path / "chat_template.jinja").write_text("of its own {{ bos_token }}")
    found = ChatTemplate.find(tmp_path, json.loads(json.dumps({"chat_template": "one"})), {"bos_token": "^"})
    assert found.render([], None, {}) == "of its own ^"
