"""The verbs against the running service, as an operator types them."""

import hashlib
import json
from pathlib import Path

import pytest

from outrider.core.omaha import AppRequest, OmahaEvent, OmahaRequest
from outrider.demo.programs import free_ports
from outrider.model.documents import Command
from outrider.service.rollouts.checkins import Caller, Checkins
from tests.support.service import NOON, Service
from tests.support.service_examples import APP, SHA256, be_alive, block, hold_turn, make_app, stand_in_line
from tests.support.typing_verbs import Run, lines, typist


@pytest.fixture
def run(service: Service) -> Run:
    return typist(service)


def test_the_guides_commands_work_word_for_word(run: Run, service: Service, tmp_path: Path) -> None:
    payload = tmp_path / "example-1.0.0.tar"
    payload.write_bytes(b"hello\n")

    run(f'app create --app-id={APP} --label="Example" --description="Sample application"')
    made = run(f'group create --app-id={APP} --channel=beta --group-id=beta --label="Example Group"')
    run(f"package create --app-id={APP} --version=1.0.0 --file={payload}")
    moved = run(f"channel update --app-id={APP} --channel=beta --version=1.0.0 --publish=true")

    assert "channel 'beta' did not exist" in made.stderr
    assert [["Label", "Version", "Publish", "Upstream"], ["beta", "1.0.0", "true"]] == lines(moved.stdout)
    target = service.store.groups.target(APP, "beta")
    assert ("1.0.0", SHA256) == (target.version, target.sha256)


def test_the_old_guides_app_update_creates_the_app_and_says_so(run: Run) -> None:
    first = run(f'app update --app-id={APP} --label="Example App" --description="Sample application"')
    second = run(f'app update --app-id={APP} --label="Other"')

    assert "didn't exist: created" in first.stderr
    assert "" == second.stderr
    assert [["Id", "Label", "Description"], [APP, "Other", "Sample application"]] == lines(second.stdout)


def test_half_an_update_of_an_absent_app_creates_nothing(run: Run, service: Service) -> None:
    result = run(f"app update --app-id={APP} --label=Example", code=1)

    assert result.stderr.startswith("Error: no app")
    assert () == service.store.apps.list()


def test_a_channel_that_is_updated_before_it_exists_is_created(run: Run) -> None:
    run(f"app create --app-id={APP}")

    result = run(f"channel update --app-id={APP} --channel=master --version=1.0.0 --allow-missing")

    assert "channel master didn't exist: created" in result.stderr
    assert "1.0.0 has no package yet" in result.stderr


@pytest.mark.parametrize("verb", ["create", "update"])
@pytest.mark.parametrize("version", ["1.0.1", "10.0.0", "1.0.0-rc.1"])
def test_a_channel_points_at_a_version_without_a_package_only_when_that_is_meant(
    run: Run, verb: str, version: str
) -> None:
    """A slip of a digit would be accepted, and nothing would ever happen."""
    run(f"app create --app-id={APP}")
    run(f"package create --app-id={APP} --version=1.0.0 --url=http://x/a.tar --size=1 --sha256={'0' * 64}")
    line = f"channel {verb} --app-id={APP} --channel=master --version={version}"

    refused = run(line, code=1)

    assert f"Error: {version} has no package, so nothing would be installed; `package create` adds it" in refused.stderr
    assert "--allow-missing" in refused.stderr
    assert [] == json.loads(run(f"channel list --app-id={APP} --json").stdout)

    assert f"{version} has no package yet" in run(f"{line} --allow-missing").stderr
    assert [version] == [one["version"] for one in json.loads(run(f"channel list --app-id={APP} --json").stdout)]


