"""``python -m tests.soak --minutes 10 --seed 1``: exits 1 on any breach, and leaves nothing running."""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

from loguru import logger

from outrider.core.errors import OutriderError
from tests.soak.run import Soak, SoakFailed
from tests.support.servers import etcd_binary


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--secured", action="store_true", help="users and TLS in etcd, https, identity, signatures")
    options.add_argument("--keep", action="store_true", help="leave logs and journals when it fails")
    chosen = options.parse_args()
    os.environ.setdefault("OUTRIDER_DEMO_ETCD", str(etcd_binary()))
    logger.remove()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    folder = Path(tempfile.mkdtemp(prefix="outrider-soak-"))
    again = f"python -m tests.soak --seed {chosen.seed}{' --secured' if chosen.secured else ''}"
    say(f"seed {chosen.seed}, {chosen.minutes:g} minutes; again: {again}")
    soak = Soak(folder, chosen.seed, chosen.minutes, say, secured=chosen.secured)
    try:
        soak.run()
    except (SoakFailed, OutriderError, AssertionError) as error:
        soak.tally.breaches.append(str(error))
    for line in soak.summary():
        say(line)
    for breach in soak.tally.breaches:
        say(f"BREACH {breach}")
    if soak.tally.breaches and chosen.keep:
        say(f"logs and journals: {folder}")
    else:
        shutil.rmtree(folder, ignore_errors=True)
    say("FAILED" if soak.tally.breaches else "all as promised")
    return 1 if soak.tally.breaches else 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
