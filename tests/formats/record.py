"""Records what this version stores: ``python -m tests.formats.record``, at a release and until then at each change.

The folder of a version that was released is never written again: it is what the next one is held to.
"""

import json
from pathlib import Path
from typing import Any

from outrider import __version__
from tests.formats.examples import example, kinds, schema_of

FOLDER = Path(__file__).parents[1] / "data" / "formats"


def recorded(version: str = __version__) -> dict[str, dict[str, Any]]:
    """Name of each kind -> its ``example`` and ``schema`` in that version."""
    found: dict[str, dict[str, Any]] = json.loads((FOLDER / f"{version}.json").read_text())
    return found


def present() -> dict[str, dict[str, Any]]:
    """The same of the code as it is."""
    made = {name: {"example": example(kind), "schema": schema_of(kind)} for name, kind in kinds().items()}
    plain: dict[str, dict[str, Any]] = json.loads(json.dumps(made, default=str))
    return plain


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    path = FOLDER / f"{__version__}.json"
    path.write_text(json.dumps(present(), indent=1, sort_keys=True) + "\n")
    print(f"{path.name}: {len(kinds())} kinds")
