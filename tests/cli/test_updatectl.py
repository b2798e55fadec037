"""The script ``updatectl``: Go's flags, the verbs of 2014, exit codes, and its own name in what it says."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from outrider.cli.commands.updatectl import Unusable, modern
from outrider.cli.commands.updatectl import main as updatectl
from outrider.cli.main import main
from tests.support.rest_stub import RestStub, Say

SCRIPT = Path(sys.executable).with_name("updatectl")
APP = "e96281a6-d1af-4bde-9a0a-97b76e56dc57"


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        # one dash or two, with = or a word of its own
        ("app list", "app list"),
        ("-server=http://x app list", "--server=http://x app list"),
        ("--server http://x app list", "--server=http://x app list"),
        ("-server http://x -debug app list", "--server=http://x --debug app list"),
        ("app update -app-id=x -label y --description=z=z", "app update --app-id=x --label=y --description=z=z"),
        ("app update --label -y", "app update --label=-y"),
        # switches
        ("--skip-ssl-verify=true app list", "--skip-ssl-verify app list"),
        ("--skip-ssl-verify=false app list", "app list"),
        ("-debug=0 app list", "app list"),
        ("instance fake -verbose=T -force-update=f -oem=x", "instance fake --verbose --oem=x"),
        ("channel update -publish=true -version=1.0.0", "channel update --publish=true --version=1.0.0"),
        ("channel update --publish --version=1.0.0", "channel update --publish --version=1.0.0"),
        ("channel update --publish=false", "channel update --publish=false"),
        # what is not ours stays as it is
        ("watch -app-id=x -group-id=y ./update.sh -v --now", "watch --app-id=x --group-id=y ./update.sh -v --now"),
        ("watch --app-id=x --group-id=y -- -odd", "watch --app-id=x --group-id=y -- -odd"),
        ("package create bulk -dir=x", "package create bulk --dir=x"),
        ("package create -version=1.0.0 -file=x", "package create --version=1.0.0 --file=x"),
        ("-version", "--version"),
        ("-help", "--help"),
        ("-h", "-h"),
        ("help app update", "help app update"),
        ("app explode -x=1", "app explode -x=1"),
        ("explode --x", "explode --x"),
        ("app list -no-such", "app list --no-such"),
        ("", ""),
        # the verbs of 2014
        (f"update-app {APP} CoreOS Linux", f"app update --app-id={APP} --label=CoreOS --description=Linux"),
        ("-u admin -k or_k -s http://x list-apps", "--user=admin --key=or_k --server=http://x app list"),
        ("-D list-packages x", "--debug package list --app-id=x"),
        ("update-channel x master 1.0.1", "channel update --app-id=x --channel=master --version=1.0.1"),
        (
            "new-group x master testing Testing",
            "group create --app-id=x --channel=master --group-id=testing --label=Testing",
        ),
        ("pause-group x testing", "group pause --app-id=x --group-id=testing"),
        ("rollup-group-events --resolution=3600 x y", "group events --resolution=3600 --app-id=x --group-id=y"),
        ("list-groups x", "group list --app-id=x"),
        (
            "new-package x 1.0.5 --path update.gz --size 23 --sha1sum aa --sha256sum=bb",
            "package create --app-id=x --file=update.gz --size=23 --sha1=aa --sha256=bb --version=1.0.5",
        ),
        ("new-package --version 1.1.0 --url http://x x", "package create --app-id=x --version=1.1.0 --url=http://x"),
        (
            "fakeclients -c 132 -m 1 -M 50 x beta 1.0.0",
            "instance fake --clients-per-app=132 --min-sleep=1 --max-sleep=50 "
            "--app-id=x --group-id=beta --version=1.0.0",
        ),
        ("watch x beta me ./updater.sh -a", "watch --app-id=x --group-id=beta --client-id=me ./updater.sh -a"),
    ],
)
def test_words_become_outriders(words: str, wanted: str) -> None:
    assert wanted.split() == modern(words.split(), main)


def test_a_value_with_blanks_stays_one_word() -> None:
    assert ["app", "update", "--label=Example App"] == modern(["app", "update", "-label", "Example App"], main)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("--server", "--server needs a value"),
        ("app update -label", "--label needs a value"),
        ("-debug=maybe app list", "--debug=maybe: write true or false"),
        ("update-app x", "update-app takes APP-ID LABEL DESCRIPTION, and here are 1 words"),
        ("new-group x master y", "takes APP-ID CHANNEL GROUP-ID LABEL, and here are 3 words"),
        ("new-package --version", "--version needs a value"),
        ("new-package", "takes APP [VERSION]"),
        ("fakeclients -c", "-c needs a value"),
        ("fakeclients x", "takes APP GROUP VERSION"),
        ("watch x beta me", "write --app-id and --group-id"),
    ],
)
def test_what_cannot_become_ours_says_why(words: str, why: str) -> None:
    with pytest.raises(Unusable) as problem:
        modern(words.split(), main)

    assert why in str(problem.value)


def test_what_has_no_meaning_here_is_left_out_and_said(capsys: pytest.CaptureFixture[str]) -> None:
    words = modern(["new-package", "x", "1.0.0", "--name", "foobar", "--signature=ixi", "--path=y"], main)

    assert ["package", "create", "--app-id=x", "--file=y", "--version=1.0.0"] == words
    printed = capsys.readouterr().err.splitlines()
    assert [f"note: --{name} is not supported; it is ignored" for name in ("name", "signature")] == printed


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a run left: as of ``subprocess.CompletedProcess``."""

    returncode: int
    stdout: str
    stderr: str


