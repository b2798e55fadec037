"""A machine whose locale isn't UTF-8 unpacks the same names as any other."""

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

UNPACK = """
import sys
from pathlib import Path
from outrider.payloads.archive import unpack
assert sys.getfilesystemencoding() == "ascii", sys.getfilesystemencoding()
unpack(Path(sys.argv[1]), Path(sys.argv[2]))
"""
ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("name", ["static/日本語.txt", "grüße.txt", "caf\udce9.txt", "a/ß/😀"])
def test_names_beyond_the_locale_come_out_as_their_bytes(tmp_path: Path, name: str) -> None:
    payload, root = tmp_path / "app.tar", tmp_path / "root"
    with tarfile.open(payload, "w", encoding="utf-8", errors="surrogateescape") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())

    subprocess.run(
        [sys.executable, "-c", UNPACK, str(payload), str(root)], env={**os.environ, **ASCII}, check=True, timeout=60
    )

    assert os.path.isfile(os.path.join(os.fsencode(root), name.encode("utf-8", "surrogateescape")))
