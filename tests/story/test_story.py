"""An update can be told from its journal."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from outrider.cli.main import main
from outrider.core.sidekick.events import LockFailed, OperatorPaused, TimerExpired, WorkloadExited
from outrider.journal.journal import Journal, read
from outrider.story import Moment, Story, lines_of, read_lines, render, replay, tell
from outrider.story.telling import duration
from tests.support.journals import (
    CHART,
    JOURNALS,
    changed,
    position,
    recorded,
    stepped,
    with_machine,
    with_memory,
)

# --- told -----------------------------------------------------------------------------------------------------------


def story_of(name: str) -> list[str]:
    """The last update's story without the clock, the durations and the update's id."""
    heading, *lines = render(tell(lines_of(recorded(name)), CHART)[-1])
    plain = [re.sub(r"^  \d\d:\d\d:\d\d\.\d +(\+\d+\.\d s)? +", "", line) for line in lines]
    return [
        re.sub(r"[0-9a-f]{8} of|\d{4}-\d\d-\d\d|\d+\.\d s", "*", heading),
        *(" ".join(one.split()) for one in plain),
    ]


BEGINNING = [
    "idle.waiting target: 2.0.0 (target.changed)",
    "checking 2.0.0 granted, 10.2 kB (release.found)",
    "downloading.fetching 2.0.0 downloaded (release.downloaded)",
    "verifying size and SHA-256 verified (release.verified)",
    "swapping.queueing turn acquired, slot 0 (lock.acquired)",
    "swapping.starting 2.0.0 runs at http://127.0.0.1:9003 (workload.started)",
]
SOAKED = (
    "swapping.soaking 2.0.0 serves and is watched before 1.0.0 goes for good; soak time over;"
    " 2.0.0 committed (soak.due)"
)
END = [
    "swapping.retiring 1.0.0 stopped (workload.retired)",
    "swapping.releasing turn released (lock.released)",
    "reporting result queued in the outbox (report.queued)",
]


def test_a_good_update_is_told_from_the_target_to_the_report() -> None:
    told = story_of("good_update")

    assert "update * web-a, * UTC: 1.0.0 -> 2.0.0, committed, * in all" == told[0]
    assert [
        *BEGINNING,
        "swapping.probing 2.0.0 is healthy (probe.passed)",
        "swapping.switching the balancer's entry names 2.0.0 now (balancer.switched)",
    ] == told[1:9]
    assert re.fullmatch(r"swapping.draining drained: confirmed by traefik .* \(balancer.drained\)", told[9])
    assert [SOAKED, *END] == told[10:]


def test_a_bad_release_is_told_with_what_was_wrong_and_who_knows_it() -> None:
    told = story_of("bad_release")

    wrong = re.search(r"health check: /health: 503 \(\d+ of \d+ answers\)", told[0])
    assert wrong
    assert f"update * web-a, * UTC: 1.0.0 -> 2.0.0, rolled back after * because: {wrong[0]}" == told[0]
    assert [
        *BEGINNING,
        f"swapping.probing 2.0.0 must prove healthy; {wrong[0]}; rolling back 2.0.0 (probe.failed)",
        "rollback.removing 2.0.0 removed (workload.removed)",
        "rollback.blocking 2.0.0 blocked for the whole fleet, turn released (lock.released)",
        "reporting result queued in the outbox (report.queued)",
    ] == told[1:]


def test_a_restart_in_mid_update_is_told_where_it_came() -> None:
    told = story_of("killed_in_soaking")

    assert told[0].endswith("committed, * in all (1 restart of the sidekick)")
    restart = told.index(
        "swapping.soaking 2.0.0 serves and is watched before 1.0.0 goes for good;"
        " the sidekick was restarted (sidekick.restarted)"
    )
    assert "swapping.reclaiming turn reclaimed, slot 0 (lock.acquired)" == told[restart + 1]
    assert [SOAKED, *END] == told[-4:]


def test_the_first_install_and_the_update_after_it_are_two_stories() -> None:
    first, second = tell(lines_of(recorded("good_update")), CHART)

    assert ("nothing", "1.0.0", "committed") == (first.version_before, first.version, first.outcome)
    assert ("1.0.0", "2.0.0", "committed") == (second.version_before, second.version, second.outcome)
    assert first.ended <= second.began


def test_the_states_of_a_story_last_as_long_as_it_does() -> None:
    story = tell(lines_of(recorded("killed_in_soaking")), CHART)[-1]

    left = [
        moment.in_state_s for moment, later in pairwise(story.moments) if moment.state != later.state
    ] + [story.moments[-1].in_state_s]  # fmt: skip
    assert None is left[0], "idle before the update is no part of it"
    assert pytest.approx(story.took_s) == sum(lasted or 0.0 for lasted in left)


def test_an_update_under_way_is_told_with_what_it_waits_for() -> None:
    records = recorded("good_update")
    records = records[: position(records, "swapping.soaking", "soak.due")]

    story = tell(lines_of(records), CHART)[-1]

    assert "under way" == story.outcome
    assert "2.0.0 serves and is watched before 1.0.0 goes for good" == story.because


def test_an_update_that_an_operator_called_off_says_so() -> None:
    records = recorded("good_update")
    records = records[: position(records, "verifying", "release.verified")]
    records.append(stepped(records, OperatorPaused(at=records[-1].at)))

    story = tell(lines_of(records), CHART)[-1]

    assert ("given up", "an operator paused the instance") == (story.outcome, story.because)
    assert "size and SHA-256 of 2.0.0 are checked; an operator paused the instance" == story.moments[-1].text


def test_a_refused_guard_is_told_where_it_explains_why_nothing_came_of_it() -> None:
    """The version that runs ends while the candidate is proved: no reason to give the candidate up."""
    records = recorded("good_update")
    records = records[: position(records, "swapping.probing", "probe.passed")]
    ended = WorkloadExited(
        at=records[-1].at, workload_id=records[-1].memory["running"]["workload_id"], status="exit 1"
    )  # fmt: skip
    records.append(stepped(records, ended))

    told = tell(lines_of(records), CHART)[-1].moments[-1].text

    assert told.startswith(
        "2.0.0 must prove healthy; 1.0.0 exited: exit 1; no transition: is_candidate_down does not hold"
    )


def test_the_same_trouble_again_and_again_is_one_line() -> None:
    """Without etcd the turn is asked for every ten seconds, maybe for hours."""
    records = recorded("killed_in_soaking")
    records = records[: position(records, "swapping.reclaiming", "lock.acquired")]
    for _ in range(50):
        waiting = records[-1].machine["outstanding"][-1]
        timer = records[-1].machine["timers"][-1]
        at = records[-1].at + timedelta(seconds=10)
        records.append(stepped(records, LockFailed(at=at, request=waiting["request"], cause="no answer")))
        records.append(stepped(records, TimerExpired(name=timer["event"], at=at, generation=timer["generation"])))
    assert len(records) == replay(lines_of(records), CHART).steps

    story = tell(lines_of(records), CHART)[-1]

    troubles = [moment for moment in story.moments if moment.event == "lock.failed"]
    assert ["no answer"] == [moment.text for moment in troubles]
    assert "makes its turn valid again: no answer" == story.because


def test_a_journal_without_the_beginning_of_an_update_says_so() -> None:
    records = recorded("good_update")
    for event in ("balancer.drained", "workload.retired"):
        at = max(index for index, record in enumerate(records) if record.event["name"] == event)

        story = tell(lines_of(records[at:]), CHART)[-1]

        assert ("1.0.0", "2.0.0", "committed") == (story.version_before, story.version, story.outcome), event
        assert render(story)[0].endswith("(the journal does not have its beginning)")


def test_a_story_is_laid_out_in_columns() -> None:
    noon = datetime(2026, 1, 1, 12, 31, 4, 160_000, tzinfo=UTC)
    story = Story(
        update="3f2a91c7" + "0" * 24, instance="web-a", version_before="1.0.0", version="2.0.0", manual=False,
        outcome="committed", because="", began=noon, ended=noon + timedelta(seconds=125), restarts=0, whole=True,
        moments=(
            Moment(at=noon, state="idle", in_state_s=None, event="target.changed", text="go"),
            Moment(at=noon, state="swapping", in_state_s=0.42, event="lock.failed", text="etcd", times=3),
        ),
    )  # fmt: skip

    assert [
        "update 3f2a91c7 of web-a, 2026-01-01 UTC: 1.0.0 -> 2.0.0, committed, 2 min 05 s in all",
        "  12:31:04.1               idle      go (target.changed)",
        "  12:31:04.1       +0.4 s  swapping  etcd (lock.failed) (3 times)",
    ] == render(story)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "+0.0 s"), (59.44, "+59.4 s"), (59.6, "+1 min 00 s"), (3599.7, "+1 h 00 min"), (-3600, "-1 h 00 min")],
)
def test_a_duration_is_written_in_the_unit_that_fits(seconds: float, text: str) -> None:
    assert text == duration(seconds, plus=True)


# --- the command ----------------------------------------------------------------------------------------------------


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["story", *map(str, arguments)])


def test_the_command_tells_the_last_update_of_a_file_or_folder(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_bytes((JOURNALS / "good_update.jsonl").read_bytes())

    by_folder, by_file = run(tmp_path), run(tmp_path / "journal.jsonl")

    assert 0 == by_folder.exit_code
    assert by_folder.output == by_file.output
    assert 1 == by_folder.output.count("update ")
    assert "1.0.0 -> 2.0.0, committed" in by_folder.output


def test_the_command_tells_all_updates_or_the_one_that_is_named() -> None:
    path = JOURNALS / "good_update.jsonl"
    first, second = tell(read_lines(path), CHART)

    assert "\n".join([*render(first), "", *render(second), ""]) == run(path, "--all").output
    assert "\n".join([*render(first), ""]) == run(path, "--update", first.update[:8]).output
    assert [first.update, second.update] == [one["update"] for one in json.loads(run(path, "--all", "--json").output)]
    missing = run(path, "--update", "ffffffffff")
    assert 1 == missing.exit_code
    known = f"{first.update[:8]}, {second.update[:8]}"
    assert f"Error: good_update.jsonl: no update 'ffffffffff'; the journal has {known}\n" == missing.output


def test_the_command_checks_a_journal() -> None:
    path = JOURNALS / "good_update.jsonl"
    steps = len(read(path))

    assert f"good_update.jsonl: {steps} steps, all in the chart\n" == run(path, "--check").output
    assert {"journal": "good_update.jsonl", "steps": steps, "after": 0, "restarts": 0} == json.loads(
        run(path, "--check", "--json").output
    )


def test_the_command_leaves_with_1_and_the_first_difference(tmp_path: Path) -> None:
    records = recorded("good_update")
    at = position(records, "swapping.draining", "balancer.drained")
    journal = Journal(tmp_path)
    for record in [*records[:at], *records[at + 1 :]]:
        journal.append(record)
    journal.close()

    done = run(tmp_path, "--check")

    assert 1 == done.exit_code
    assert f"Error: journal.jsonl:{at + 1}: " in done.output
    assert 1 == len(done.output.splitlines())


def test_a_journal_without_an_update_says_where_the_sidekick_is(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append(recorded("good_update")[0])
    journal.close()

    assert (
        "journal.jsonl: no update yet; now idle.waking: the runtime is starting or finding nothing\n"
        == run(tmp_path).output
    )


def _damaged(path: Path) -> None:
    content = bytearray((JOURNALS / "good_update.jsonl").read_bytes())
    content[200] ^= 0xFF
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda path: None, "No such file or directory"),
        (lambda path: path.write_bytes(b""), "has no step yet"),
        (lambda path: path.write_text("hello\nworld\n"), "journal.jsonl:1: damaged line"),
        (_damaged, "journal.jsonl:1: damaged line"),
    ],
    ids=["missing", "empty", "not-a-journal", "damaged"],
)
@pytest.mark.parametrize("options", [(), ("--check",), ("--json",)], ids=["tell", "check", "json"])
def test_a_file_that_is_no_good_journal_is_one_clear_line(
    tmp_path: Path, prepare: Callable[[Path], object], said: str, options: tuple[str, ...]
) -> None:
    prepare(tmp_path / "journal.jsonl")

    done = run(tmp_path, *options)

    assert 1 == done.exit_code
    assert 1 == len(done.output.splitlines()), done.output
    assert said in done.output


def test_a_record_that_makes_no_sense_is_one_clear_line(tmp_path: Path) -> None:
    """A journal of another outrider can have what this one doesn't know."""
    for number, mutant in enumerate(
        (
            changed(recorded("good_update")[1], event={"name": "moon.risen"}),
            changed(recorded("good_update")[1], event={"name": "lock.acquired"}),
            with_memory(recorded("good_update")[1], instance=7),
            with_machine(recorded("good_update")[1], state="asleep"),
            changed(recorded("good_update")[1], target="asleep"),
        )
    ):
        folder = tmp_path / str(number)
        journal = Journal(folder)
        journal.append(recorded("good_update")[0])
        journal.append(mutant)
        journal.close()

        done = run(folder, "--check")

        assert 1 == done.exit_code
        assert done.output.startswith("Error: journal.jsonl:2: "), done.output
        assert 1 == len(done.output.splitlines()), done.output


def test_only_one_choice_at_a_time() -> None:
    assert 2 == run(JOURNALS / "good_update.jsonl", "--all", "--check").exit_code
