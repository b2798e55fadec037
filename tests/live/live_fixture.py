"""A fixture with the words that the live tests need."""

from collections.abc import Mapping

from click.testing import CliRunner

from outrider.cli import main
from outrider.core.errors import DriverError
from outrider.demo.example import build_package
from outrider.demo.fleet import APP_ID, CHANNEL, GROUP, DemoFleet
from outrider.journal.journal import Record, read
from outrider.model.documents import Block, Presence, decode

HEALTHY_ANSWERS = {"good": None, "unhealthy": 0, "souring": 3}
"""Kinds of releases. ``unhealthy`` never proves healthy; ``souring`` does, by three answers, and then turns bad."""

TOLD_LINES = 30
"""Of a log, when a fleet isn't where it should be."""


class LiveFixture(DemoFleet):
    """Creates the app, publishes releases, and says where the fleet is."""

    def outrider(self, *arguments: str, check: bool = True) -> str:
        """As the demo's, but in this process: a program would take as long to start as many a test takes."""
        done = CliRunner().invoke(main, [str(each) for each in arguments], env=self.command_environment())
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        if check and done.exit_code != 0:
            raise DriverError(f"outrider {' '.join(arguments)}: {done.stderr.strip() or done.exit_code}")
        return done.stdout

    def command_environment(self) -> Mapping[str, str]:
        """Where commands find service and etcd."""
        return {"OUTRIDER_SERVER": self.operators_url, "OUTRIDER_ETCD": self.endpoint}

    def sign(self, version: str) -> None:
        """Sign a package before anybody is offered it; nobody asks for signatures here."""

    def create(self, slots: int = 1) -> None:
        """The app on 1.0.0, with one group."""
        self.outrider("app", "create", f"--app-id={APP_ID}", "--label=Example", "--description=live")
        self.publish("1.0.0")
        self.outrider(
            *("group", "create", f"--app-id={APP_ID}", f"--group-id={GROUP}", f"--channel={CHANNEL}"),
            *("--label=Production", f"--slots={slots}"),
        )

    def publish(self, version: str, kind: str = "good") -> None:
        """Make a package and point the channel at it."""
        package = build_package(self.folder, version, healthy_answers=HEALTHY_ANSWERS[kind])
        self.outrider("package", "create", f"--app-id={APP_ID}", f"--version={version}", f"--file={package}")
        self.sign(version)
        self.outrider("channel", "update", f"--app-id={APP_ID}", f"--channel={CHANNEL}", f"--version={version}")

    def presences(self) -> dict[str, Presence]:
        """Every sidekick's live state, by instance."""
        listing = self.cluster.list(self.keys.presences(APP_ID))
        found = (decode(Presence, entry.key, entry.value) for entry in listing.entries)
        return {one.instance: one for one in found}

    def all_on(self, version: str) -> bool:
        """Whether all instances run ``version`` and are at rest."""
        at_rest = [one for one in self.presences().values() if (one.version, one.state) == (version, "idle.waiting")]
        return len(at_rest) == len(self.instances)

    def expect_all_on(self, version: str) -> bool:
        """As ``all_on``, but says who is where when it isn't so.

        Raises:
            AssertionError: not all of them are.
        """
        if self.all_on(version):
            return True
        told = [f"{one.instance} {one.state} {one.version} ({one.why})" for one in self.presences().values()]
        for program in (*self.sidekicks.values(), self.service):
            told += [f"--- {program.name}", *program.log.read_text(errors="replace").splitlines()[-TOLD_LINES:]]
        raise AssertionError("\n".join([f"not all on {version}:", *told]))

    def blocked(self) -> list[str]:
        """Versions that are blocked."""
        listing = self.cluster.list(self.keys.blocks(APP_ID))
        return [decode(Block, entry.key, entry.value).version for entry in listing.entries]

    def records(self, instance: str) -> list[Record]:
        """The journal of ``instance``."""
        return read(self.state_dir(instance) / "journal.jsonl")