def test_commands_that_change_what_runs_say_what_happens_to_how_many(run: Run) -> None:
    """
    1. a group whose channel moves, is paused, and goes on; a rollout that is halted and goes on
    2. each command says on stderr what its instances do now
    """
    of = f"--app-id={APP}"
    run(f"app create {of}")
    run(f"package create {of} --version=1.0.0 --url=http://x/a.tar --size=1 --sha256={'0' * 64}")
    run(f"channel create {of} --channel=beta --version=1.0.0")
    run(f"group create {of} --channel=beta --group-id=g1")

    def said(line: str) -> list[str]:
        return [each.removeprefix("note: ") for each in run(line).stderr.splitlines() if each.startswith("note: group")]

    nobody = "group g1: target 1.0.0; no instances yet"
    assert [nobody] == said(f"channel update {of} --channel=beta --version=1.0.0")
    assert [nobody] == said(f"group pause {of} --group-id=g1")
    assert [nobody] == said(f"group unpause {of} --group-id=g1")
    for verb in ("pause", "resume", "halt", "activate"):
        assert [nobody] == said(f"rollout {verb} {of} --group-id=g1")
    for line in ("percent --update-percent=50", "policy --canary=1", "update --update-count=1 --update-interval=60"):
        assert [nobody] == said(f"group {line} {of} --group-id=g1")
    assert [nobody] == said(f"rollout create linear {of} --group-id=g1")
    assert [] == said(f"group policy {of} --group-id=g1"), "it changes nothing"
    assert [] == said(f"group update {of} --group-id=g1 --label=L")


def test_an_app_without_an_id_gets_one(run: Run) -> None:
    (made,) = json.loads(run("app create --label=Web --json").stdout)

    assert [["Id", "Label", "Description"], [made["id"], "Web"]] == lines(run("app list").stdout)


def test_a_whole_life_of_every_noun(run: Run, service: Service) -> None:
    run(f"app create --app-id={APP}")
    created = run(
        f"package create --app-id={APP} --version=1.2.3 --url=http://files.example/web.tar --size=6 --sha256={SHA256}"
    )
    run(f"channel create --app-id={APP} --channel=stable --version=1.2.3")
    run(f"group create --app-id={APP} --group-id=web --channel=stable --slots=3")
    paused = run(f"group pause --app-id={APP} --group-id=web")
    run(f"group update --app-id={APP} --group-id=web --label=Web --slots=2")
    unpaused = run(f"group unpause --app-id={APP} --group-id=web")

    assert [["Version", "URL", "Size"], ["1.2.3", "http://files.example/web.tar", "6"]] == lines(created.stdout)
    assert ["web", APP, "stable", "web", "true", "100", "false", "3"] == lines(paused.stdout)[1]
    header = ["Label", "App", "Channel", "Id", "Updates Paused", "Percent", "Rollout Active", "Slots"]
    assert [header, ["Web", APP, "stable", "web", "false", "100", "false", "2"]] == lines(unpaused.stdout)
    run(f"group delete --app-id={APP} --group-id=web")
    run(f"channel delete --app-id={APP} --channel=stable")
    run(f"package delete --app-id={APP} --version=1.2.3")
    run(f"app delete --app-id={APP}")
    assert () == service.store.apps.list()


