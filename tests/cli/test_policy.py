"""The verbs of policies and rollouts: what they send, and what they make of the answers."""

import json
import math
import shlex
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from outrider.cli import main
from outrider.cli.commands.policy import per_interval, seconds
from outrider.cli.commands.rollout import spread
from outrider.core.errors import ConfigError
from outrider.service.api.models_policy import PolicyGiven
from tests.support.rest_stub import Asked, RestStub, Say

GROUP = "/api/v1/apps/x/groups/beta"
WORDS = "--app-id=x --group-id=beta"


class PolicyStub:
    """The part of the API that these verbs use, with one group in it. Its tags count the changes."""

    def __init__(self) -> None:
        self.policy: dict[str, Any] = PolicyGiven.model_validate({}).model_dump()
        self.revision = 1
        self.instances = 0
        self.interfere: Callable[[], None] = lambda: None
        self.posted: list[str] = []
        self.patched: list[Any] = []

    def answer(self, asked: Asked) -> Say:
        match asked.method, asked.target:
            case "GET", target if target == f"{GROUP}/policy":
                say = Say(body=self.policy | {"warnings": ["a warning"]}, headers={"ETag": f'"{self.revision}"'})
                self.interfere()
                return say
            case "PUT", target if target == f"{GROUP}/policy":
                return self._put(asked)
            case "GET", target if target == f"{GROUP}/rollout":
                return Say(body={"version": "2.0.0", "state": "halted", "why": "3 failures"})
            case "POST", target if target.startswith(f"{GROUP}/rollout/"):
                self.posted.append(target.rpartition("/")[2])
                return Say(body={"version": "2.0.0", "state": "running"})
            case "GET", target if target.startswith("/api/v1/apps/x/instances?"):
                return Say(body={"items": [{"id": str(number)} for number in range(self.instances)]})
            case "GET" | "PATCH", target if target == GROUP:
                self.patched.append(asked.body)
                shown = {
                    "app": "x",
                    "id": "beta",
                    "label": "",
                    "channel": "c",
                    "paused": False,
                    "slots": 1,
                    "notes": [],
                }
                return Say(body=shown)
            case _:
                detail = f"{asked.method} {asked.target}: Not Found"
                return Say(status=404, body={"kind": "not-found", "detail": detail})

    def _put(self, asked: Asked) -> Say:
        if asked.headers.get("if-match") != f'"{self.revision}"':
            return Say(status=412, body={"kind": "precondition-failed", "detail": "bob has changed it"})
        unknown = asked.body.keys() - self.policy.keys()
        if unknown:
            return Say(status=422, body={"kind": "config", "detail": f"body.{sorted(unknown)[0]}: unknown"})
        self.policy = asked.body
        self.revision += 1
        return Say(body=self.policy)


@pytest.fixture
def group() -> PolicyStub:
    return PolicyStub()


@pytest.fixture
def run(group: PolicyStub) -> Iterator[Callable[..., Result]]:
    with RestStub(group.answer) as stub:

        def typed(command: str, *, code: int = 0) -> Result:
            result = CliRunner().invoke(main, shlex.split(command), env={"OUTRIDER_SERVER": stub.url})
            assert code == result.exit_code, f"{command}: {result.output}{result.exception!r}"
            return result

        yield typed


Run = Callable[..., Result]


def test_a_policy_is_shown_and_its_warnings_go_to_stderr(run: Run) -> None:
    shown = run(f"group policy {WORDS}")
    facts = json.loads(run(f"group policy {WORDS} --json").stdout)

    assert ["Setting", "Value"] == shown.stdout.splitlines()[0].split()
    assert ["percent", "100.0"] in [line.split() for line in shown.stdout.splitlines()]
    assert "warnings" not in shown.stdout
    assert "note: a warning\n" == shown.stderr
    assert 100.0 == facts["percent"]


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ("--max-per-interval=1/5m", {"max_per_interval": {"count": 1, "interval_s": 300}}),
        ("--max-per-interval=none --max-in-progress=2", {"max_per_interval": None, "max_in_progress": 2}),
        ("--percent=12.5 --max-in-progress=none", {"percent": 12.5, "max_in_progress": None}),
        ("--pin=1.2", {"pin": "1.2"}),
        ("--pin=none --max-failures=none", {"pin": "", "max_failures": None}),
        ("--update-timeout=30m --max-failures=2", {"update_timeout_s": 1800, "max_failures": 2}),
        ("--count-new", {"count_new": True}),
        ("--disabled --ignore-timeouts", {"enabled": False, "count_timeouts": False}),
        (
            "--window='fri,sat 22:00-04:00' --window=01:00-02:00",
            {
                "windows": [
                    {"days": ["fri", "sat"], "opens": "22:00", "closes": "04:00"},
                    {"days": [], "opens": "01:00", "closes": "02:00"},
                ]
            },
        ),
        ("--window=none --time-zone=Europe/Berlin", {"windows": [], "time_zone": "Europe/Berlin"}),
        ("--canary=1 --min-healthy=3 --downgrade=asked", {"canary": 1, "min_healthy": 3, "downgrade": "asked"}),
        ("--set pin=1.2", {"pin": 1.2}),
        ("--set 'pin=\"1.2\"'", {"pin": "1.2"}),
        ("--set pin=v1 --set percent=3", {"pin": "v1", "percent": 3}),
        ("--set pin=null", {"pin": None}),
    ],
)
def test_what_is_given_is_changed_and_the_rest_stays(
    run: Run, group: PolicyStub, options: str, changes: dict[str, Any]
) -> None:
    before = dict(group.policy)

    run(f"group policy {WORDS} {options}")

    assert before | changes == group.policy


