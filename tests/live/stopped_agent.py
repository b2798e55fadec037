"""A balancer agent that kills or stops itself at a failpoint, once: ``python -m tests.live.stopped_agent``.

``SIGNAL POINT WHEN DONE`` come first, then what is typed after ``outrider``. The file DONE is made right before; while
it is there nothing more happens. Everything else is the real program.
"""

import os
import signal
import sys
from pathlib import Path

from outrider.cli import main as outrider
from outrider.failpoints import FailpointHit, observe


def main() -> None:
    name, point, when, done = sys.argv[1:5]

    def die(hit: FailpointHit) -> None:
        if (hit.point, hit.when) == (point, when) and not Path(done).exists():
            Path(done).touch()
            os.kill(os.getpid(), signal.Signals[name])

    observe(die)
    outrider(sys.argv[5:])


if __name__ == "__main__":
    main()
