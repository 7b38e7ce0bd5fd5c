"""Dashboards as Grafana's JSON, by its own typed builders, and the files by which a Grafana takes them in."""

from __future__ import annotations

import json
from typing import Any

import yaml

from redline.errors import EnvironmentFault
from redline.report.dashboards.board import UNITS, Board, Panel

DATASOURCE_UID = "redline-prometheus"
FOLDER = "/etc/grafana/redline-dashboards"
"""Where Grafana's container finds them."""
_WIDTH, _HEIGHT = 12, 8


def grafana_json(board: Board) -> str:
    """EnvironmentFault without grafana-foundation-sdk. Bytes change only with the board or the SDK's version."""
    try:
        from grafana_foundation_sdk.cog.encoder import JSONEncoder
    except ImportError as error:
        raise EnvironmentFault(
            "grafana-foundation-sdk is not installed",
            why="it builds the dashboards",
            fix="pip install 'redline[monitoring]'",
        ) from error
    return json.dumps(_build(board), cls=JSONEncoder, indent=2, sort_keys=True, ensure_ascii=False) + "\n"


def _build(board: Board) -> Any:
    from grafana_foundation_sdk.builders import dashboard
    from grafana_foundation_sdk.models import dashboard as models

    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(f"{board.text} (version {board.version}, written by redline)")
        .version(board.version)
        .tags(["redline", f"redline-version-{board.version}"])
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-30m", "now")
        .refresh("10s")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Prometheus").type("prometheus"))
        .annotation(_alerts())
    )
    for name, query in board.variables:
        everything = models.VariableOption(text="All", value="$__all", selected=True)
        variable = dashboard.QueryVariable(name).datasource(_source()).query(query).current(everything)
        refresh = models.VariableRefresh.ON_TIME_RANGE_CHANGED
        built = built.with_variable(variable.multi(True).include_all(True).all_value(".*").refresh(refresh))
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(_panel(panel))
    return built.build()


def _alerts() -> Any:
    """Firing alerts as marks in every panel."""
    from grafana_foundation_sdk.builders import dashboard

    query = 'ALERTS{alertstate="firing", severity!="info"}'
    return dashboard.AnnotationQuery().name("Alerts").datasource(_source()).enable(True).icon_color("red").expr(query)


def _panel(panel: Panel) -> Any:
    from grafana_foundation_sdk.builders import common, prometheus, timeseries
    from grafana_foundation_sdk.models import common as models

    legend = (
        common.VizLegendOptions()
        .display_mode(models.LegendDisplayMode.LIST)
        .placement(models.LegendPlacement.BOTTOM)
        .show_legend(True)
    )
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.text)
        .unit(UNITS[panel.unit])
        .min(0)
        .datasource(_source())
        .height(_HEIGHT)
        .span(_WIDTH)
        .legend(legend)
        .tooltip(common.VizTooltipOptions().mode(models.TooltipDisplayMode.MULTI))
        .fill_opacity(8)
        .no_value("no data")
    )
    if panel.most is not None:
        built = built.max(panel.most)
    for letter, query in zip("ABCDEFGH", panel.queries, strict=False):
        one = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(letter).range()
        built = built.with_target(one)
    return built


def _source() -> Any:
    from grafana_foundation_sdk.models import dashboard as models

    return models.DataSourceRef(type_val="prometheus", uid="${datasource}")


def datasource_yml(url: str) -> str:
    """A file for provisioning/datasources/."""
    source = {
        "name": "redline", "uid": DATASOURCE_UID, "type": "prometheus", "access": "proxy", "url": url,
        "isDefault": True, "editable": False, "jsonData": {"timeInterval": "5s", "httpMethod": "POST"},
    }  # fmt: skip
    return yaml.safe_dump({"apiVersion": 1, "datasources": [source]}, sort_keys=False)


def provider_yml(folder: str = FOLDER) -> str:
    """A file for provisioning/dashboards/."""
    provider = {
        "name": "redline", "type": "file", "folder": "redline", "disableDeletion": True, "allowUiUpdates": False,
        "options": {"path": folder},
    }  # fmt: skip
    return yaml.safe_dump({"apiVersion": 1, "providers": [provider]}, sort_keys=False)
