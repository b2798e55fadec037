"""A sidekick that stands still where its test wants it to: everything else is the real program.

Before each step is acted on, and after it was journalled, the loop looks for ``NAME.hold`` beside its configuration.
While that names the step's state, the loop waits, as it would in a very slow sync of the journal: leases are kept and
watches are heard meanwhile. ``NAME.held`` tells that it stands there. So a cut that is made then is made at that state.
"""

import os
import signal
import sys
import time
import traceback
from pathlib import Path
from typing import NoReturn

from outrider.cli.commands.sidekick import on_signals
from outrider.config.load import load_settings
from outrider.journal.journal import Journal, Record
from outrider.log import setup_logging
from outrider.sidekick import assemble

POLL_S = 0.02
SLACK_S = 3.0
"""How far the chart's deadlines lie behind the drivers' here; 30 s in earnest."""


def become(config: Path) -> NoReturn:
    """Turn this forked process into the sidekick of ``config``; its output goes to ``NAME.log``."""
    status = 1
    try:
        os.setsid()
        log = os.open(config.with_suffix(".log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        os.dup2(log, 1)
        os.dup2(log, 2)
        run(config)
        status = 0
    except BaseException:  # noqa: BLE001 - the fork must not go on as its parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


def run(config: Path) -> None:
    """Work until SIGTERM."""
    hold, held = config.with_suffix(".hold"), config.with_suffix(".held")
    write = Journal.append

    def append(self: Journal, record: Record) -> None:
        write(self, record)
        while _read(hold) == record.target:
            if not held.exists():
                held.write_text(record.target)
            time.sleep(POLL_S)
        held.unlink(missing_ok=True)

    Journal.append = append  # type: ignore[method-assign]
    assemble._SLACK_S = SLACK_S
    settings = load_settings((config,), os.environ).settings
    setup_logging(settings.log)
    assembly = assemble.Assembly(settings)
    on_signals((signal.SIGTERM,), assembly.stop)
    assembly.run()


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except FileNotFoundError:
        return ""