def test_json_has_the_same_facts(run: Run, service: Service) -> None:
    make_app(service.store)

    for noun in ("channel", "group", "package"):
        shown = json.loads(run(f"{noun} list --app-id={APP} --json").stdout)
        assert all(APP == one["app"] for one in shown), noun
        assert shown, noun


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("app delete --app-id={app}", "Error: app"),
        ("app create --app-id={app}", "Error: app"),
        ("app create --app-id=a/b", "Error: app 'a/b'"),
        ("group list --app-id=absent", "Error: no app 'absent'"),
        ("group pause --app-id={app} --group-id=absent", "Error: app"),
        ("group update --app-id={app} --group-id=beta --slots=0", "Error: slots 0"),
        ("channel update --app-id={app} --channel=beta --version=one", "Error: version 'one': not semver"),
        ("channel delete --app-id={app} --channel=beta", "Error: channel 'beta' is in use by groups beta"),
        ("package delete --app-id={app} --version=1.0.0", "Error: package 1.0.0 is in use by channels beta"),
        ("package create --app-id={app} --version=9.0.0 --file=/no/such/file.tar", "Error: --file"),
        (
            "package create --app-id={app} --version=9.0.0 --file=coreos/example",
            "no such file, and not an image reference",
        ),
        (f"package create --app-id={{app}} --version=9.0.0 --url=x --size=1 --sha256={64 * '0'}", "Error: url 'x'"),
        ("package create --app-id={app} --version=9.0.0 --url=http://x/ --size=1 --sha256=00", "Error: sha256 '00'"),
        ("release unblock --app-id={app} --version=2.0.0 --yes", "isn't blocked"),
        ("instance retry {app} web-9", "Error: app"),
        ("why {app} web-9", "Error: app"),
        ("status absent", "Error: no app"),
    ],
)
def test_an_error_is_one_line_and_leaves_with_one(run: Run, service: Service, command: str, words: str) -> None:
    make_app(service.store)

    result = run(command.format(app=APP), code=1)

    assert words in result.stderr
    assert 1 == len(result.stderr.splitlines())
    assert "" == result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "group list",
        "channel update --app-id=x --channel=beta",
        "group update --app-id=x --group-id=beta",
        "app update --app-id=x",
        "package create --app-id=x --version=1.0.0",
        "package create --app-id=x --version=1.0.0 --url=http://files.example/x --size=many",
        "app list --no-such-flag",
    ],
)
def test_wrong_usage_leaves_with_two(run: Run, command: str) -> None:
    assert "Error" in run(command, code=2).stderr


@pytest.mark.parametrize("command", ["app explode", "explode"])
def test_an_unknown_command_leaves_with_three(run: Run, command: str) -> None:
    assert "known: " in run(command, code=3).stderr


def test_a_service_that_is_away_is_one_line(run: Run) -> None:
    (port,) = free_ports(1)

    result = run(f"app list --server=http://127.0.0.1:{port}", code=1)

    assert f"update service http://127.0.0.1:{port} doesn't answer: Connection refused" in result.stderr
    assert 1 == len(result.stderr.splitlines())


@pytest.mark.parametrize("server", ["127.0.0.1:8000", "ftp://x", "", "http://[::1", "http://h:99999", "http://h:0"])
def test_a_server_that_is_no_address_is_one_line(run: Run, server: str) -> None:
    assert "write http://HOST:PORT" in run(f"app list --server='{server}'", code=1).stderr


def test_something_else_at_the_address_is_noticed(run: Run, service: Service) -> None:
    result = run(f"app list --server={service.url}/healthz", code=1)

    assert "Error: " in result.stderr


def test_a_file_is_measured_and_what_the_operator_says_of_it_must_be_true(run: Run, tmp_path: Path) -> None:
    run(f"app create --app-id={APP}")
    payload = tmp_path / "web.tar"
    payload.write_bytes(b"hello\n")

    wrong = run(f"package create --app-id={APP} --version=1.0.0 --file={payload} --sha256={'0' * 64}", code=1)
    short = run(f"package create --app-id={APP} --version=1.0.0 --file={payload} --size=5", code=1)
    right = run(f"package create --app-id={APP} --version=1.0.0 --file={payload} --sha256={SHA256} --json")

    assert f"has sha256 {SHA256}" in wrong.stderr
    assert "has 6 bytes, but --size is 5" in short.stderr
    (made,) = json.loads(right.stdout)
    assert (None, "web.tar", 6, SHA256) == (made["url"], made["name"], made["size_bytes"], made["sha256"])


def test_an_empty_file_is_refused(run: Run, tmp_path: Path) -> None:
    run(f"app create --app-id={APP}")
    (tmp_path / "empty.tar").touch()

    result = run(f"package create --app-id={APP} --version=1.0.0 --file={tmp_path}/empty.tar", code=1)

    assert "empty" in result.stderr