def test_two_operators_do_not_overwrite_each_other_unseen(run: Run, group: PolicyStub) -> None:
    def interfere() -> None:
        group.revision += 1

    group.interfere = interfere
    before = dict(group.policy)

    result = run(f"group policy {WORDS} --percent=5", code=1)

    assert "Error: bob has changed it\n" == result.stderr
    assert before == group.policy


@pytest.mark.parametrize(
    ("command", "code", "said"),
    [
        (f"group policy {WORDS} --set nonsense=1", 1, "body.nonsense: unknown"),
        (f"group policy {WORDS} --set pin", 2, "write NAME=JSON"),
        (f"group policy {WORDS} --set 'pin={{'", 2, "not JSON"),
        (f"group policy {WORDS} --percent=101", 2, "not in the range"),
        (f"group policy {WORDS} --max-per-interval=5", 1, "write COUNT/DURATION such as 1/5m"),
        (f"group policy {WORDS} --max-failures=0", 1, "--max-failures '0': write a number above 0, or none"),
        (f"group policy {WORDS} --window=nights", 1, "write DAYS OPENS-CLOSES"),
        (f"group policy {WORDS} --window=none --window=01:00-02:00", 1, "write DAYS OPENS-CLOSES"),
        (f"group policy {WORDS} --update-timeout=soon", 1, "write 90s, 5m"),
        (f"group policy {WORDS} --max-in-progress=0", 1, "write a number above 0, or none"),
        ("group policy --app-id=x --group-id=other", 1, "doesn't know this call"),
        (f"group update {WORDS} --update-count=2", 2, "need each other"),
        (f"group update {WORDS} --oem-blacklist=qemu", 1, "put those instances into a group of their own"),
        ("rollout --app-id=x", 2, "Missing option '--group-id'"),
        (f"rollout explode {WORDS}", 3, "no command 'explode'"),
        (f"rollout create linear {WORDS} --duration=0", 2, "not in the range"),
    ],
)
def test_what_cannot_be_set_is_said(run: Run, group: PolicyStub, command: str, code: int, said: str) -> None:
    before = dict(group.policy)

    assert said in run(command, code=code).stderr
    assert before == group.policy


def test_percent_sets_the_share(run: Run, group: PolicyStub) -> None:
    result = run(f"group percent {WORDS} --update-percent=25")

    assert "update percent set to 25.000000\n" == result.stdout
    assert 25.0 == group.policy["percent"]


def test_the_guides_old_rate_is_a_limit_per_interval(run: Run, group: PolicyStub) -> None:
    run(f"group update {WORDS} --update-count=1 --update-interval=300")
    alone = list(group.patched)
    run(f"group update {WORDS} --update-count=2 --update-interval=60 --label=Web")

    assert {"count": 2, "interval_s": 60} == group.policy["max_per_interval"]
    assert [None] == alone
    assert "Web" == group.patched[-1]["label"]


def test_a_rollout_is_shown(run: Run) -> None:
    shown = [line.split() for line in run(f"rollout {WORDS}").stdout.splitlines()]
    facts = json.loads(run(f"rollout {WORDS} --json").stdout)

    assert ["state", "halted"] in shown
    assert "3 failures" == facts["why"]


@pytest.mark.parametrize(
    ("verb", "posted", "said"),
    [
        ("activate", "resume", "rollout activated"),
        ("deactivate", "pause", "rollout deactivated"),
        ("resume", "resume", "rollout resumed"),
        ("pause", "pause", "rollout paused"),
        ("halt", "halt", "rollout halted"),
    ],
)
def test_a_rollout_is_steered(run: Run, group: PolicyStub, verb: str, posted: str, said: str) -> None:
    result = run(f"rollout {verb} {WORDS}")
    facts = json.loads(run(f"rollout {verb} {WORDS} --json").stdout)

    assert said + "\n" == result.stdout
    assert [posted, posted] == group.posted
    assert "running" == facts["state"]


def test_a_linear_rollout_spreads_the_instances_there_are(run: Run, group: PolicyStub) -> None:
    group.instances = 100

    result = run(f"rollout create linear {WORDS} --frame-size=60 --duration=3000")

    assert "rollout set: 2 of 100 instances every 60 seconds\n" == result.stdout
    assert {"count": 2, "interval_s": 60} == group.policy["max_per_interval"]


@given(st.integers(0, 10_000), st.integers(1, 100_000), st.integers(1, 1_000_000))
def test_a_linear_rollout_ends_in_its_time_and_hurries_no_more_than_it_must(
    instances: int, frame_s: int, duration_s: int
) -> None:
    limit = spread(instances, frame_s, duration_s)

    count, interval_s = limit["count"], limit["interval_s"]
    steps = math.ceil(instances / count)
    assert interval_s >= frame_s
    assert max(0, steps - 1) * interval_s < duration_s
    assert count == 1 or math.ceil(instances / (count - 1)) > math.ceil(duration_s / frame_s)


@pytest.mark.parametrize(
    ("text", "wanted"), [("90", 90), ("90s", 90), ("5m", 300), ("1h", 3600), ("1d", 86_400), (" 2m ", 120)]
)
def test_a_duration_is_read(text: str, wanted: int) -> None:
    assert wanted == seconds(text)


@pytest.mark.parametrize("text", ["", "0", "0m", "-1m", "1w", "1.5h", "m", "5 m", "٣m"])
def test_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="write 90s, 5m"):
        seconds(text)


@pytest.mark.parametrize("text", ["1", "0/5m", "a/5m", "1/", "/5m", "-1/5m", "²/5m"])
def test_no_limit_per_interval_is_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        per_interval(text)
