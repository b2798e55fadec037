"""A container that systemd runs, as a person at its terminal uses it."""

from pathlib import Path

from tests.partitions.containers import Container
from tests.support.waiting import eventually

HERE = "/srv/shared"
"""Where a machine sees what the site shares with it."""
PROGRAMS = "/srv/programs"
"""Where the balancers' machine sees Traefik and HAProxy."""
WITHIN_S = 240.0
"""When to give up on a fact; several times what it takes on a machine with other work."""


class Machine:
    """A container that systemd runs."""

    def __init__(self, container: Container, shared: Path) -> None:
        self.container, self.shared = container, shared
        self.name, self.address = container.name, container.address

    def run(self, line: str) -> str:
        """What a line prints that root types; it must leave with 0."""
        return self.container.run(f"export DEBIAN_FRONTEND=noninteractive; {line}")

    def try_to_run(self, line: str) -> str:
        """The same for what need not work."""
        try:
            return self.run(line)
        except AssertionError as error:
            return str(error)

    def write(self, path: str, text: str) -> None:
        """A file on it, which all may read."""
        source = self.shared / f"{self.name}.file"
        source.write_text(text)
        self.run(f"mkdir -p '{Path(path).parent}'; install -m 644 {HERE}/{source.name} '{path}'")

    def await_up(self) -> None:
        """Return when systemd has started everything."""

        def is_up() -> bool:
            if (words := self.container.ended()) is not None:
                raise RuntimeError(f"systemd has ended in {self.name}: {words}")
            said = self.try_to_run("systemctl is-system-running || true").split()
            return said in (["running"], ["degraded"])

        eventually(is_up, WITHIN_S, every_s=0.2)

    def reboot(self) -> None:
        """Shut it down in good order, as a person types it, and start it again once it is off."""
        self.run("systemctl reboot --no-block")
        eventually(lambda: self.container.ended() is not None, WITHIN_S, every_s=0.1)
        self.container.start()
        self.await_up()