def test_a_file_with_an_address_is_only_measured(run: Run, service: Service, tmp_path: Path) -> None:
    run(f"app create --app-id={APP}")
    (tmp_path / "web.tar").write_bytes(b"hello\n")
    (tmp_path / "notes.txt").write_text("better\nthan before\n")

    run(
        f"package create --app-id={APP} --version=1.0.0 --file={tmp_path}/web.tar --url=http://files.example/w.tar "
        f"--release-notes={tmp_path}/notes.txt"
    )

    made = service.store.packages.get(APP, "1.0.0")
    assert ("http://files.example/w.tar", 6, SHA256) == (made.url, made.size_bytes, made.sha256)
    assert "better\nthan before\n" == made.release_notes
    assert [] == [path for path in service.payload_dir.rglob("*") if path.is_file()]


def test_a_version_that_exists_is_refused_before_its_file_is_sent(run: Run, service: Service, tmp_path: Path) -> None:
    make_app(service.store)
    (tmp_path / "web.tar").write_bytes(b"hello\n")

    result = run(f"package create --app-id={APP} --version=1.0.0 --file={tmp_path}/web.tar", code=1)

    assert "use a new version" in result.stderr
    assert [] == [path for path in service.payload_dir.rglob("*") if path.is_file()]


def test_a_large_file_arrives_whole(run: Run, service: Service, tmp_path: Path) -> None:
    run(f"app create --app-id={APP}")
    content = hashlib.shake_128(b"seed").digest(5_000_001)
    (tmp_path / "large.tar").write_bytes(content)

    run(f"package create --app-id={APP} --version=1.0.0 --file={tmp_path}/large.tar")

    digest = hashlib.sha256(content).hexdigest()
    assert content == (service.payload_dir / "sha256" / digest[:2] / digest).read_bytes()


