"""Files and folders of our own on this machine's disk: private, and never another thing than we think.

Files are 0600 and folders 0700, whatever the umask is. A symbolic link is never followed, written or truncated. What
stands in the place of one of our files or folders and isn't one (a folder, a link, a pipe) is *set aside*: renamed to
``NAME.damaged-1``, where a person finds it, never removed.
"""

import contextlib
import errno
import os
import stat
from pathlib import Path

FULL_BYTES = 64 * 1024
SHARE = 16
"""What is reserved of a small disk is at most this part of all of it."""

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_ASIDE = ".damaged-"
_MOST_ASIDE = 1000


def set_aside(path: Path) -> Path:
    """Rename what stands at ``path`` (a link itself, not what it leads to), and return its new place.

    Raises:
        OSError: it can't be renamed.
    """
    for number in range(1, _MOST_ASIDE):
        place = path.with_name(f"{path.name}{_ASIDE}{number}")
        if not os.path.lexists(place):
            path.rename(place)
            return place
    raise FileExistsError(errno.EEXIST, "too many files were set aside; remove some", str(path))


def is_file(path: Path) -> bool:
    """Whether a regular file stands there, and not a link to one."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def is_folder(path: Path) -> bool:
    """Whether a folder stands there, and not a link to one."""
    try:
        return stat.S_ISDIR(path.lstat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def open_file(path: Path, flags: int) -> int:
    """A descriptor of the regular file at ``path``, made when ``flags`` say so; private from then on.

    Raises:
        OSError: also when something else than a file stands there: ``ELOOP`` for a link, ``EISDIR`` for a folder.
    """
    # without waiting: opening a pipe would wait for somebody at its other end
    descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK, FILE_MODE)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            number = errno.EISDIR if stat.S_ISDIR(found.st_mode) else errno.ENOTSUP
            raise OSError(number, "not a regular file", str(path))
        if stat.S_IMODE(found.st_mode) != FILE_MODE:
            with contextlib.suppress(PermissionError):  # another user's, and readable to us
                os.fchmod(descriptor, FILE_MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_file(path: Path) -> bytes:
    """What is in the regular file at ``path``.

    Raises:
        OSError: as ``open_file``.
    """
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def write_file(path: Path, content: bytes) -> None:
    """Write a file that is there whole or not at all: under another name first, and synced.

    Raises:
        OSError: it can't be written; nothing of it is left.
    """
    partial = path.with_name(f"{path.name}.partial")
    clear_file(partial)
    try:
        with open(open_file(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        clear_file(path, keep=True)
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def clear_file(path: Path, *, keep: bool = False) -> None:
    """Make room for a file: a file that stands there goes (unless ``keep``), anything else is set aside.

    Raises:
        OSError: it can't be removed or renamed.
    """
    if not os.path.lexists(path):
        return
    if not is_file(path):
        set_aside(path)
    elif not keep:
        path.unlink()


def make_folder(path: Path) -> None:
    """A folder at ``path``, private; one that is there already becomes it. Folders above are made as well.

    Raises:
        OSError: it can't be made.
    """
    if os.path.lexists(path) and not is_folder(path):
        set_aside(path)
    for above in reversed([path, *path.parents]):
        if not above.exists():
            above.mkdir(exist_ok=True)
            above.chmod(FOLDER_MODE)
    if stat.S_IMODE(path.lstat().st_mode) != FOLDER_MODE:
        with contextlib.suppress(PermissionError):
            path.chmod(FOLDER_MODE)


def sync_folder(path: Path) -> None:
    """Return when the names in a folder are on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_bytes(folder: Path) -> int:
    """What may still be written to the disk of ``folder``, which need not be there yet."""
    found = os.statvfs(_existing(folder))
    return found.f_bavail * found.f_frsize


def wanted_bytes(folder: Path, limit_bytes: int) -> int:
    """How much of the disk of ``folder`` is to stay free: ``limit_bytes``, or less on a small disk."""
    found = os.statvfs(_existing(folder))
    return min(limit_bytes, found.f_blocks * found.f_frsize // SHARE)


def free_files(folder: Path) -> int | None:
    """How many files may still be made there; None where the file system doesn't count them."""
    found = os.statvfs(_existing(folder))
    return found.f_favail if found.f_files else None


def is_full(folder: Path) -> bool:
    """Whether hardly anything can be written to the disk of ``folder`` any more."""
    return free_bytes(folder) < FULL_BYTES or free_files(folder) == 0


def file_name(text: str) -> str:
    """A name of the settings as the file system knows it, whatever this machine's locale is: names are UTF-8 there."""
    return os.fsdecode(text.encode("utf-8", "surrogateescape"))


def as_bytes(text: str) -> bytes:
    """What a program is given for ``text``: in the locale's encoding, in UTF-8 where that has no such character."""
    try:
        return os.fsencode(text)
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogateescape")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
