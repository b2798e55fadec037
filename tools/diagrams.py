"""Write everything that is drawn from the statechart, or check that it is up to date.

    python tools/diagrams.py           writes docs/statecharts/* and the generated part of docs/develop/statechart.md
    python tools/diagrams.py --check   changes nothing; prints a diff and leaves with 1 when something is stale

Text is compared byte by byte, and so are the pictures of the strategies, which we place ourselves. The overview is
compared only by the renderer of the pinned version: another one draws the same picture with other bytes.
"""

import argparse
import difflib
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import get_args

from outrider.core.chart.draw import overview, sketch, to_table
from outrider.core.chart.draw_dot import to_dot
from outrider.core.chart.draw_mermaid import to_mermaid
from outrider.core.chart.draw_path import lay_out_path
from outrider.core.chart.draw_prune import prune
from outrider.core.chart.draw_svg import to_svg
from outrider.core.chart.flat import flattened
from outrider.core.chart.load import Chart
from outrider.core.errors import OutriderError
from outrider.core.sidekick.guards import decided_by
from outrider.core.sidekick.memory import Strategy
from outrider.statechart import load_sidekick_chart, render_picture

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path("docs/develop/statechart.md")
PICTURES = Path("docs/statecharts")
BEGIN = "<!-- chart:sidekick:begin -->"
END = "<!-- chart:sidekick:end -->"
RENDERER = "graphviz-pure"
STRATEGIES: tuple[Strategy, ...] = get_args(Strategy)


def texts(chart: Chart, page: str) -> dict[Path, str]:
    """Every generated text by its path; ``page`` is the docs page as it is now."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{PAGE}: the markers {BEGIN} and {END} are missing")
    return {
        PAGE: f"{before}{BEGIN}\n{generated(chart)}{END}{after}",
        PICTURES / f"{chart.name}.mmd": to_mermaid(overview(chart)),
        **{PICTURES / f"{chart.name}-{strategy}.svg": path_picture(chart, strategy) for strategy in STRATEGIES},
    }


def path_picture(chart: Chart, strategy: Strategy) -> str:
    """All that one strategy can do, as SVG."""
    return to_svg(lay_out_path(prune(flattened(chart), decided_by(strategy)), f"{chart.name}: {strategy}"))


def generated(chart: Chart) -> str:
    """The part of the docs page between the markers."""
    parts = [
        f"<!-- written by tools/diagrams.py from statecharts/{chart.source}: change that, then `make diagrams` -->",
        "\n## The whole at a glance\n",
        "Arrows with words are the successful path.",
        "Arrows without words are all other ways to a state.",
        "Every transition is listed below.\n",
        f"```mermaid\n{to_mermaid(overview(chart))}```\n",
        "## One strategy at a time\n",
        "Down the left side runs the success path, which the chart marks with `o:success`; beside it stands everything "
        "that can go wrong.\nWhat only the other strategy does is left out.\n",
        *(f"### {strategy}\n\n![{strategy}](../statecharts/{chart.name}-{strategy}.svg)\n" for strategy in STRATEGIES),
        "## Every state and every transition\n",
        "In document order, which is the order in which they are asked: a child before the states around it.\n",
        to_table(chart).replace("\n### ", "\n#### ").replace("### ", "#### ", 1),
    ]
    return "\n".join(parts)


def drawings(chart: Chart) -> dict[Path, str]:
    """Graphviz source of every SVG that the renderer draws, by the picture's path."""
    return {PICTURES / f"{chart.name}.svg": to_dot(sketch(chart), sideways=True)}


def has_pinned_renderer() -> bool:
    """Whether the renderer is installed in the version that pyproject.toml pins."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    try:
        return f"{RENDERER}=={version(RENDERER)}" in extras["diagrams"]
    except PackageNotFoundError:
        return False


def main() -> int:
    """Write or check; returns the exit code."""
    parser = argparse.ArgumentParser(description="Draw the statechart for the docs.")
    parser.add_argument("--check", action="store_true", help="change nothing, fail when something is stale")
    check = parser.parse_args().check
    try:
        chart = load_sidekick_chart()
        wanted = {path: text.encode() for path, text in texts(chart, (ROOT / PAGE).read_text()).items()}
        if has_pinned_renderer():
            wanted |= {path: render_picture(dot, "svg") for path, dot in drawings(chart).items()}
        else:
            print(f"the pinned {RENDERER} is not installed: the overview is left alone", file=sys.stderr)
    except OutriderError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    stale = {path: content for path, content in wanted.items() if content != _now(path)}
    surplus = sorted({path.relative_to(ROOT) for path in (ROOT / PICTURES).glob("*")} - wanted.keys())
    surplus = [path for path in surplus if path.suffix != ".svg" or has_pinned_renderer()]
    for path, content in stale.items():
        if check:
            print_difference(path, content)
        else:
            (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
            (ROOT / path).write_bytes(content)
            print(f"wrote {path}")
    for path in surplus:
        print(f"{path}: belongs to no picture of the chart any more" + ("" if check else "; removed"))
        if not check:
            (ROOT / path).unlink()
    if check and (stale or surplus):
        print("the drawings are stale: run 'make diagrams'", file=sys.stderr)
        return 1
    return 0


def print_difference(path: Path, wanted: bytes) -> None:
    """Show what would change; for a picture only that it would."""
    if path.suffix == ".svg":
        print(f"{path}: {'differs' if (ROOT / path).exists() else 'is missing'}")
        return
    now, then = _now(path).decode().splitlines(keepends=True), wanted.decode().splitlines(keepends=True)
    sys.stdout.writelines(difflib.unified_diff(now, then, f"{path} (now)", f"{path} (from the chart)"))


def _now(path: Path) -> bytes:
    return (ROOT / path).read_bytes() if (ROOT / path).exists() else b""


if __name__ == "__main__":
    raise SystemExit(main())