Run = Callable[..., Done]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs what the installed script runs, in this process: starting a Python for each takes half a second."""
    for name in [name for name in os.environ if name.startswith(("OUTRIDER_", "UPDATECTL_"))]:
        monkeypatch.delenv(name)

    def run(*words: str, **environment: str) -> Done:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), *words])
        with pytest.raises(SystemExit) as left:
            updatectl()
        printed = capsys.readouterr()
        assert isinstance(left.value.code, int)
        return Done(returncode=left.value.code, stdout=printed.out, stderr=printed.err)

    return run


def test_the_installed_script_runs_it() -> None:
    done = subprocess.run([str(SCRIPT), "explode"], capture_output=True, text=True, timeout=60, check=False)

    assert (3, "") == (done.returncode, done.stdout)
    assert "'updatectl' has no command 'explode'" in done.stderr


def test_it_speaks_of_itself_as_updatectl(run: Run) -> None:
    version, usage, group = run("-version"), run("--help"), run("app", "list", "-help")

    assert version.stdout.startswith("updatectl, version ")
    assert "Usage: updatectl [OPTIONS] COMMAND" in usage.stdout
    assert "Usage: updatectl app list [OPTIONS]" in group.stdout


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["app", "list", "-server=http://127.0.0.1:1"], 1, "Error: update service"),
        (["group", "list"], 2, "Usage: updatectl group list"),
        (["app", "update", "-label"], 2, "Error: --label needs a value"),
        (["app", "explode"], 3, "'updatectl app' has no command 'explode'"),
        (["explode"], 3, "'updatectl' has no command 'explode'"),
        (["upstream", "sync"], 1, "upstream sync: outrider doesn't copy"),
    ],
)
def test_exit_codes_are_updatectls(run: Run, words: list[str], code: int, said: str) -> None:
    done = run(*words)

    assert code == done.returncode
    assert said in done.stderr
    assert "" == done.stdout


def test_its_variables_are_updatectls(run: Run) -> None:
    with RestStub(lambda _: Say(body={"items": []})) as stub:
        done = run("app", "list", UPDATECTL_SERVER=stub.url + "/", UPDATECTL_USER="admin", UPDATECTL_KEY="or_k")

    assert (0, "Id\tLabel\tDescription\n") == (done.returncode, done.stdout)
    assert ["/api/v1/apps"] == [asked.target for asked in stub.asked]
    assert stub.asked[0].headers["authorization"].startswith("Basic ")


def test_its_shell_completion_knows_the_verbs(run: Run) -> None:
    done = run(_UPDATECTL_COMPLETE="bash_complete", COMP_WORDS="updatectl package cr", COMP_CWORD="2")

    assert ["plain,create"] == done.stdout.split()


REAL_COLUMNS = {
    "app list": ("Id", "Label", "Description"),
    "channel list": ("Label", "Version", "Publish", "Upstream"),
    "group list": ("Label", "App", "Channel", "Id", "Updates Paused", "Percent", "Rollout Active"),
    "package list": ("Version", "URL", "Size"),
    "instance list-updates": ("AppID", "ClientID", "Version", "LastSeen", "Group", "OEM"),
    "instance list-app-versions": ("AppID", "GroupID", "Version", "Clients"),
    "group versions": ("Version", "Timestamp", "Count"),
    "group events": ("Version", "Type", "Result", "Timestamp", "Count"),
}
"""Source: updateservicectl app.go, channel.go, group.go, pkg.go, instance.go."""


@pytest.mark.parametrize("verb", REAL_COLUMNS)
def test_tables_have_the_real_programs_columns_with_a_tab_between(verb: str, run: Run) -> None:
    flags = [] if verb == "app list" else ["--app-id=x"]
    flags += ["--group-id=y"] if verb in ("group versions", "group events") else []

    with RestStub(lambda _: Say(body={"items": []})) as stub:
        done = run(*verb.split(), *flags, UPDATECTL_SERVER=stub.url)

    assert 0 == done.returncode, done.stderr
    header = done.stdout.splitlines()[0].split("\t")
    assert list(REAL_COLUMNS[verb]) == header[: len(REAL_COLUMNS[verb])]


def test_a_cell_with_blanks_is_one_field(run: Run) -> None:
    app = {"id": "x", "label": "An  app", "description": "a\tb"}

    with RestStub(lambda _: Say(body={"items": [app]})) as stub:
        done = run("app", "list", UPDATECTL_SERVER=stub.url)

    assert ["x", "An  app", "a b"] == done.stdout.splitlines()[1].split("\t")
