"""Every test is in exactly one ring, and the Makefile runs every ring."""

import re
from typing import Any, cast

import pytest

from tests.conftest import TOGETHER, pytest_collection_modifyitems, pytest_keep_sample, pytest_xdist_make_scheduler
from tests.support.rings import FIRST_RING, FLEET, FLEET_RING, LIVE, OUTER_TIMEOUT_S, ROOT, ring_of, sample_of

MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")


@pytest.mark.parametrize("path", [*FLEET, *LIVE])
def test_what_a_ring_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("path", "ring"),
    [
        ("tests/core/chart/test_load.py", ""),
        ("tests/service/test_admission.py", ""),
        ("tests/service/test_serve.py", "live"),
        ("tests/live/test_kills.py", "live"),
        ("tests/live/test_demo.py", "fleet"),
        ("tests/chaos/test_sample.py", "fleet"),
        ("tests/chaos/test_matrix.py", ""),
        ("tests/packaging/test_install.py", "packages"),
    ],
)
def test_a_path_decides_the_ring(path: str, ring: str) -> None:
    assert ring == ring_of(path)


def test_no_test_chooses_its_ring_itself() -> None:
    """What is written on a test could contradict its path, and then two rings would run it, or none."""
    marks = re.compile(r"mark\.(live|fleet)\b")

    assert [] == [
        str(path.relative_to(ROOT))
        for path in (ROOT / "tests").rglob("*.py")
        if path != ROOT / "tests" / "test_rings.py" and marks.search(path.read_text(encoding="utf-8"))
    ]


class Deselected:
    """A pytest configuration that notes what is left out."""

    def __init__(self) -> None:
        self.hook, self.items = self, list[Any]()

    def pytest_deselected(self, items: list[Any]) -> None:
        self.items += items


def test_the_parts_of_a_ring_are_the_whole_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    """``make test-long sample=1/3``; no test is in two parts."""
    every, parts = list(range(100)), []
    for part in (1, 2, 3):
        monkeypatch.setenv("OUTRIDER_TEST_SAMPLE", f"{part}/3")
        config: Any = Deselected()
        kept: Any = list(every)
        pytest_keep_sample(config, kept)
        assert every == sorted([*kept, *config.items])
        parts.append(kept)

    assert every == sorted([*parts[0], *parts[1], *parts[2]])
    assert [34, 33, 33] == [len(part) for part in parts]


def test_without_a_sample_a_ring_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OUTRIDER_TEST_SAMPLE", raising=False)
    kept: Any = [1, 2, 3]

    pytest_keep_sample(cast(Any, None), kept)

    assert [1, 2, 3] == kept


@pytest.mark.parametrize("given", ["3", "0/3", "4/3", "a/b", "1/", "/2", "1/2/3"])
def test_what_is_no_part_is_said(given: str) -> None:
    with pytest.raises(pytest.UsageError, match=f"OUTRIDER_TEST_SAMPLE={given}: not a part like 2/5"):
        sample_of(given)


class Collected:
    """A test as pytest hands it to conftest: what it is called, and what was marked on it."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid, self.marks = nodeid, dict[str, Any]()

    def get_closest_marker(self, name: str) -> object:
        return self.marks.get(name)

    def add_marker(self, mark: Any) -> None:
        self.marks[mark if isinstance(mark, str) else mark.name] = mark if isinstance(mark, str) else mark.args


def test_markers_and_deadlines_follow_the_path() -> None:
    """Each ring gets its own tests, and those of the outer rings more time."""
    hanging, demo, jobs, kit, fussy = every = [
        Collected(f"tests/{path}")
        for path in (
            "live/test_hanging.py::test_a",
            "live/test_demo.py::test_b",
            "verify/test_jobs.py::test_c",
            "contracts/test_runtimes.py::test_d[docker]",
            "live/test_hanging.py::test_e",
        )
    ]
    kit.add_marker("live")  # by the parameter that names the kit
    fussy.add_marker(pytest.mark.timeout(7))

    pytest_collection_modifyitems(cast(Any, every))

    assert {"live": "live", "timeout": (OUTER_TIMEOUT_S,)} == hanging.marks
    assert {"fleet": "fleet", "timeout": (OUTER_TIMEOUT_S,)} == demo.marks
    assert {"live": "live", "timeout": (OUTER_TIMEOUT_S,)} == kit.marks
    assert {"live": "live", "timeout": (7,)} == fussy.marks
    assert {} == jobs.marks
    assert jobs is every[0], "what takes seconds is begun first"


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        ("test", FIRST_RING),
        ("test-live", "live and not long"),
        ("test-fleet", FLEET_RING),
        ("test-long", "long"),
    ],
)
def test_the_makefile_runs_each_ring_by_its_marker(target: str, chosen: str) -> None:
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)

    assert recipe is not None
    assert f'-m "{chosen}"' in recipe[1]


class Scheduled:
    """A run as xdist's scheduler sees it: its options, and one worker that is told what to run."""

    def __init__(self, markexpr: str) -> None:
        self.option, self.markexpr, self.loadscopereorder = self, markexpr, True
        self.told, self.shutting_down, self.gateway = list[int](), False, self
        self.id = "gw0"

    def getvalue(self, name: str) -> list[str]:
        assert name == "tx"
        return ["popen"]

    def send_runtest_some(self, indices: list[int]) -> None:
        self.told += indices

    def shutdown(self) -> None:
        self.shutting_down = True


def schedule(run: Scheduled, tests: list[str]) -> Any:
    made = pytest_xdist_make_scheduler(cast(Any, run), None)
    made.add_node(run)
    made.add_node_collection(run, tests)
    made.schedule()
    return made


def test_tests_of_one_file_are_given_out_together_in_the_first_ring_alone() -> None:
    """
    1. eight tests of a file are one piece of work, a test that takes seconds is one, and so is a file for one worker
    2. in any other ring each test is a piece of its own
    """
    tests = [
        *(f"tests/service/api/test_schemathesis.py::test_{number}" for number in range(TOGETHER + 1)),
        *(f"tests/verify/test_jobs.py::test_{number}" for number in range(2)),
        *(f"tests/test_log.py::test_{number}" for number in range(TOGETHER + 1)),
    ]

    def sizes(ring: str) -> list[int]:
        run = Scheduled(ring)
        made = schedule(run, tests)
        return [len(piece) for piece in (*made.assigned_work[run].values(), *made.workqueue.values())]

    assert [TOGETHER + 1, 1, 1, TOGETHER, 1] == sizes(FIRST_RING)
    assert [1] * len(tests) == sizes("live and not long")


def test_every_test_is_given_out_once_and_what_is_done_is_forgotten() -> None:
    tests = [f"tests/test_{file}.py::test_{number}" for file in "abc" for number in range(2 * TOGETHER + 1)]
    run = Scheduled(FIRST_RING)
    made = schedule(run, tests)

    for index in range(len(tests)):
        assert index in run.told
        made.mark_test_complete(run, index)

    assert list(range(len(tests))) == run.told
    assert {run: {}} == made.assigned_work
    assert made.tests_finished
    assert not made.has_pending
