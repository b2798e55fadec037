"""A sidekick that kills itself with SIGKILL at a chosen state, once: ``python -m tests.live.killed_sidekick``.

The kill comes right after the step into that state was journalled: either before anything of the step is done, or
after its effects were handed out. Everything else is the real program.
"""

import argparse
import os
import signal
from pathlib import Path

from outrider.cli.commands.sidekick import on_signals
from outrider.config.load import load_settings
from outrider.core.chart.machine import Step
from outrider.core.sidekick.events import AnyEvent
from outrider.journal.journal import Journal, Record
from outrider.log import setup_logging
from outrider.sidekick import loop
from outrider.sidekick.assemble import Assembly


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--config", type=Path, required=True)
    options.add_argument("--kill-at", required=True)
    options.add_argument("--after-acting", action="store_true")
    options.add_argument("--stop", action="store_true", help="SIGSTOP instead of SIGKILL")
    options.add_argument("--done", type=Path, required=True, help="made right before the kill; then no other follows")
    chosen = options.parse_args()

    def die() -> None:
        chosen.done.write_text(chosen.kill_at)
        os.kill(os.getpid(), signal.SIGSTOP if chosen.stop else signal.SIGKILL)

    write, settle = Journal.append, loop.Sidekick._settle

    def append(self: Journal, record: Record) -> None:
        write(self, record)
        if record.target == chosen.kill_at and not chosen.after_acting and not chosen.done.exists():
            die()

    def act(self: loop.Sidekick, event: AnyEvent | None, step: Step) -> bool:
        goes_on = settle(self, event, step)
        if step.target == chosen.kill_at and not step.dropped and not chosen.done.exists():
            die()
        return goes_on

    Journal.append = append  # type: ignore[method-assign]
    loop.Sidekick._settle = act  # type: ignore[method-assign]
    settings = load_settings((chosen.config,), os.environ).settings
    setup_logging(settings.log)
    assembly = Assembly(settings)
    on_signals((signal.SIGTERM,), assembly.stop)
    assembly.run()


if __name__ == "__main__":
    main()
