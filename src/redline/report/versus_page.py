"""Sections as one plain page that needs no network: a table each, light and dark."""

from __future__ import annotations

from collections.abc import Sequence

from redline.report.section import Section

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ title }}</title><style>
:root { color-scheme: light dark; font: 15px/1.5 system-ui, sans-serif }
body { max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
svg { overflow: visible }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { text-align: left; padding: .25rem .8rem .25rem 0; border-bottom: 1px solid #8884; vertical-align: top }
.note { opacity: .75; margin: .2rem 0 }
</style></head><body><h1>{{ title }}</h1>
{% for section in sections %}<h2>{{ section.title }}</h2>
{% if section.rows %}<div class="wide"><table><thead><tr>
{% for head in section.heads %}<th>{{ head }}</th>{% endfor %}</tr></thead><tbody>
{% for row in section.rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>{% endif %}
{% for note in section.notes %}<p class="note">{{ note }}</p>
{% endfor %}{% endfor %}
{% for note in notes %}<p class="note">{{ note }}</p>
{% endfor %}</body></html>
"""


def page(title: str, sections: Sequence[Section], notes: Sequence[str] = ()) -> str:
    from jinja2 import Environment, StrictUndefined

    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_PAGE)
    return template.render(title=title, sections=sections, notes=notes)
