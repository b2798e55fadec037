"""The environments of the releases on this machine: kept as long as they may be started, resolved just before that.

An environment comes from etcd, which the sidekick proves itself to; the update service's endpoint for check-ins needs
no password, so nothing of it goes that way. It is kept in ``STATE_DIR/environments/DIGEST.json``, which only the
sidekick's user can read: a rollback starts the old version with the old environment, also while etcd is away.

What references lead to is read just before the start and kept nowhere; a keyed hash of it tells whether it has changed.
"""

import hashlib
import hmac
import json
import os
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

import msgspec
from loguru import logger

from outrider.core.blame import seen_in
from outrider.core.environment import MAX_BYTES
from outrider.core.errors import DriverError
from outrider.core.sidekick.memory import Installed, Release
from outrider.etcd.seam import Cluster
from outrider.failpoints import failpoint, for_same_instance
from outrider.files import make_folder, read_file, write_file
from outrider.model.damage import read_or_none
from outrider.model.environments import GroupEnvironment
from outrider.model.keys import Keys
from outrider.pool import ElasticPool, Rounds
from outrider.runtimes import Given

DOCKER_SECRETS = Path("/run/secrets")
LOOK_S = 10.0
"""Between two looks at files that references name."""
_DIGEST = re.compile(r"[0-9a-f]{64}")


