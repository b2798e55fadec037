"""The update service's Unix socket: where it is, how it is made, and how it is reached.

Only the user that runs the service, and root, may use it: the file is 0600 in a folder of that user, and the kernel
names the user at the other end of each connection.

A socket's path holds 107 bytes at most, the kernel's limit; a longer one is reached through a descriptor of its folder.
"""

import contextlib
import errno
import os
import socket
import stat
import struct
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from outrider.core.errors import ConfigError

NAME = "serve.sock"
OF_THE_UNIT = Path("/run/outrider-serve")
"""``RuntimeDirectory=`` of the service's unit; root's folder without the unit, too."""
SCHEME = "unix:"
_LONGEST = 107
_CREDENTIALS = struct.Struct("3i")


def default_path(environment: Mapping[str, str], uid: int) -> Path:
    """Where a service of the user ``uid`` has its socket, unless it is told another place."""
    if folder := environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]:
        return Path(folder) / NAME
    return (_session_folder(environment) or (OF_THE_UNIT if uid == 0 else _last_resort(uid))) / NAME


def living(environment: Mapping[str, str], uid: int) -> Path | None:
    """The socket that a command of the user ``uid`` uses unasked: the first one at which a service answers.

    Sockets of other users are left alone, root's excepted: who listens there hears the token.
    """
    folders = (_session_folder(environment), OF_THE_UNIT, _last_resort(uid))
    for folder in folders:
        if folder is not None and _is_trusted(folder, uid) and answers(folder / NAME):
            return folder / NAME
    return None


def listen(path: Path) -> socket.socket:
    """Make the socket at ``path``, for its owner alone; one that no process listens at any more is replaced.

    Raises:
        ConfigError: another service listens there, another file is there, or it can't be made.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent == _last_resort(os.geteuid()) and not _is_trusted(path.parent, os.geteuid()):
            raise ConfigError(f"--socket {path}: the folder belongs to somebody else; name another place")
        if _is_socket(path):
            if answers(path):
                raise ConfigError(f"--socket {path}: another service listens there; name another place")
            path.unlink()
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # before the name is there nobody can connect, and afterwards only who may open it
        before = os.umask(0o177)
        try:
            with _reachable(path) as short:
                made.bind(short)
        except OSError:
            made.close()
            raise
        finally:
            os.umask(before)
        made.listen(128)
    except OSError as error:
        raise ConfigError(
            f"--socket {path}: {error.strerror or error}; name another place, or --socket=none"
        ) from error
    return made


def connect(path: Path, timeout_s: float | None = None) -> socket.socket:
    """Connect to the socket at ``path``.

    Raises:
        OSError: it isn't there, isn't for this user, or nobody listens.
    """
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.settimeout(timeout_s)
    try:
        with _reachable(path) as short:
            made.connect(short)
    except OSError:
        made.close()
        raise
    return made


def answers(path: Path) -> bool:
    """Whether a process listens at ``path``, as far as this user can tell."""
    try:
        connect(path, 1.0).close()
    except OSError as error:
        # what this user may not open is somebody's; only a refused connection says that nobody is there
        return error.errno in (errno.EACCES, errno.EPERM, errno.EAGAIN) and _is_socket(path)
    return True


def peer_uid(connection: socket.socket) -> int:
    """The user at the other end, as the kernel knows it."""
    size = _CREDENTIALS.size
    _, uid, _ = _CREDENTIALS.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


@contextlib.contextmanager
def _reachable(path: Path) -> Iterator[str]:
    """A name of ``path`` that is short enough for the kernel."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _session_folder(environment: Mapping[str, str]) -> Path | None:
    """The user's own, as the XDG Base Directory Specification has it."""
    named = environment.get("XDG_RUNTIME_DIR", "")
    return Path(named) / "outrider" if named.startswith("/") and Path(named).is_dir() else None


def _last_resort(uid: int) -> Path:
    return Path(tempfile.gettempdir()) / f"outrider-{uid}"


def _is_trusted(folder: Path, uid: int) -> bool:
    """Whether nobody but this user and root can put a socket there.

    Root trusts the unit's folder whoever owns it: in /run only root makes folders.
    """
    try:
        found = folder.lstat()
    except OSError:
        return False
    own = found.st_uid in (0, uid) or (uid == 0 and folder == OF_THE_UNIT)
    return stat.S_ISDIR(found.st_mode) and own and not found.st_mode & 0o022


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.lstat().st_mode)
    except OSError:
        return False
