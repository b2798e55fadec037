"""The matrix is whole: made from the list of failpoints and the chart, every row with a way to it."""

import re
from pathlib import Path

import pytest

from outrider.failpoints import FAILPOINTS_OF
from outrider.runtimes import docker
from tests.chaos import matrix
from tests.chaos.__main__ import main
from tests.chaos.matrix import (
    CONTAINER_FAULTS,
    FAULTS,
    UNREACHED,
    Row,
    cases,
    container_cases,
    container_rows,
    rows,
    sample,
    scenario_of,
    strategy_of,
    unlisted_failpoints,
)
from tests.chaos.scenarios import SCENARIOS


def test_a_case_that_there_is_not_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["tests.chaos", "--only", "analysis.start"])

    with pytest.raises(SystemExit) as ended:
        main()

    assert 2 == ended.value.code
    assert "no case is called 'analysis.start'" in capsys.readouterr().err


def test_every_row_has_a_scenario_that_exists() -> None:
    assert {scenario_of(row) for row in rows()} <= set(SCENARIOS)


def test_every_failpoint_is_in_a_row() -> None:
    assert set() == unlisted_failpoints()


def test_an_effect_without_a_scenario_is_named() -> None:
    with pytest.raises(LookupError, match=r"balancer\.paint/entry\.write: no scenario brings a sidekick there"):
        scenario_of(Row(effect="balancer.paint", point="entry.write"))


def test_what_is_said_to_be_unreached_is_a_row_and_has_a_reason() -> None:
    known = {f"{effect}/{point}" for effect, points in FAILPOINTS_OF.items() for point in points}

    assert set(UNREACHED) <= known
    assert all(UNREACHED.values())


def test_no_scenario_is_named_for_nothing() -> None:
    names = {row.name for row in rows()} | {row.effect for row in rows()}

    assert set(matrix.SCENARIOS) <= names


def test_there_are_ten_cases_to_a_row() -> None:
    assert len(rows()) * 2 * len(FAULTS) == len({case.name for case in cases()})


@pytest.mark.parametrize("strategy", ["start-first", "stop-first"])
def test_any_beginning_of_a_sample_has_each_fault(strategy: str) -> None:
    chosen = list(sample(3, strategy))  # type: ignore[arg-type]

    assert set(FAULTS) == {case.fault for case in chosen[: len(FAULTS)]}
    assert {case.name for case in cases() if strategy_of(case.row) == strategy} == {case.name for case in chosen}
    assert chosen != list(sample(4, strategy))  # type: ignore[arg-type]


def test_the_rows_with_containers_are_rows_and_their_cases_have_names_of_their_own() -> None:
    known = {row.name for row in rows()}

    assert {row.name for row in container_rows()} <= known
    assert not {case.name for case in container_cases()} & {case.name for case in cases()}
    assert len(container_rows()) * 2 * len(CONTAINER_FAULTS) == len({case.name for case in container_cases()})


def test_what_docker_does_of_a_start_and_an_end_is_in_a_row_with_containers() -> None:
    """Every failpoint that the runtime sets, but for the prune, which kills nothing that runs."""
    folder = Path(docker.__file__).parent
    marks = set(re.findall(r'failpoint\("([a-z.]+)"\)', "".join(path.read_text() for path in folder.glob("*.py"))))

    assert marks - {"workload.prune"} == {row.point for row in container_rows()}
