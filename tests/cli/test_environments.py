"""The verbs of environments and releases against the running service: no secret is shown anywhere."""

import json
from pathlib import Path

import pytest

from outrider.core.release import ReleaseId
from outrider.model.documents import Block, encode
from outrider.service.store.audit import AuditLog, Wanted
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, make_app, put, target_of
from tests.support.typing_verbs import Run, lines, typist

WHERE = f"{APP}/beta"


@pytest.fixture
def run(service: Service) -> Run:
    make_app(service.store, version="2.0.0")
    return typist(service)


def label(service: Service) -> str | None:
    return target_of(service.store).label


def test_what_is_set_is_listed_and_a_secret_is_masked(run: Run, service: Service) -> None:
    said = run(f"env set {WHERE} LOG=debug URL=http://x/?a=b --secret=KEY=geheim --reference=DB=file:/etc/db --arg=-v")

    shown = run(f"env list {WHERE}")
    assert "group beta runs with environment 1 from now on\n" == said.stdout
    assert "note: group beta: target 2.0.0 with environment 1" in said.stderr
    assert [
        ["Name", "Kind", "Value"],
        ["DB", "reference", "file:/etc/db"],
        ["KEY", "secret", "***"],
        ["LOG", "value", "debug"],
        ["URL", "value", "http://x/?a=b"],
        ["arguments: -v"],
    ] == lines(shown.stdout)
    assert "2.0.0 with environment 1" == label(service)


def test_no_secret_is_shown_by_any_answer_nor_by_the_audit_log(run: Run, service: Service) -> None:
    run(f"env set {WHERE} --secret=KEY=geheim-1")
    run(f"env set {WHERE} --secret=KEY=geheim-2 --why='it leaked'")

    said = [
        run(words).stdout
        for words in (
            f"env list {WHERE} --json",
            f"env list {WHERE} --number=1 --json",
            f"env history {WHERE} --json",
            f"env diff {WHERE} --json",
        )
    ]
    entries = AuditLog(context=service.store.context).list(Wanted(noun="environment"), limit=10)

    assert 2 == len(entries)
    assert "geheim" not in "".join(said) + repr(entries)
    assert [{"name": "KEY", "before": "***", "after": "***"}] == json.loads(said[-1])


def test_variables_are_removed_and_compared(run: Run, service: Service) -> None:
    run(f"env set {WHERE} A=1 B=2")
    run(f"env unset {WHERE} A --why=unused")

    assert [["Name", "Before", "After"], ["A", "1"]] == lines(run(f"env diff {WHERE}").stdout)
    assert [["Name", "Before", "After"], ["A", "1"], ["B", "2"]] == lines(
        run(f"env diff {WHERE} --from=1 --to=0").stdout
    )
    history = [row[0] for row in lines(run(f"env history {WHERE}").stdout)]
    assert ["Environment", "2", "1"] == history
    assert "variable 'A' is not in the environment" in run(f"env unset {WHERE} A", code=1).stderr


def test_a_file_replaces_the_whole_environment(run: Run, service: Service, tmp_path: Path) -> None:
    run(f"env set {WHERE} OLD=1 --arg=-v")
    file = tmp_path / "beta.toml"
    file.write_text('[variables]\nNEW = "1"\n[secrets]\nKEY = "geheim"\n')

    run(f"env set {WHERE} --file={file}")

    present = service.store.environments.get(APP, "beta")
    assert present is not None
    assert ({"NEW": "1"}, {"KEY": "geheim"}, ()) == (present.variables, present.secrets, present.arguments)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[variables]\nPORT = 80\n", "variables.PORT: write a text in quotes"),
        ('[variable]\nA = "1"\n', "variable: unknown; known: variables, secrets, references, arguments"),
        ('arguments = "-v"\n', "arguments: write a list of texts"),
        ("[variables\n", "line 1"),
    ],
)
def test_a_file_that_says_something_else_is_refused(run: Run, tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "beta.toml"
    file.write_text(text)

    refused = run(f"env set {WHERE} --file={file}", code=1).stderr

    assert words in refused
    assert str(file) in refused


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (f"env set {WHERE}", 2, "nothing to set"),
        (f"env set {WHERE} LOG", 2, "'LOG': write NAME=VALUE"),
        (f"env set {WHERE} A=1 A=2", 2, "A is given twice"),
        (f"env set {WHERE} A=1 --secret=A=2", 2, "A is given twice"),
        (f"env set {WHERE} PORT=80", 1, "variable PORT: outrider sets it itself"),
        (f"env set {WHERE} --reference=A=vault:x", 1, "write file:/PATH, credential:NAME"),
        (f"env unset {WHERE}", 2, "which variables?"),
        (f"env list {WHERE} --number=9", 1, "has no environment 9"),
    ],
)
def test_what_cannot_be_is_one_clear_line(run: Run, words: str, code: int, said: str) -> None:
    assert said in run(words, code=code).stderr


def test_a_restart_and_its_undo_are_one_command_each(run: Run, service: Service) -> None:
    run(f"env set {WHERE} A=1")

    said = run(f"rollout restart {WHERE} --yes --why='a new certificate'")

    assert "restarts as 2.0.0 with environment 1, generation 1" in said.stdout
    assert "2.0.0 with environment 1, generation 1" == label(service)


def test_a_release_is_unblocked_by_its_environment(run: Run, service: Service) -> None:
    keys, cluster = service.store.context.keys, service.store.context.cluster
    for number in (1, 2):
        release = ReleaseId(version="2.0.0", environment=number, environment_digest=f"{number}" * 64)
        block = Block(
            version="2.0.0", sha256="", instance="web-1", why="it crashed", at=NOON, group="beta",
            environment=number, environment_digest=release.environment_digest,
        )  # fmt: skip
        put(cluster, keys.block(APP, release.key("beta")), encode(block))

    which = run(f"release unblock {APP} --version=2.0.0 --yes", code=1)
    done = run(f"release unblock {APP} --version=2.0.0 --environment=2 --yes")

    assert "2.0.0 with environment 1, 2.0.0 with environment 2 are blocked; say which" in which.stderr
    assert "2.0.0 with environment 2" in done.stdout
    left = run(f"release list {APP}").stdout
    assert "2.0.0 with environment 1" in left
    assert "2.0.0 with environment 2" not in left
