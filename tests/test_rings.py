"""Every test is in exactly one ring, and the Makefile runs every ring."""

import os
import re
import subprocess
import sys

import pytest

from tests.support.rings import FIRST_RING, FLEET, LIVE, OUTER_TIMEOUT_S, ROOT, ring_of, sample_of

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


def test_the_parts_of_a_ring_are_the_whole_ring() -> None:
    """Collected as for ``make test-long sample=1/3``; no test is in two parts."""

    def collected(sample: str) -> list[str]:
        command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", "-m", "not live"]
        done = subprocess.run(
            [*command, "tests/test_rings.py"],
            cwd=ROOT,
            env=os.environ | {"OUTRIDER_TEST_SAMPLE": sample},
            capture_output=True,
            text=True,
            timeout=240,
            check=True,
        )
        return [line for line in done.stdout.splitlines() if "::" in line]

    parts = [collected(f"{part}/3") for part in (1, 2, 3)]

    assert sorted([*parts[0], *parts[1], *parts[2]]) == sorted(collected(""))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("given", ["3", "0/3", "4/3", "a/b", "1/", "/2", "1/2/3"])
def test_what_is_no_part_is_said(given: str) -> None:
    with pytest.raises(pytest.UsageError, match=f"OUTRIDER_TEST_SAMPLE={given}: not a part like 2/5"):
        sample_of(given)


def test_markers_and_deadlines_follow_the_path() -> None:
    """Collected as the Makefile collects: each ring gets its own tests, and those of the outer rings more time."""
    files = ("tests/live/test_hanging.py", "tests/live/test_demo.py", "tests/verify/test_jobs.py")
    plugin = (
        "import pytest, sys\n"
        "class Told:\n"
        "    def pytest_collection_finish(self, session):\n"
        "        for one in session.items:\n"
        "            limit = one.get_closest_marker('timeout')\n"
        "            rings = [name for name in ('live', 'fleet') if one.get_closest_marker(name)]\n"
        "            print('TOLD', one.nodeid.partition('::')[0], *rings, limit.args[0] if limit else 'default')\n"
        "sys.exit(pytest.main(['--collect-only', '-q', '-p', 'no:cacheprovider', *sys.argv[1:]], plugins=[Told()]))\n"
    )
    command = [sys.executable, "-c", plugin, *files]

    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240, check=True).stdout

    assert {
        f"tests/live/test_hanging.py live {OUTER_TIMEOUT_S}",
        f"tests/live/test_demo.py fleet {OUTER_TIMEOUT_S}",
        "tests/verify/test_jobs.py default",
    } == {line.removeprefix("TOLD ") for line in said.splitlines() if line.startswith("TOLD ")}


@pytest.mark.parametrize(
    ("target", "chosen"),
    [
        ("test", FIRST_RING),
        ("test-live", "live and not long"),
        ("test-fleet", "fleet and not long"),
        ("test-long", "long"),
    ],
)
def test_the_makefile_runs_each_ring_by_its_marker(target: str, chosen: str) -> None:
    recipe = re.search(rf"^{target}:.*\n((?:\t.*\n)+)", MAKEFILE, re.MULTILINE)

    assert recipe is not None
    assert f'-m "{chosen}"' in recipe[1]
