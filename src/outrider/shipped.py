"""Where the files are that come along with outrider: units, examples, dashboards."""

from importlib.resources import files
from pathlib import Path

from outrider.core.errors import ConfigError

CHECKOUT = {"units": "units", "examples": "docs/use/examples", "dashboards": "dashboards"}
"""Name of a folder -> where it is in a checkout; in a wheel it is beside the package's modules, under its name."""


def shipped(name: str) -> Path:
    """The folder ``name`` of ``CHECKOUT``.

    Raises:
        ConfigError: it is in neither place.
    """
    package = Path(str(files("outrider")))
    # an editable install does not see what the wheel's force-include puts beside the package
    for folder in (package / name, package.parent.parent / CHECKOUT[name]):
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"{name}: not installed: neither in {package} nor in a checkout around it; install outrider again"
    )
