"""[analysis]: tables of checks arrive in their types, and a mistake in one is a line that names check and key."""

import json
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner

from outrider.cli import main
from outrider.config.analysis import AnalysisCheck, AnalysisSettings, filled
from outrider.config.load import load_settings
from outrider.core.errors import ConfigError
from tests.config.test_load import BASE

PAGE = Path(__file__).parents[2] / "docs/use/analysis.md"
CHECK = "[[analysis.checks]]\nname = 'errors'\n"
PROMETHEUS = f"{CHECK}kind = 'prometheus'\nurl = 'http://p:9090'\nquery = 'up'\ncondition = '< 1'\n"


def load(folder: Path, text: str, environment: dict[str, str] | None = None) -> AnalysisSettings:
    path = folder / "site.toml"
    path.write_text(BASE + text)
    return load_settings((path,), environment).settings.analysis


def test_nothing_is_analysed_unless_it_is_said(tmp_path: Path) -> None:
    assert not load(tmp_path, "").is_wanted
    assert load(tmp_path, PROMETHEUS).is_wanted
    assert load(tmp_path, "[analysis]\ncompare = 'app'").is_wanted


def test_checks_arrive_in_their_types_from_a_file_or_a_variable(tmp_path: Path) -> None:
    check = load(tmp_path, PROMETHEUS + "timeout_s = 2\n").checks[0]
    variable = {"OUTRIDER_ANALYSIS_CHECKS": '[{"name": "x", "kind": "command", "command": ["true"]}]'}

    assert ("errors", "prometheus", 2.0, 1) == (check.name, check.kind, check.timeout_s, check.failures)
    assert ("true",) == load(tmp_path, "", variable).checks[0].command


def test_config_show_prints_them(tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_text(BASE + PROMETHEUS)

    shown = CliRunner().invoke(main, ["config", "show", "--json", "--config", str(path)])

    assert 0 == shown.exit_code, shown.output
    assert "errors" == json.loads(shown.stdout)["analysis.checks"]["value"][0]["name"]


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"{CHECK}kind = 'x'", "analysis.checks: [0].kind: invalid enum value 'x'"),
        (f"{CHECK}kind = 'http'\nurl = 'http://h'\ncolour = 1", "[0]: object contains unknown field colour"),
        (f"{CHECK}kind = 'http'", "[0] errors: url: missing, for its kind is http"),
        (f"{CHECK}kind = 'prometheus'\nurl = 'http://h'\nquery = 'up'", "[0] errors: condition: missing"),
        (f"{CHECK}kind = 'command'", "[0] errors: command: missing"),
        (f"{CHECK}kind = 'command'\ncommand = ['x']\nquery = 'up'", "[0] errors: query: has no effect"),
        (PROMETHEUS.replace("< 1", "under 1"), "[0] errors: condition: 'under 1': wanted: one of"),
        (PROMETHEUS.replace("http://p", "p"), "[0] errors: url: 'p:9090': no http address"),
        (PROMETHEUS + PROMETHEUS, "[1]: a check called 'errors' is there already"),
        (PROMETHEUS + "failures = 0", "failures at least 1"),
        (PROMETHEUS + "token_file = '/no/such'", "token_file: /no/such: no such file"),
        (PROMETHEUS + "timeout_s = 600", "timeout_s is not below analysis.deadline_s"),
        ("[analysis]\nduration_s = 600", "analysis.deadline_s: is not above analysis.duration_s (600)"),
        ("[analysis]\nratio = 1", "analysis.ratio: 1 is too small; more than 1"),
        ("[analysis]\nratio = 5\nbase_rate = 0.4", "analysis.ratio: times analysis.base_rate (0.4) is more than"),
        ("[analysis]\ncompare = 'haproxy'", "analysis.counts_urls: missing, for analysis.compare is haproxy"),
        ("[analysis]\ncompare = 'metrics'\ncounts_urls = ['http://h/m']", "analysis.metric: missing"),
        (
            "[analysis]\ncompare = 'metrics'\ncounts_urls = ['http://h/m']\nmetric = 'hits'",
            "analysis.labels: all servers would have the same counts",
        ),
        ("[analysis]\nerror_pattern = '('", "analysis.error_pattern: '(': not a regular expression"),
        ("[analysis]\nundecided = 'wait'", "analysis.undecided: 'wait' is not one of pause, pass, fail"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_check(tmp_path: Path, text: str, line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, text)

    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_placeholders_are_replaced() -> None:
    query = 'up{job="x", instance="{host}:{port}"} / {colour}'

    assert 'up{job="x", instance="h:1"} / {colour}' == filled(query, {"host": "h", "port": "1"})


def test_each_key_of_a_check_stands_on_the_page_with_its_default() -> None:
    page = PAGE.read_text()

    for field in msgspec.structs.fields(AnalysisCheck):
        row = next((line for line in page.splitlines() if line.startswith(f"| `{field.name}` |")), "")
        assert row, field.name
        if isinstance(field.default, int | float):
            assert f"| {field.default:g} |" in row
