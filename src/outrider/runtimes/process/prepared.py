"""Unpacks releases ahead of their start, so that a turn isn't held while that goes on.

``prepared/SHA256`` holds ``root`` (what was unpacked) and ``unpacked`` (the boot on which that was done: after a power
cut files may be empty that were complete before). It gets its name when both are whole, so whatever has that name may
be used. A start moves ``root`` into its workload's folder: the app may write there, so no two workloads share one.

One thread makes and prunes, another one moves. All three change the names of folders in one step; who comes second
finds the folder gone and does without it.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Collection
from pathlib import Path

from outrider.core.blame import seen_in
from outrider.core.errors import DriverError
from outrider.failpoints import failpoint
from outrider.files import (
    clear_file,
    free_bytes,
    free_files,
    is_folder,
    make_folder,
    read_file,
    wanted_bytes,
    write_file,
)
from outrider.payloads.archive import MAX_MEMBERS, MAX_UNPACKED_BYTES, unpack
from outrider.runtimes import RunnableRelease
from outrider.runtimes.process.identity import boot_id

_SHA256 = re.compile(r"[0-9a-f]{64}")


class Prepared:
    """The releases of one instance that are unpacked and not yet started, in ``folder``."""

    def __init__(
        self,
        folder: Path,
        *,
        max_bytes: int = MAX_UNPACKED_BYTES,
        max_members: int = MAX_MEMBERS,
        reserve_bytes: int = 0,
    ) -> None:
        """``reserve_bytes`` of the disk stay free when something is unpacked ahead of its start."""
        self._folder, self._reserve_bytes = folder, reserve_bytes
        self._max_bytes, self._max_members = max_bytes, max_members

    def make(self, release: RunnableRelease) -> Path:
        """Unpack ``release``, unless that was done on this boot, and return where.

        Raises:
            Refused: as ``unpack``.
            DriverError: as ``unpack``; or there is no room for all of it.
        """
        home = self._home(release.sha256)
        if _unpacked_on_this_boot(home):
            return home / "root"
        partial = home.with_name(f"{home.name}.partial")
        with failpoint("workload.prepare"):
            try:
                shutil.rmtree(home, ignore_errors=True)
                shutil.rmtree(partial, ignore_errors=True)
                make_folder(self._folder)
                make_folder(partial)
                self._unpack(release, partial, reserve_bytes=wanted_bytes(partial, self._reserve_bytes))
                partial.rename(home)
            except OSError as error:
                raise DriverError(
                    f"{release.version}: can't unpack to {home}: {error.strerror or error}",
                    evidence=seen_in(error.errno),
                ) from error
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        return home / "root"

    def move(self, release: RunnableRelease, into: Path) -> None:
        """Give the workload folder ``into`` its ``root``: what was prepared, or unpacked now when nothing was.

        A ``root`` of this boot that is there already stays.

        Raises:
            As ``make``. OSError: ``into`` can't be written.
        """
        if _unpacked_on_this_boot(into):
            return
        root, done = into / "root", into / "unpacked"
        clear_file(done)
        if not is_folder(root):
            clear_file(root)
        shutil.rmtree(root, ignore_errors=True)
        home = self._home(release.sha256)
        if _unpacked_on_this_boot(home):
            # gone if it was pruned meanwhile
            with contextlib.suppress(FileNotFoundError):
                (home / "root").rename(root)
        if root.is_dir():
            write_file(done, boot_id().encode())
            shutil.rmtree(home, ignore_errors=True)
        else:
            # What should run goes before the reserve: it may be the only thing that this machine can serve.
            self._unpack(release, into, reserve_bytes=0)

    def _unpack(self, release: RunnableRelease, into: Path, *, reserve_bytes: int) -> None:
        """Unpack to ``into/root``, and say on which boot that was whole."""
        unpack(
            release.payload,
            into / "root",
            max_bytes=self._max_bytes,
            max_members=self._max_members,
            room_bytes=free_bytes(into) - reserve_bytes,
            room_files=free_files(into),
        )
        write_file(into / "unpacked", boot_id().encode())

    def prune(self, needed: Collection[str]) -> None:
        """Remove all but ``needed`` (SHA-256s), and what a killed run left half done."""
        with contextlib.suppress(OSError):
            for entry in sorted(os.listdir(self._folder)):
                if entry not in needed:
                    self._remove(self._folder / entry)

    def _remove(self, home: Path) -> None:
        with contextlib.suppress(OSError), failpoint("workload.prune"):
            trash = home
            if _SHA256.fullmatch(home.name):
                # renamed first: a half-removed root would be taken for a whole one
                trash = home.with_name(f"{home.name}.removed")
                shutil.rmtree(trash, ignore_errors=True)
                home.rename(trash)
            shutil.rmtree(trash)

    def _home(self, sha256: str) -> Path:
        if not _SHA256.fullmatch(sha256):
            raise ValueError(f"sha256 {sha256!r}")
        return self._folder / sha256


def _unpacked_on_this_boot(home: Path) -> bool:
    try:
        return is_folder(home / "root") and read_file(home / "unpacked").decode(errors="replace") == boot_id()
    except OSError:  # not there, or something else in its place
        return False
