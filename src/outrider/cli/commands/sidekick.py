"""``outrider sidekick run`` and ``shutdown``."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import click
from loguru import logger

from outrider.cli.main import Group

if TYPE_CHECKING:
    from outrider.balancers import Balancer
    from outrider.config.sections import MetricsSettings
    from outrider.sidekick.gauges import Gauges


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
@click.option(
    "--config-dir",
    "folder",
    type=click.Path(path_type=Path),
    help="Folder with a file NAME.toml for each instance: run all of them in one process. --config files are read"
    " before each of them. A changed file is applied at once, or on SIGHUP.",
)
@click.option(
    "--file",
    "declaration",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="The file of `outrider apply`: run instances of APP/GROUP with the settings in its `sidekick` table.",
)
@click.option(
    "--instances",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    help="With --file: how many run on this machine, called GROUP-1, GROUP-2 and so on.",
)
@click.option(
    "--dir",
    "work_dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("outrider-sidekicks"),
    show_default=True,
    help="With --file: folder for their settings, journals and workloads.",
)
@click.option("-v", "--verbose", count=True, help="Log more; twice to log everything.")
@click.argument("address", metavar="[APP/GROUP]", required=False)
def run(
    files: tuple[Path, ...],
    folder: Path | None,
    declaration: Path | None,
    instances: int,
    work_dir: Path,
    verbose: int,
    address: str | None,
) -> None:
    """Keep this machine's instance at the target version of its group.

    Ends on SIGTERM and SIGINT within seconds; the instance itself goes on running. With --file, several instances of
    one group run in one process, as with --config-dir.
    """
    from outrider.config.load import load_settings
    from outrider.log import setup_logging
    from outrider.sidekick.assemble import Assembly

    if declaration is not None:
        if folder is not None:
            raise click.UsageError("--file and --config-dir exclude each other: give one of them")
        from outrider.cli.declared.sidekicks import write_settings

        folder = write_settings(declaration, address, instances, work_dir.absolute())
    elif address is not None:
        raise click.UsageError("APP/GROUP needs --file; a settings file says it in [instance]")
    if folder is not None:
        run_several(files, folder, verbose)
        return
    loaded = load_settings(files, os.environ)
    settings = loaded.settings
    setup_logging(settings.log, verbosity=verbose)
    logger.configure(extra={"instance": settings.instance.id})  # of every thread
    for line in loaded.warnings:
        logger.bind(setting=line).warning("a setting should be changed")
    assembly = Assembly(settings, owns_process=True)
    # A thread that dies unseen would leave a sidekick that lives and no longer does its work.
    threading.excepthook = lambda failed: assembly.crash(failed.exc_value or RuntimeError(str(failed.exc_type)))
    on_signals((signal.SIGTERM, signal.SIGINT), assembly.stop)
    with _metrics(settings.metrics, lambda: (assembly.gauges(),)):
        assembly.run()


def _metrics(
    settings: "MetricsSettings", gauges: "Callable[[], Iterable[Gauges]]"
) -> contextlib.AbstractContextManager[str]:
    """Expose what is measured of this process's instances, as ``[metrics]`` says."""
    from outrider.metrics import exposed
    from outrider.sidekick.gauges import HELPS, samples

    return exposed(
        lambda: [sample for one in gauges() for sample in samples(one)],
        HELPS,
        listen=settings.listen,
        textfile=settings.textfile,
        every_s=settings.textfile_interval_s,
    )


def run_several(common: tuple[Path, ...], path: Path, verbose: int) -> None:
    """Run the instances of a folder until a signal ends it."""
    from outrider.config.folder import Folder
    from outrider.config.sections import LogSettings, MetricsSettings
    from outrider.log import setup_logging
    from outrider.sd_notify import Notifier
    from outrider.sidekick.host import Host

    folder = Folder(path, common, os.environ)
    folder.read()
    first = next(iter(folder.loaded.values()), None)
    setup_logging(first.settings.log if first is not None else LogSettings(), verbosity=verbose)
    host = Host(folder, Notifier.from_environment(os.environ))
    threading.excepthook = lambda failed: host.crash(failed.exc_value or RuntimeError(str(failed.exc_type)))
    # whichever thread the kernel gives a signal to, the main one wakes every two seconds at least, and runs the handler
    signal.signal(signal.SIGHUP, lambda *_: host.reload())
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: host.stop())
    with _metrics(first.settings.metrics if first is not None else MetricsSettings(), host.gauges):
        host.run()


@sidekick.command()
@click.option(
    "--config",
    "files",
    multiple=True,
    type=click.Path(path_type=Path, dir_okay=False),
    help="TOML file; repeatable, later files win. Default: the drop-ins in /usr/lib, /etc and /run/outrider.",
)
@click.option("--anyway", is_flag=True, help="Drain although the machine isn't shutting down.")
def shutdown(files: tuple[Path, ...], anyway: bool) -> None:
    """Drain this machine's instance because the machine shuts down; it comes back after the boot.

    For the unit outrider-shutdown@, which runs it before the sidekick and the app are stopped. It does nothing unless
    instance.drain_at_shutdown is true and systemd says that the system is stopping.
    """
    from outrider.balancers.drivers import BALANCERS, BalancerContext
    from outrider.config.load import load_settings
    from outrider.core.omaha import app_key
    from outrider.etcd.client import connect
    from outrider.model.documents import Owner, Presence
    from outrider.model.keys import Keys
    from outrider.sidekick.assemble import etcd_address
    from outrider.sidekick.shutdown import ShutdownDrain
    from outrider.sidekick.workers.worker import now

    settings = load_settings(files, os.environ).settings
    instance = settings.instance
    if not instance.drain_at_shutdown:
        click.echo("instance.drain_at_shutdown is false: nothing is drained")
        return
    if not anyway and not is_stopping():
        click.echo("the machine isn't shutting down: nothing is drained (--anyway does it)")
        return
    with closing(connect(etcd_address(settings.etcd))) as cluster:

        def balancer(presence: Presence) -> "Balancer":
            owner = Owner(
                app=app_key(instance.app), group=instance.group, instance=instance.id, process=presence.process
            )
            context = BalancerContext(cluster=cluster, keys=Keys(settings.etcd.prefix), owner=owner)
            return BALANCERS.load(instance.balancer).make(settings, context)

        left = ShutdownDrain(settings, cluster, balancer, now=now).run()
    click.echo(f"instance {instance.id} gets no more requests: {left.how}")


def is_stopping() -> bool:
    """Whether systemd says that the machine is shutting down or rebooting."""
    try:
        said = subprocess.run(
            ["systemctl", "is-system-running"], capture_output=True, text=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return said.stdout.strip() == "stopping"


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
