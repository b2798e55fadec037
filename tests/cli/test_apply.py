"""`outrider apply`, `diff` and `export` against the running service, as an operator types them."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from outrider.cli.declared.reading import read_declaration
from outrider.cli.declared.state import DeclarationError
from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import Conflict, NotFound
from outrider.etcd.seam import Cluster
from outrider.model.documents import encode
from outrider.service.history.webhooks import Webhook, Webhooks, webhook_key
from tests.support.rings import mostly_long
from tests.support.service import NOON, RunningServer, Service
from tests.support.service_examples import be_alive, put
from tests.support.typing_verbs import Run, typist

EXAMPLES = Path(__file__).parents[2] / "docs" / "use" / "examples"
SHA256 = "ab" * 32
SMALL = f"""\
[apps.shop]
label = "Shop"

[apps.shop.packages."1.0.0"]
url = "http://files.example/shop-1.0.0.tar"
size_bytes = 6
sha256 = "{SHA256}"

[apps.shop.channels.stable]
version = "1.0.0"

[apps.shop.groups.web]
channel = "stable"
slots = 2
policy = {{ canary = 1, windows = ["mon-fri 09:00-17:00"] }}
"""

Write = Callable[..., Path]


@pytest.fixture
def run(service: Service) -> Run:
    return typist(service)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def written(text: str, name: str = "shop.toml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return written


@pytest.mark.parametrize(
    "name",
    mostly_long(("web-servers.toml", "worker.yaml", "database.toml"), short=lambda name: name == "worker.yaml"),
)
def test_an_example_is_applied_and_a_second_time_changes_nothing(run: Run, service: Service, name: str) -> None:
    first = run(f"apply {EXAMPLES / name} --yes").stdout
    second = run(f"apply {EXAMPLES / name} --yes").stdout

    assert re.search(r"^applied \d+ changes$", first, re.MULTILINE)
    assert f"nothing to change: the service has what {name} says\n" == second
    assert f"no changes: the service has what {name} says\n" == run(f"diff {EXAMPLES / name} --exit-code").stdout


def test_the_examples_say_what_they_say(run: Run, service: Service) -> None:
    for name in ("web-servers.toml", "worker.yaml", "database.toml"):
        run(f"apply {EXAMPLES / name} --yes")

    store = service.store
    assert {"ledger", "mailer", "shop"} == {app.id for app in store.apps.list()}
    policy = store.rollouts.policy("shop", "web")
    assert (1, 1, 2, "Europe/Berlin") == (policy.canary, policy.max_failures, policy.min_healthy, policy.time_zone)
    (window,) = policy.windows
    assert (("mon", "tue", "wed", "thu", "fri"), "09:00", "17:00") == (window.days, window.opens, window.closes)
    assert (2, 900) == (
        store.rollouts.policy("mailer", "workers").max_in_progress,
        store.rollouts.policy("mailer", "workers").update_timeout_s,
    )
    assert "16.1.0" == store.groups.target("ledger", "primary").version
    assert ("16.0.0",) == store.channels.get("ledger", "stable").excluded
    (hook,) = Webhooks(context=store.context, auditing=store.auditing).list()
    assert ("mailer-alarms", "mailer", "warning") == (hook.name, hook.app, hook.least)


@pytest.mark.parametrize("form", ["toml", "yaml"])
def test_what_is_exported_and_applied_to_an_empty_service_is_exported_again(
    run: Run, service: Service, cluster: Cluster, write: Write, form: str
) -> None:
    hook = '[webhooks.ours]\nurl = "https://example.org/x"\napp = "shop"\nleast = "warning"\n'
    stored = '[apps.shop.packages."2.0.0".files]\n"index.html" = "hello"\n'
    run(f"apply {write(SMALL + stored + hook)} --yes")
    run("channel floor set --app-id=shop --channel=stable --version=1.0.0 --reason='a migration: \"once\"'")
    run("group pause shop/web")
    text = run(f"export --format={form}").stdout

    with RunningServer(cluster, service.payload_dir, f"{service.prefix}-empty") as other:
        path = write(text, f"all.{form}")
        run(f"apply {path} --yes --server={other.url}")

        assert text == run(f"export --format={form} --server={other.url}").stdout
    assert "***" in text
    assert "whsec_" not in text


def test_the_changes_are_shown_first_with_the_instances_that_they_concern(
    run: Run, service: Service, write: Write
) -> None:
    run(f"apply {write(SMALL)} --yes")
    be_alive(service.store, "web-1", NOON, app="shop", group="web")
    be_alive(service.store, "web-2", NOON, app="shop", group="web")
    changed = SMALL.replace("1.0.0", "1.1.0").replace("canary = 1", "canary = 2").replace("slots = 2", "slots = 1")

    shown = run(f"apply {write(changed)}", typing="n\n", code=1)

    assert [
        "+ package shop 1.1.0",
        "    url: http://files.example/shop-1.1.0.tar, 6 bytes",
        "~ group shop/web  (2 instances)",
        "    slots: 2 -> 1",
        "    policy.canary: 1 -> 2",
        "~ channel shop/stable  (2 instances in web)",
        "    version: 1.0.0 -> 1.1.0",
    ] == shown.stdout.splitlines()
    assert "Make 3 changes at " in shown.stderr
    assert "1.0.0" == service.store.channels.get("shop", "stable").version
    assert shown.stdout == run(f"apply {write(changed)} --diff").stdout == run(f"diff {write(changed)}").stdout
    assert 2 == run(f"diff {write(changed)} --exit-code", code=2).exit_code
    facts = json.loads(run(f"diff {write(changed)} --json").stdout)
    assert ["+", "~", "~"] == [one["change"] for one in facts]


def test_without_anybody_to_answer_nothing_is_changed_and_the_option_is_named(
    run: Run, service: Service, write: Write
) -> None:
    asked = run(f"apply {write(SMALL)}", typing="", code=1)

    assert "--yes says yes beforehand" in asked.stderr
    assert () == service.store.apps.list()


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('label = "Shop"', 'lable = "Shop"', "shop.toml:2: apps.shop.lable: unknown; known: label"),
        ("slots = 2", "slots = 0", "shop.toml:14: apps.shop.groups.web.slots: 0: write 1 to 1000"),
        ("slots = 2", 'slots = "2"', "shop.toml:14: apps.shop.groups.web.slots: must be a whole number"),
        ("canary = 1", "canary = -1", "shop.toml:15: apps.shop.groups.web.policy: canary"),
        ("mon-fri 09:00", "mon-fry 09:00", "shop.toml:15: apps.shop.groups.web.policy.windows: 'mon-fry 09:00-17:00'"),
        (
            'channel = "stable"',
            'channel = "stabel"',
            "shop.toml:12: apps.shop.groups.web.channel 'stabel': no such channel",
        ),
        ('version = "1.0.0"', 'version = "1.0.1"', "shop.toml:9: apps.shop.channels.stable: 1.0.1 has no package"),
        ('version = "1.0.0"', 'version = "1.0"', "shop.toml:10: version '1.0': not semver"),
        ("size_bytes = 6\n", "\n", 'shop.toml:4: apps.shop.packages."1.0.0": a url needs size_bytes'),
        ("size_bytes = 6", 'digest = "x"', 'shop.toml:6: apps.shop.packages."1.0.0".digest: has no meaning with url'),
        (
            "[apps.shop.groups.web]",
            "[apps.shop.groups.web.environ]\nA = 1\n[apps.shop.groups.web]",
            "shop.toml:12: apps.shop.groups.web.environ: unknown",
        ),
        ("slots = 2", "slots = ", "shop.toml:14: Invalid value"),
        (
            "slots = 2",
            'sidekick.process.comand = ["x"]',
            "shop.toml:14: apps.shop.groups.web.sidekick: process.comand: unknown",
        ),
    ],
)
def test_a_mistake_is_a_line_with_its_place_and_nothing_is_written(
    run: Run, service: Service, write: Write, old: str, new: str, said: str
) -> None:
    assert old in SMALL

    refused = run(f"apply {write(SMALL.replace(old, new, 1))} --yes", code=1)

    assert f"Error: {said}" in refused.stderr
    assert () == service.store.apps.list()


def test_all_mistakes_are_listed_in_the_order_of_their_lines(run: Run, write: Write) -> None:
    wrong = SMALL.replace("slots = 2", "slots = 0").replace("label", "lable")

    refused = run(f"diff {write(wrong)}", code=1).stderr.splitlines()

    assert ["Error: shop.toml:2:", "Error: shop.toml:14:"] == [" ".join(line.split(" ")[:2]) for line in refused]


def test_a_package_that_is_there_with_another_payload_is_refused(run: Run, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")

    for old, new, said in (
        (SHA256, "cd" * 32, f"has sha256 {SHA256} at the service"),
        ("shop-1.0.0.tar", "web.tar", "is at http://files.example/shop-1.0.0.tar at the service"),
        ("size_bytes = 6", "size_bytes = 7", "has another size"),
        ("size_bytes = 6", 'size_bytes = 6\narch = "amd64"', "arch is 'all' at the service"),
    ):
        refused = run(f"apply {write(SMALL.replace(old, new))} --yes", code=1)
        assert "Error: shop.toml:4: " in refused.stderr
        assert said in refused.stderr
        assert "a package never changes, so write a new version" in refused.stderr


def test_a_file_is_uploaded_and_compared(run: Run, service: Service, write: Write, tmp_path: Path) -> None:
    package = SMALL.partition("[apps.shop.channels")[0].partition("url =")[0]
    run(f"apply {write(SMALL)} --yes")
    (tmp_path / "web.bin").write_bytes(b"first\n")
    declared = f'{package.replace("1.0.0", "1.1.0")}file = "web.bin"\n'

    run(f"apply {write(declared)} --yes")
    again = run(f"apply {write(declared)} --yes").stdout
    (tmp_path / "web.bin").write_bytes(b"other\n")
    changed = run(f"apply {write(declared)} --yes", code=1).stderr
    (tmp_path / "web.bin").unlink()
    gone = run(f"apply {write(declared)} --yes", code=1).stderr

    assert 6 == service.store.packages.get("shop", "1.1.0").size_bytes
    assert "nothing to change" in again
    assert "a package never changes" in changed
    assert 'shop.toml:5: apps.shop.packages."1.1.0".file web.bin: no such file' in gone


def test_another_operator_who_is_faster_is_not_overwritten_and_it_says_what_was_applied(
    run: Run, service: Service, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. the plan is made: a new package, another number of slots, another version of the channel
    2. before the slots are written, somebody else changes the group
    """
    run(f"apply {write(SMALL)} --yes")
    changed = write(SMALL.replace("1.0.0", "1.1.0").replace("slots = 2", "slots = 1"))
    real = ServiceClient.change

    def overtaken(self: ServiceClient, method: str, *path: str, **options: object) -> object:
        if method == "PATCH":
            service.store.groups.update("shop", "web", label="Somebody else's")
        return real(self, method, *path, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(ServiceClient, "change", overtaken)
    stopped = run(f"apply {changed} --yes", code=1)
    monkeypatch.setattr(ServiceClient, "change", real)

    assert "done: + package shop 1.1.0" in stopped.stdout
    assert [
        "applied: 1 change, listed above as done",
        "not applied, or in part: ~ group shop/web",
        "not applied: ~ channel shop/stable",
    ] == stopped.stderr.splitlines()[1:4]
    assert stopped.stderr.startswith("Error: group shop/web: ")
    assert (2, "1.0.0") == (
        service.store.groups.get("shop", "web").slots,
        service.store.channels.get("shop", "stable").version,
    )
    assert "applied 2 changes" in run(f"apply {changed} --yes").stdout
    assert (1, "Somebody else's") == (
        service.store.groups.get("shop", "web").slots,
        service.store.groups.get("shop", "web").label,
    )


TASKS = """
[apps.shop.packages."1.0.0".tasks]
pre = "bin/migrate up --to '1.0.0'"

[apps.shop.packages."1.0.0".tasks.tidy]
kind = "on-failure"
command = ["/usr/local/bin/tidy", "all of it"]
limit_s = "15min"
repeatable = true
"""


def test_tasks_of_a_package_come_and_are_exported_in_their_order(run: Run, service: Service, write: Write) -> None:
    path = write(SMALL + TASKS)

    shown = run(f"diff {path}").stdout
    run(f"apply {path} --yes")

    assert "task pre: bin/migrate up --to 1.0.0" in shown
    assert "task tidy (on-failure): /usr/local/bin/tidy 'all of it'" in shown
    pre, tidy = service.store.packages.get("shop", "1.0.0").tasks
    assert (("bin/migrate", "up", "--to", "1.0.0"), 600.0) == (pre.command, pre.limit_s)
    assert ("on-failure", 900.0, True) == (tidy.kind, tidy.limit_s, tidy.repeatable)
    assert "nothing to change" in run(f"apply {path} --yes").stdout
    exported = write(run("export").stdout, "exported.toml")
    assert "no changes" in run(f"diff {exported} --exit-code").stdout
    assert "tasks" in exported.read_text()


def test_extra_files_beside_an_uploaded_payload_come_and_are_exported(run: Run, service: Service, write: Write) -> None:
    write("payload", "web.bin")
    write("signature", "web.sig")
    uploaded = SMALL.replace('url = "http://files.example/shop-1.0.0.tar"', 'file = "web.bin"')
    uploaded = uploaded.replace("size_bytes = 6\n", "").replace(f'sha256 = "{SHA256}"\n', "")
    path = write(uploaded + '\n[apps.shop.packages."1.0.0".extra_files]\n"web.sig" = "web.sig"\n')

    shown = run(f"diff {path}").stdout
    run(f"apply {path} --yes")

    assert "extra file web.sig, 9 bytes" in shown
    (extra,) = service.store.packages.get("shop", "1.0.0").files
    assert ("web.sig", 9) == (extra.name, extra.size_bytes)
    assert "nothing to change" in run(f"apply {path} --yes").stdout
    exported = write(run("export").stdout, "exported.toml")
    assert f'stored = "{extra.sha256}"' in exported.read_text()
    assert "no changes" in run(f"diff {exported} --exit-code").stdout

    write("another one", "web.sig")
    refused = run(f"diff {path}", code=1)
    assert "has other extra files at the service (web.sig); a package never changes" in refused.stderr


def test_extra_files_beside_an_address_are_measured_or_said(run: Run, service: Service, write: Write) -> None:
    write("signature", "a.sig")
    more = f'"a.sig" = {{ file = "a.sig" }}\n"b.sig" = {{ size_bytes = 3, sha256 = "{SHA256}" }}\n'
    path = write(f'{SMALL}\n[apps.shop.packages."1.0.0".extra_files]\n{more}')

    run(f"apply {path} --yes")

    found = service.store.packages.get("shop", "1.0.0").files
    assert [("a.sig", 9, True), ("b.sig", 3, False)] == [(one.name, one.size_bytes, bool(one.sha1)) for one in found]
    exported = write(run("export").stdout, "exported.toml")
    assert "no changes" in run(f"diff {exported} --exit-code").stdout


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (
            '"x.sig" = { stored = "' + SHA256 + '" }',
            "a table with file, or with size_bytes and sha256",
        ),
        ('"x.sig" = { size = 3 }', "unknown"),
        ('"x.sig" = "x.sig"', "extra file x.sig: no such file in"),
    ],
)
def test_extra_files_that_can_not_be_are_refused_with_their_line(
    run: Run, write: Write, entry: str, words: str
) -> None:
    path = write(f'{SMALL}\n[apps.shop.packages."1.0.0".extra_files]\n{entry}\n')

    refused = run(f"diff {path}", code=1)

    assert words in refused.stderr
    assert "shop.toml:" in refused.stderr


