"""Finds the statechart that ships with outrider, and draws pictures of charts."""

import shutil
import subprocess
import sysconfig
from importlib.resources import files
from pathlib import Path

from outrider.core.chart.load import Chart, load_chart
from outrider.core.errors import ChartError
from outrider.core.sidekick.rules import VOCABULARY

SIDEKICK = "sidekick.scxml"

RENDER_LIMIT_S = 60.0
"""Drawing takes some hundredths of a second; a minute means that it will never end."""


def read_chart_file(path: Path) -> bytes:
    """The content of a statechart file.

    Raises:
        ChartError: it can't be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise ChartError(path.name, None, f"can't be read: {error.strerror}") from error


def find_sidekick_chart() -> Path:
    """Where the sidekick's chart is: beside the package in a wheel, at the top of the checkout otherwise.

    Raises:
        ChartError: it is at neither place.
    """
    # An editable install does not see what the wheel's force-include puts beside the package.
    package = Path(str(files("outrider")))
    for folder in (package / "statecharts", package.parent.parent / "statecharts"):
        if (folder / SIDEKICK).is_file():
            return folder / SIDEKICK
    raise ChartError(SIDEKICK, None, f"is not installed: neither in {package} nor in a checkout around it")


def load_sidekick_chart() -> Chart:
    """The chart that every sidekick runs, checked.

    Raises:
        ChartError: it is missing, or unsound.
    """
    return load_chart_file(None)


def load_chart_file(file: Path | None) -> Chart:
    """The chart in ``file``, checked; None: the one that every sidekick runs.

    Raises:
        ChartError: it is missing, or unsound.
    """
    path = file or find_sidekick_chart()
    return load_chart(read_chart_file(path), path.name, VOCABULARY)


def render_picture(dot: str, kind: str, engine: tuple[str, ...] = ()) -> bytes:
    """Draw Graphviz source as ``svg`` or ``png``, without any system package.

    Args:
        engine: Options that choose the layout, when it isn't the usual one.

    Raises:
        ChartError: the optional extra ``diagrams`` is missing, or refuses the picture.
    """
    program = shutil.which("graphviz-pure", path=sysconfig.get_path("scripts")) or shutil.which("graphviz-pure")
    if program is None:
        raise ChartError("picture", None, f"{kind} needs graphviz-pure: pip install 'outrider[diagrams]'")
    drawn = subprocess.run(
        [program, *engine, f"-T{kind}"], input=dot.encode(), capture_output=True, timeout=RENDER_LIMIT_S, check=False
    )
    if drawn.returncode != 0:
        last = drawn.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise ChartError("picture", None, f"graphviz-pure failed with {drawn.returncode}: {last[0]}")
    return drawn.stdout