def test_instances_are_listed_with_updatectls_columns(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")
    failed = OmahaEvent(type=3, result=0, error_code=44)
    app = AppRequest(app_id=APP, version="1.0.0", track="beta", machine_id="web-1", oem="metal", events=(failed,))
    Checkins(context=service.store.context).answer(OmahaRequest(apps=(app,)), Caller(address="", base_url="http://x"))

    header, row = lines(run(f"instance list-updates --app-id={APP}").stdout)
    elsewhere = lines(run(f"instance list-updates --app-id={APP} --group-id=other").stdout)

    assert ["AppID", "ClientID", "Version", "LastSeen", "Group", "OEM", "Status", "Granted", "Why"] == header
    assert [APP, "web-1", "1.0.0"] == row[:3]
    assert ["beta", "metal", "error (44)"] == row[4:]
    assert [header] == elsewhere


def test_a_command_for_an_instance_is_left_for_its_sidekick(run: Run, service: Service) -> None:
    make_app(service.store)
    be_alive(service.store, "web-1", NOON)
    context = service.store.context

    for verb in ("pause", "resume", "retry"):
        run(f"instance {verb} {APP} web-1")
        left = context.get(Command, context.keys.command(APP, "web-1"))
        assert left is not None
        assert verb == left.verb
    refused = run(f"instance rollback {APP} web-1", code=1, typing="n\n")
    unchanged = context.get(Command, context.keys.command(APP, "web-1"))
    run(f"instance rollback {APP} web-1 --yes")
    left = context.get(Command, context.keys.command(APP, "web-1"))

    run(f"instance rollback {APP} web-1 --to 0.9.0 --yes")
    named = context.get(Command, context.keys.command(APP, "web-1"))
    no_version = run(f"instance rollback {APP} web-1 --to newest --yes", code=1).stderr

    assert named is not None
    assert ("rollback", "0.9.0") == (named.verb, named.version)
    assert "'newest'" in no_version
    assert "back to its previous version?" in refused.stderr
    assert unchanged is not None
    assert left is not None
    assert ("retry", "rollback") == (unchanged.verb, left.verb)


def test_a_mark_is_listed_and_lifted_only_after_a_yes(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")
    block(service.store, "2.0.0", "health check failed", NOON)

    listed = lines(run(f"release list --app-id={APP}").stdout)
    asked = run(f"release unblock --app-id={APP} --version=2.0.0", code=1, typing="n\n")
    still = service.store.fleet.blocks(APP)
    run(f"release unblock --app-id={APP} --version=2.0.0", typing="y\n")

    assert ["2.0.0", "web-1"] == listed[1][:2]
    assert "health check failed" in asked.stderr
    assert 1 == len(still)
    assert () == service.store.fleet.blocks(APP)


def test_status_shows_who_does_what_and_who_holds_the_turn(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")
    store = service.store
    be_alive(store, "web-1", NOON, state="swapping.draining", wanted="2.0.0", why="3 requests under way")
    be_alive(store, "web-2", NOON, state="swapping.queueing", wanted="2.0.0", why="web-1 holds the turn")
    for instance in ("web-1", "web-2"):
        stand_in_line(store, instance, NOON)
    hold_turn(store, "web-1", NOON)

    shown = run(f"status {APP}").stdout
    (facts,) = json.loads(run(f"status {APP} --group beta --json").stdout)

    table = lines(shown)
    assert ["GROUP", "INSTANCE", "STATE", "VERSION", "WANTED", "SINCE", "WHY"] == table[0]
    assert ["beta", "web-1", "swapping.draining", "1.0.0", "2.0.0"] == table[1][:5]
    assert "web-1 holds the turn" == table[2][-1]
    assert "group beta: target: 2.0.0; turn 1 of 1: held by web-1; waiting for a turn: web-2" in shown
    assert [{"number": 0, "state": "held", "instance": "web-1"}] == facts["scopes"][0]["turns"]
    assert "2.0.0" == facts["target"]["version"]
    assert "web-1 holds the turn" == facts["instances"][1]["alive"]["why"]


def test_status_names_a_scope_that_is_shared_with_other_groups(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")
    be_alive(service.store, "web-1", NOON, state="swapping.queueing", shared_scope="eu")
    stand_in_line(service.store, "web-1", NOON, scope="eu")
    hold_turn(service.store, "mx-1", NOON, app="mail", group="mx", scope="eu")

    shown = run(f"status {APP}").stdout
    (facts,) = json.loads(run(f"status {APP} --json").stdout)

    assert "target: 2.0.0; turn 1 of 1 of scope eu: left behind by a crashed sidekick (mail/mx-1);" in shown
    turn = {"number": 0, "state": "dirty", "instance": "mail/mx-1"}
    shared = {"scope": "eu", "slots": 1, "turns": [turn], "queue": ["web-1"], "held": {}, "budgets": {}}
    assert [shared] == facts["scopes"]


def test_why_says_what_an_instance_waits_for(run: Run, service: Service) -> None:
    make_app(service.store, version="2.0.0")
    be_alive(service.store, "web-1", NOON)
    service.store.groups.update(APP, "beta", paused=True)

    head, *rest = run(f"why {APP} web-1").stdout.splitlines()
    facts = json.loads(run(f"why {APP} web-1 --json").stdout)

    assert head.startswith(f"web-1 of {APP}, group beta: idle for")
    assert "  group is paused" in rest
    assert [head, *(line.strip() for line in rest)] == facts["reasons"]


def test_status_without_etcd_is_one_sentence_that_names_etcd_once(run: Run) -> None:
    (port,) = free_ports(1)

    said = run(f"status {APP} --etcd=127.0.0.1:{port}", code=1).stderr.splitlines()[0]

    assert said.startswith(f"note: etcd doesn't answer (list): 127.0.0.1:{port}: connection refused; asked the update")
    assert 1 == said.count("etcd")