def test_other_tasks_of_a_package_that_is_there_are_refused(run: Run, write: Write) -> None:
    run(f"apply {write(SMALL + TASKS)} --yes")
    run(f"apply {write(SMALL)} --yes")  # the file doesn't speak of them

    found = run(f"apply {write(SMALL + TASKS.replace('up', 'down'))} --yes", code=1)

    assert "has other tasks at the service (task pre: bin/migrate up" in found.stderr


@pytest.mark.parametrize(
    ("task", "problem"),
    [
        ('warm = "bin/warm"', "task 'warm': kind 'warm' is none of pre, post, contract, on-failure; give it a kind"),
        ("pre = { command = 3 }", "task 'pre': command must be a text"),
        ('pre = { command = "bin/x", limit_s = "soon" }', "task 'pre': limit_s 'soon': write a time such as 90s"),
        ('pre = { command = "bin/x", per = "day" }', "task 'pre': per 'day' is none of payload, release"),
        ('pre = { program = "bin/x" }', "program: unknown; known: kind, command"),
    ],
)
def test_a_task_that_cannot_be_is_a_line_with_its_place(write: Write, task: str, problem: str) -> None:
    path = write(f'{SMALL}\n[apps.shop.packages."1.0.0".tasks]\n{task}\n')

    with pytest.raises(DeclarationError) as raised:
        read_declaration(path)

    assert problem in str(raised.value)
    assert "shop.toml:" in str(raised.value)


