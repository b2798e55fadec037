"""``outrider sidekick run``."""

import os
import signal
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import click
from loguru import logger

from outrider.cli.main import Group


@click.group(cls=Group)
def sidekick() -> None:
    """Run the process that updates one instance of an app."""


@sidekick.command()
@click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file; repeatable, later files win. Default: the drop-ins in /usr/lib, /etc and /run/outrider.",
)
@click.option("-v", "--verbose", count=True, help="Log more; twice to log everything.")
def run(files: tuple[Path, ...], verbose: int) -> None:
    """Keep this machine's instance at the target version of its group.

    Ends on SIGTERM and SIGINT within seconds; the instance itself goes on running.
    """
    from outrider.config.load import load_settings
    from outrider.log import setup_logging
    from outrider.sidekick.assemble import Assembly

    loaded = load_settings(files, os.environ)
    settings = loaded.settings
    setup_logging(settings.log, verbosity=verbose)
    for line in loaded.warnings:
        logger.bind(setting=line).warning("a setting should be changed")
    assembly = Assembly(settings, owns_process=True)
    # A thread that dies unseen would leave a sidekick that lives and no longer does its work.
    threading.excepthook = lambda failed: assembly.crash(failed.exc_value or RuntimeError(str(failed.exc_type)))
    on_signals((signal.SIGTERM, signal.SIGINT), assembly.stop)
    assembly.run()


def on_signals(numbers: Iterable[signal.Signals], stop: Callable[[], None]) -> None:
    """Call ``stop``, from a thread, when one of the signals comes.

    A handler in Python waits for the main thread, which may sleep in a lock for an hour when the kernel gives the
    signal to another thread. The wake-up pipe is written by the signal itself, on whatever thread it comes.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in numbers:
        signal.signal(number, lambda *_: None)

    def wait() -> None:
        os.read(reader, 1)
        stop()

    threading.Thread(target=wait, name="signals", daemon=True).start()