class Environments:
    """The environments of one instance. Safe to use from several threads."""

    def __init__(
        self,
        cluster: Cluster,
        keys: Keys,
        *,
        app: str,
        group: str,
        state_dir: Path,
        machine: Mapping[str, str] | None = None,
    ) -> None:
        """``machine``: where ``CREDENTIALS_DIRECTORY`` is looked up; this process's environment when None."""
        self._cluster, self._keys, self._app, self._group = cluster, keys, app, group
        self._folder = state_dir / "environments"
        self._machine = os.environ if machine is None else machine

    def fetch(self, release: Release) -> None:
        """Have the release's environment on this machine; nothing when it is here, or when there is none.

        Raises:
            Unknown: etcd gives no answer.
            DriverError: there is no such environment any more, or this machine can't keep it.
        """
        if release.environment and self._kept(release) is None:
            self._keep(self._read(release))

    def check(self, release: Release) -> None:
        """See whether everything that the environment refers to is here.

        Raises:
            DriverError: something isn't: this machine's trouble.
        """
        self.given(release)

    def given(self, release: Release) -> Given:
        """What the release is started with, its references resolved now.

        Raises:
            DriverError: the environment is gone, or something that it refers to isn't on this machine.
        """
        if not release.environment:
            return Given()
        environment = self._kept(release) or self._read(release)
        return Given(
            variables={**environment.variables, **environment.secrets, **self._resolved(environment)},
            arguments=environment.arguments,
        )

    def note_start(self, installed: Installed, given: Given) -> None:
        """Keep a keyed hash of what the references led to.

        Raises:
            DriverError: this machine can't keep it.
        """
        environment = self._kept(installed.release)
        if environment is None or not environment.references:
            return
        try:
            with failpoint("workload.record"):
                make_folder(self._folder)
                write_file(self._mark(installed), self._hash(environment, given.variables).encode())
        except OSError as error:
            raise self._problem("a mark", error) from error

    def changed_since_start(self, installed: Installed | None) -> tuple[str, ...]:
        """Names of variables whose references lead to something else than when the workload was started.

        All of them, when one did: the hash is one of all. A file that can't be read has changed, too.
        """
        environment = None if installed is None else self._kept(installed.release)
        if installed is None or environment is None or not environment.references:
            return ()
        try:
            before = read_file(self._mark(installed)).decode()
            now = self._hash(environment, self._resolved(environment))
        except FileNotFoundError:
            return ()  # an older sidekick started it
        except (OSError, UnicodeDecodeError):
            return ()
        except DriverError:
            return tuple(sorted(environment.references))
        return () if hmac.compare_digest(before, now) else tuple(sorted(environment.references))

    def prune(self, needed: Collection[Release]) -> None:
        """Remove the environments of other releases than ``needed``; what can't be removed stays."""
        names = {f"{release.environment_digest}.json" for release in needed}
        try:
            found = [name for name in os.listdir(self._folder) if name.endswith(".json") and name not in names]
        except OSError:
            return
        for name in found:
            with failpoint("payload.prune"):
                (self._folder / name).unlink(missing_ok=True)

    def _read(self, release: Release) -> GroupEnvironment:
        key = self._keys.environment(self._app, self._group, release.environment)
        entry = self._cluster.get(key)
        environment = None if entry is None else read_or_none(GroupEnvironment, key, entry.value)
        if environment is None:
            raise DriverError(
                f"environment {release.environment} of group {self._group} is not in etcd any more, and"
                f" {release.label} can't be started without it; `env set` makes a new one"
            )
        if environment.digest != release.environment_digest or not environment.is_whole:
            raise DriverError(
                f"environment {release.environment} of group {self._group} is not the one that {release.label} was"
                " released with: its digest differs"
            )
        return environment

    def _kept(self, release: Release) -> GroupEnvironment | None:
        if not _DIGEST.fullmatch(release.environment_digest):
            return None
        try:
            content = read_file(self._folder / f"{release.environment_digest}.json")
            found = msgspec.json.decode(content, type=GroupEnvironment)
        except (OSError, msgspec.MsgspecError):
            return None
        return found if found.is_whole and found.digest == release.environment_digest else None

    def _keep(self, environment: GroupEnvironment) -> None:
        try:
            with failpoint("payload.keep"):
                make_folder(self._folder)
                write_file(self._folder / f"{environment.digest}.json", msgspec.json.encode(environment))
        except OSError as error:
            raise self._problem(f"environment {environment.number}", error) from error

    def _problem(self, what: str, error: OSError) -> DriverError:
        return DriverError(
            f"can't keep {what} in {self._folder}: {error.strerror or error}", evidence=seen_in(error.errno)
        )

    def _resolved(self, environment: GroupEnvironment) -> dict[str, str]:
        """Name -> value of each reference."""
        return {name: self._value(name, text) for name, text in environment.references.items()}

    def _value(self, name: str, reference: str) -> str:
        kind, _, where = reference.partition(":")
        path = self._path(name, kind, where)
        try:
            content = path.read_bytes()
        except OSError as error:
            raise DriverError(
                f"variable {name}: {reference}: can't read {path}: {error.strerror or error}; put it on this machine",
                evidence="wrong-setting",
            ) from error
        try:
            text = content[: MAX_BYTES + 1].decode()
        except UnicodeDecodeError:
            text = "\x00"
        if len(content) > MAX_BYTES or "\x00" in text:
            raise DriverError(
                f"variable {name}: {reference}: {path} is no text of at most {MAX_BYTES} bytes",
                evidence="wrong-setting",
            )
        return text.removesuffix("\n")  # as editors and `echo` end a file

    def _path(self, name: str, kind: str, where: str) -> Path:
        match kind:
            case "file":
                return Path(where)
            case "docker-secret":
                return DOCKER_SECRETS / where
            case "credential":
                folder = self._machine.get("CREDENTIALS_DIRECTORY", "")
                if folder:
                    return Path(folder) / where
                raise DriverError(
                    f"variable {name}: credential:{where}: systemd has given this sidekick no credentials; add"
                    f" LoadCredential={where}:PATH to its unit",
                    evidence="wrong-setting",
                )
            case _:
                raise DriverError(
                    f"variable {name}: {kind}: unknown to this sidekick; update it", evidence="wrong-setting"
                )

    def _mark(self, installed: Installed) -> Path:
        return self._folder / f"{installed.workload_id}.started"

    def _hash(self, environment: GroupEnvironment, values: Mapping[str, str]) -> str:
        found = {name: values[name] for name in sorted(environment.references)}
        return hmac.new(self._key(), json.dumps(found).encode(), hashlib.sha256).hexdigest()

    def _key(self) -> bytes:
        """Of the hashes, made once: without it nobody can try values against them."""
        path = self._folder / "key"
        try:
            return read_file(path)
        except FileNotFoundError:
            with failpoint("workload.record"):
                write_file(path, secrets.token_bytes(32))
            return read_file(path)


class ReferenceWatch:
    """Looks now and then whether what references lead to is still what the running workload was started with."""

    def __init__(
        self,
        environments: Environments,
        running: Callable[[], Installed | None],
        tell: Callable[[str], None],
        interval_s: float = LOOK_S,
        pool: ElasticPool | None = None,
    ) -> None:
        """``tell`` gets words for a person, empty when nothing has changed. ``pool``: lends a thread."""
        self._environments, self._running, self._tell, self._interval_s = environments, running, tell, interval_s
        self._was_told = False
        self._rounds = Rounds(pool, for_same_instance(self._round), "references")

    def start(self) -> None:
        """Begin."""
        self._rounds.ask_in(self._interval_s)

    def close(self) -> None:
        """End."""
        self._rounds.close(10.0)

    def look(self) -> None:
        """Look once."""
        names = self._environments.changed_since_start(self._running())
        self._tell(
            f"secret files changed since start ({', '.join(names)}): `rollout restart` applies them" if names else ""
        )

    def _round(self) -> float:
        try:
            self.look()
        except OSError as error:
            if not self._was_told:
                logger.bind(cause=str(error)).warning("references not looked at")
            self._was_told = True
        return self._interval_s