def test_what_the_file_does_not_say_stays(run: Run, service: Service, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")
    run("group pause shop/web")
    run("group create --app-id=shop --group-id=other --channel=stable")

    assert "nothing to change" in run(f"apply {write(SMALL)} --yes").stdout
    assert service.store.groups.get("shop", "web").paused
    run(f"apply {write('[apps.shop]' + chr(10))} --yes")
    assert 1 == service.store.rollouts.policy("shop", "web").canary


def test_a_policy_that_is_named_is_the_whole_policy(run: Run, service: Service, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")

    run(f"apply {write(SMALL.replace('canary = 1, ', ''))} --yes")

    policy = service.store.rollouts.policy("shop", "web")
    assert (0, 1) == (policy.canary, len(policy.windows))


def test_a_calendar_and_an_approval_are_written_in_words_and_come_back(
    run: Run, service: Service, write: Write
) -> None:
    words = (
        'deny_windows = ["fri 16:00-24:00"], freezes = ["2026-12-20..2027-01-03 holidays"], approval = true,'
        ' approve_after_s = "2h"'
    )
    run(f"apply {write(SMALL.replace('canary = 1', words))} --yes")

    policy = service.store.rollouts.policy("shop", "web")
    assert (True, 7200) == (policy.approval, policy.approve_after_s)
    assert "2026-12-20" == policy.freezes[0].begins
    text = run("export shop").stdout
    assert 'freezes = ["2026-12-20..2027-01-03 holidays"]' in text
    assert "nothing to change" in run(f"apply {write(text)} --yes").stdout
    alone = run(f"diff {write(SMALL.replace('canary = 1', 'approve_after_s = 60'))}", code=1).stderr
    assert "shop.toml:15: apps.shop.groups.web.policy: approve_after_s: nothing waits for an approval" in alone


def test_prune_removes_what_is_not_named_within_the_apps_that_are(run: Run, service: Service, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")
    run("app create --app-id=another")
    run("group create --app-id=shop --group-id=old --channel=beta")
    run(f"package create --app-id=shop --version=0.9.0 --url=http://x/a.tar --size=1 --sha256={SHA256}")
    run("webhook create ops --url=https://example.org/x")
    run("webhook create ours --url=https://example.org/x --app-id=shop")

    shown = run(f"diff {write(SMALL)} --prune").stdout.splitlines()
    run(f"apply {write(SMALL)} --prune --yes")

    assert [
        "- group shop/old  (0 instances)",
        "- channel shop/beta",
        "- package shop 0.9.0",
        "- webhook ours",
    ] == shown
    assert ["web"] == [group.id for group in service.store.groups.list("shop")]
    assert ["1.0.0"] == [package.version for package in service.store.packages.list("shop")]
    assert {"another", "shop"} == {app.id for app in service.store.apps.list()}
    assert ["ops"] == [one["name"] for one in json.loads(run("webhook list --json").stdout)]
    assert "nothing to change" in run(f"apply {write(SMALL)} --prune --yes").stdout


def test_prune_keeps_what_is_needed_and_stops_at_a_group_that_lives(run: Run, service: Service, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")
    moved = SMALL.replace("1.0.0", "2.0.0")

    kept = run(f"apply {write(moved)} --prune --yes")

    assert "note: package shop 1.0.0 stays: package 1.0.0 is in use by channels stable" in kept.stderr
    assert "- package shop 1.0.0" in run(f"apply {write(moved)} --prune --yes").stdout
    run("group create --app-id=shop --group-id=old --channel=stable")
    be_alive(service.store, "old-1", NOON, app="shop", group="old")
    stopped = run(f"apply {write(moved)} --prune --yes", code=1).stderr
    assert "shop.toml:1: --prune would remove group old of shop, whose sidekicks run: old-1" in stopped


def test_a_secret_is_kept_unless_there_is_another(run: Run, service: Service, write: Write, tmp_path: Path) -> None:
    hooks = Webhooks(context=service.store.context, auditing=service.store.auditing)
    ours = "whsec_" + "A" * 43 + "="
    declared = '[apps.shop]\n[webhooks.ops]\nurl = "https://example.org/x"\n'

    made = run(f"apply {write(declared)} --yes").stdout
    (secret,) = re.findall(r"^note: webhook ops: secret: (whsec_\S+)$", made, re.MULTILINE)
    assert secret == hooks.get("ops").secret
    for kept in (f'{declared}secret = "***"\n', f'{declared}secret = "{secret}"\n'):
        assert "nothing to change" in run(f"apply {write(kept)} --yes").stdout
    run(f"apply {write(declared.replace('/x', '/y'))} --yes")
    assert ("https://example.org/y", secret) == (hooks.get("ops").url, hooks.get("ops").secret)

    (tmp_path / "ops.secret").write_text(f"{ours}\n")
    other = write(declared.replace("/x", "/y") + 'secret_file = "ops.secret"\n')
    shown = run(f"diff {other}").stdout
    run(f"apply {other} --yes")

    assert ["~ webhook ops", "    secret: another one"] == shown.splitlines()
    assert ours == hooks.get("ops").secret
    assert "nothing to change" in run(f"apply {other} --yes").stdout
    bad = write(f'{declared}secret = "hush"\n')
    assert "shop.toml:4: webhooks.ops.secret: must be whsec_" in run(f"diff {bad}", code=1).stderr


def test_export_of_one_app_has_its_webhooks_alone(run: Run, service: Service, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")
    run("webhook create ops --url=https://example.org/x")
    run("webhook create ours --url=https://example.org/x --app-id=shop")

    hooks = Webhooks(context=service.store.context, auditing=service.store.auditing)
    chat = Webhook(name="chat", url="slack://a/b/c", secret="", app="shop", kind="notification", created=NOON)
    put(service.store.context.cluster, webhook_key(service.store.context.keys, "chat"), encode(chat))

    text = run("export shop").stdout
    run(f"apply {write(SMALL)} --prune --yes")

    assert ["chat", "ops"] == [hook.name for hook in hooks.list()], "a file can't have a notification, nor remove it"
    assert "slack" not in text
    assert "[webhooks.ours]" in text
    assert "[webhooks.ops]" not in text
    assert "no app 'nothing'" in run("export nothing", code=1).stderr


def test_a_group_that_undo_took_back_stays_there(run: Run, service: Service, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")
    run(f"package create --app-id=shop --version=2.0.0 --url=http://x/a.tar --size=1 --sha256={SHA256}")
    run("channel update --app-id=shop --channel=stable --version=2.0.0")
    run("rollout undo shop/web --to=1.0.0 --yes")

    said = run(f"diff {write(SMALL)}")

    assert "note: group shop/web was taken back to 1.0.0 by `rollout undo`; it stays there" in said.stderr
    with pytest.raises(NotFound):
        service.store.apps.get("nothing")


ENVIRONMENT = """
[apps.shop.groups.web.environment]
arguments = ["--workers", "4"]
variables = { LOG_LEVEL = "info", ZONE = "a" }
secret_files = { DB_PASSWORD = "password" }
references = { KEY = "file:/etc/shop/key" }
"""


def test_an_environment_is_part_of_the_file(run: Run, service: Service, write: Write, tmp_path: Path) -> None:
    """
    1. a new group has it at once
    2. the same file changes nothing
    3. it is the whole environment: what is left out goes; a secret with another value is seen, and shown nowhere
    4. exported, the secret is masked, and applied again it stays
    """
    (tmp_path / "password").write_text("hunter2\n")
    file = write(SMALL + ENVIRONMENT)
    first = run(f"apply {file} --yes").stdout
    assert "    environment.LOG_LEVEL: none -> info" in first
    assert "    environment.arguments: none -> --workers 4" in first
    found = service.store.environments.get("shop", "web")
    assert found is not None
    assert ({"DB_PASSWORD": "hunter2"}, ("--workers", "4")) == (found.secrets, found.arguments)

    assert "nothing to change" in run(f"apply {file} --yes").stdout

    (tmp_path / "password").write_text("hunter3")
    write(SMALL + ENVIRONMENT.replace(', ZONE = "a"', "").replace("--workers", "--threads"))
    second = run(f"apply {file} --yes").stdout
    assert [
        "~ environment of group shop/web  (0 instances)",
        "    environment.ZONE: a -> none",
        "    environment.arguments: --workers 4 -> --threads 4",
        "    environment.DB_PASSWORD: another secret",
    ] == second.splitlines()[:4]
    found = service.store.environments.get("shop", "web")
    assert found is not None
    assert (2, {"LOG_LEVEL": "info"}, "hunter3") == (found.number, found.variables, found.secrets["DB_PASSWORD"])

    exported = run("export shop").stdout
    assert 'DB_PASSWORD = "***"' in exported
    assert "hunter" not in first + second + exported
    assert "nothing to change" in run(f"apply {write(exported, 'again.toml')} --yes").stdout


@pytest.mark.parametrize(
    ("environment", "problem"),
    [
        (
            'secrets = { A = "***" }',
            "environment.secrets.A: '***' keeps a secret that there is, and the group has none",
        ),
        ('variables = { PORT = "1" }', "variable PORT: outrider sets it itself"),
        ("variables = { A = 1 }", "environment.variables.A: must be a text"),
        ('arguments = "a b"', "environment.arguments: write a list of texts"),
        ('secret_files = { A = "absent" }', "environment.secret_files.A absent: No such file"),
        ('references = { A = "ftp:/x" }', "variable A: reference 'ftp:/x': write file:/PATH"),
        ('variable = { A = "b" }', "environment.variable: unknown; known: variables, secrets"),
    ],
)
def test_an_environment_that_cannot_be_is_a_line_with_its_place(
    run: Run, write: Write, environment: str, problem: str
) -> None:
    text = f"{SMALL}\n[apps.shop.groups.web.environment]\n{environment}\n"

    said = run(f"apply {write(text)} --yes", code=1).stderr

    assert problem in said
    assert re.search(r"shop\.toml:(17|18|19): ", said)


def test_an_environment_that_another_operator_changes_meanwhile_is_not_overwritten(
    run: Run, service: Service, write: Write
) -> None:
    run(f"apply {write(SMALL)} --yes")
    client = ServiceClient(service.url)
    _, tag = client.get_with_etag("apps", "shop", "groups", "web")
    run("env set shop/web A=b")

    with pytest.raises(Conflict, match="does not match `If-Match`"):
        client.change(
            "PATCH", "apps", "shop", "groups", "web", "environment", body={"variables": {"A": "c"}}, if_match=tag
        )


def test_a_dry_run_of_an_environment_changes_nothing(service: Service, run: Run, write: Write) -> None:
    run(f"apply {write(SMALL)} --yes")
    client = ServiceClient(service.url)
    place = ("apps", "shop", "groups", "web", "environment")
    client.patch(*place, body={"variables": {"A": "b"}, "secrets": {"S": "one"}})

    same = client.patch(*place, body={"variables": {"A": "b"}, "secrets": {"S": "one"}, "dry_run": True})
    other = client.patch(*place, body={"variables": {"A": "c"}, "secrets": {"S": "two"}, "dry_run": True})

    assert (1, []) == (same["number"], same["changes"])
    assert [("A", "b", "c"), ("S", "***", "***")] == [tuple(one.values()) for one in other["changes"]]
    assert 1 == client.get(*place)["number"]
