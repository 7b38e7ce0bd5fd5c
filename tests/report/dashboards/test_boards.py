from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from redline.errors import UsageError
from redline.observe.rules.alerts import all_groups
from redline.observe.rules.files import COUNTERS
from redline.observe.rules.rule import Record
from redline.report.dashboards.board import UNITS, Query
from redline.report.dashboards.boards import BOARDS, board
from redline.report.dashboards.grafana import DATASOURCE_UID, datasource_yml, grafana_json
from redline.report.dashboards.picture import Line, draw
from redline.spec.slo import SloSpec

VERSIONS = Path(__file__).with_name("versions.json")
EVERY = [pytest.param(one, id=name) for name, one in BOARDS.items()]


def _digest(one: Any) -> str:
    return hashlib.sha256(repr((one.rows, one.variables)).encode()).hexdigest()[:16]


@pytest.mark.parametrize("one", EVERY)
def test_a_changed_dashboard_has_a_new_version(one: Any) -> None:
    known = json.loads(VERSIONS.read_text())
    assert known[one.uid] == [one.version, _digest(one)], (
        f"{one.uid} has changed: raise its version, and write it with {_digest(one)!r} into {VERSIONS.name}"
    )


@pytest.mark.parametrize("one", EVERY)
def test_recorded_series_that_panels_ask_for_are_recorded(one: Any) -> None:
    recorded = {
        rule.name
        for groups in all_groups(SloSpec(ttft_ms=1)).values()
        for group in groups
        for rule in group.rules
        if isinstance(rule, Record)
    }
    asked = {
        name
        for panel in one.panels
        for query in panel.queries
        for name in re.findall(r"\b(?:engine|gpu|slo):\w+(?::\w+)*", query.expr)
    }
    assert asked <= recorded
    dcgm = {name for panel in one.panels for query in panel.queries for name in re.findall(r"DCGM_\w+", query.expr)}
    assert dcgm <= COUNTERS.keys(), "what the exporter is asked for"


@pytest.mark.parametrize("one", EVERY)
def test_grafanas_json(one: Any) -> None:
    made = json.loads(grafana_json(one))
    assert (made["uid"], made["version"], made["title"]) == (one.uid, one.version, one.title)
    assert grafana_json(one) == grafana_json(one)
    panels = [panel for panel in made["panels"] if panel["type"] == "timeseries"]
    assert [panel["title"] for panel in panels] == [panel.title for panel in one.panels]
    variables = {variable["name"] for variable in made["templating"]["list"]}
    for panel, own in zip(panels, one.panels, strict=True):
        assert [target["expr"] for target in panel["targets"]] == [query.expr for query in own.queries]
        assert len({target["refId"] for target in panel["targets"]}) == len(own.queries)
        assert panel["fieldConfig"]["defaults"]["unit"] == UNITS[own.unit]
        for target in panel["targets"]:
            assert set(re.findall(r"\$(\w+)", target["expr"])) <= variables
    boxes = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in made["panels"]]
    assert len(set(boxes)) == len(boxes), "no two panels in one place"


@pytest.mark.parametrize("one", EVERY)
def test_grafanas_own_types_read_it_back_as_it_was(one: Any) -> None:
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.cog.plugins import register_default_plugins
    from grafana_foundation_sdk.models.dashboard import Dashboard

    register_default_plugins()
    text = grafana_json(one)
    again = json.dumps(Dashboard.from_json(json.loads(text)), cls=JSONEncoder)
    assert json.loads(again) == json.loads(text)


def test_the_datasource_is_the_default_and_read_only() -> None:
    text = datasource_yml("http://127.0.0.1:9090")
    assert f"uid: {DATASOURCE_UID}" in text
    assert "isDefault: true" in text
    assert "editable: false" in text


def test_a_legend_names_labels() -> None:
    assert Query("x", "{{ slo }} of {{instance}} {{none}}").name({"slo": "ttft", "instance": "a:1"}) == "ttft of a:1"


def test_an_unknown_dashboard_has_a_neighbour() -> None:
    with pytest.raises(UsageError, match="did you mean 'engine'"):
        board("engin")


def test_a_picture_without_data_says_so_and_what_it_is() -> None:
    one = BOARDS["client"]
    panel = next(iter(one.panels))
    many = [Line(f"series {place}", (0.0, 1.0), (1.0, float("nan"))) for place in range(12)]
    text = json.dumps(draw(one, {panel: many}, (0.0, 60.0), "http://127.0.0.1:9090"))
    assert "not Grafana" in text
    assert text.count('{"text": {"field": "text"') + text.count('"type": "text"') >= len(list(one.panels)) - 1
    assert "no data" in text
    assert "8 of 12 series are shown" in text
    assert "NaN" not in text
