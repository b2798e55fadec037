"""Make src/outrider/verify/outside_views.json, the chart's outside view that ships, or check that it is up to date.

python tools/outside_view.py                          makes all views, some minutes
python tools/outside_view.py "start-first dies" ...   makes these, and keeps the others of the same chart
python tools/outside_view.py --check                  changes nothing; leaves with 1 when the digest is another one
"""

import sys
import time
from pathlib import Path

from outrider.core.sidekick.memory import Strategy
from outrider.statechart import find_sidekick_chart, load_sidekick_chart
from outrider.verify.check import STRATEGIES
from outrider.verify.outside import FILE, RELEASES, OutsideView, digest_of, make_view, read_views, written
from outrider.verify.steps import Steps
from outrider.verify.world import Badness

TARGET = Path(__file__).resolve().parent.parent / "src/outrider/verify" / FILE


def main(wanted: list[str]) -> int:
    """Make the wanted views, one after the other, and write the file after each."""
    digest = digest_of(find_sidekick_chart().read_bytes())
    known: dict[tuple[Strategy, Badness], OutsideView] = {}
    if TARGET.exists():
        chart, views = read_views(TARGET.read_text())
        if chart == digest:
            known = views
    if wanted == ["--check"]:
        stale = len(known) < len(STRATEGIES) * len(RELEASES)
        if stale:
            print(f"{FILE} was made of another chart: run tools/outside_view.py", file=sys.stderr)
        return int(stale)
    chart_ = load_sidekick_chart()
    for strategy in STRATEGIES:
        steps = Steps(chart_, strategy)
        for badness in RELEASES:
            if wanted and f"{strategy} {badness}" not in wanted:
                continue
            began_s = time.monotonic()
            view = known[strategy, badness] = make_view(chart_, strategy, badness, steps)
            TARGET.write_text(written(digest, known))
            took_s = time.monotonic() - began_s
            print(f"{strategy} {badness}: {view.states} states, {len(view.looks)} from outside, {took_s:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
