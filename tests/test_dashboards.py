"""Alert rules and dashboard use metrics and labels that outrider really exposes, and lead to a section of a page."""

import json
import re
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import requests
import yaml

from outrider.balancers.agent import gauges as agent_gauges
from outrider.shipped import shipped
from outrider.sidekick import gauges as sidekick_gauges
from tests.support.service import Service
from tests.support.service_examples import make_app

ROOT = Path(__file__).parent.parent
RULES: list[dict[str, Any]] = yaml.safe_load((shipped("dashboards") / "alerts.yml").read_text())["groups"][0]["rules"]
DASHBOARD: dict[str, Any] = json.loads((shipped("dashboards") / "grafana.json").read_text())
OPERATIONS = (ROOT / "docs/use/operations.md").read_text()
ACTIVITY = (ROOT / "docs/use/activity.md").read_text()
_NAME = re.compile(r"outrider_[a-z_]+")


def expressions() -> list[str]:
    panels = [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in RULES] + panels


def names_in(expression: str) -> set[str]:
    """The metrics of an expression, a histogram's without its suffix."""
    found = _NAME.findall(re.sub(r'"[^"]*"', '""', expression))
    return {re.sub(r"_(bucket|count|sum)$", "", name) if "request_seconds" in name else name for name in found}


def slugs(page: str) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    return {
        re.sub(r"[^\w\- ]", "", head.lower()).strip().replace(" ", "-")
        for head in re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    }


def test_every_metric_that_is_asked_for_is_exposed(service: Service) -> None:
    """What a running service tells, and what sidekicks and agents may tell: ``text_of`` takes no other name."""
    make_app(service.store)
    scraped = requests.get(f"{service.url}/metrics", timeout=60).text
    told = set(re.findall(r"^# TYPE (\S+)", scraped, re.MULTILINE))
    exposed = {*told, *sidekick_gauges.HELPS, *agent_gauges.HELPS}

    assert {"outrider_turns", "outrider_grants_total"} <= told
    assert all(names_in(expression) for expression in expressions())
    asked = {name for expression in expressions() for name in names_in(expression)}
    assert set() == asked - exposed
    assert {"outrider_sidekick_mood"} == names_in("rate(outrider_sidekick_mood[5m]) > 0") - exposed


@pytest.mark.parametrize("expression", expressions())
def test_every_expression_is_promql(expression: str) -> None:
    promql_parser.parse(expression)


@pytest.mark.parametrize(
    "expression", ["sum by (app (outrider_turns) > 0", "changes(outrider_turns) == 0", "outrider_turns{state=dirty}"]
)
def test_what_prometheus_would_refuse_is_found_out(expression: str) -> None:
    with pytest.raises(ValueError):
        promql_parser.parse(expression)


def test_every_metric_of_sidekicks_and_agents_is_on_the_page() -> None:
    told = set(re.findall(r"^\| `(outrider_(?:sidekick|agent)_\w+)`", ACTIVITY, re.MULTILINE))

    assert {*sidekick_gauges.HELPS, *agent_gauges.HELPS} == told


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])
def test_every_alert_says_what_it_is_and_leads_to_its_symptom(rule: dict[str, Any]) -> None:
    page, _, anchor = rule["annotations"]["runbook"].partition("#")

    assert "docs/use/operations.md" == page
    assert anchor in slugs(OPERATIONS)
    assert f"| `{rule['alert']}` | [" in OPERATIONS
    assert rule["annotations"]["summary"].endswith(".")
    assert rule["labels"]["severity"] in ("info", "warning", "critical")
    assert re.fullmatch(r"\d+[smhd]", rule["for"])


def test_links_within_the_page_lead_somewhere() -> None:
    anchors = set(re.findall(r"\]\(#([^)]+)\)", OPERATIONS))

    assert set() == anchors - slugs(OPERATIONS)


def test_every_alert_and_panel_is_there_once() -> None:
    names = [rule["alert"] for rule in RULES]
    ids = [panel["id"] for panel in DASHBOARD["panels"]]

    assert len(names) == len(set(names)) > 10
    assert len(ids) == len(set(ids)) > 10
