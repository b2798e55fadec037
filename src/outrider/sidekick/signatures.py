"""Whether a release has the signatures that this machine asks for: decided before any turn, and by this machine alone.

Signatures prove themselves, so it doesn't matter who wrote them to etcd. What is refused here is refused on this
machine: its settings say which keys count, so it is never the release's fault.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from loguru import logger

from outrider.config.sections import TrustSettings
from outrider.core.blame import Evidence, seen_in
from outrider.core.errors import ConfigError, DriverError
from outrider.core.images import MAX_DESCRIPTOR_BYTES
from outrider.core.omaha import FailureCode
from outrider.core.sidekick.memory import Release
from outrider.etcd.seam import Cluster
from outrider.model.damage import read_or_none
from outrider.model.documents import KeyLists, Signatures
from outrider.model.keys import Keys
from outrider.payloads.transfer import PayloadError, WriteFailed
from outrider.trust import cosign
from outrider.trust.comment import said_by
from outrider.trust.envelope import good_signatures
from outrider.trust.keys import load_public_keys, of_cosign, of_envelopes, of_minisign
from outrider.trust.minisign import PayloadBytes, is_minisign, read_minisign
from outrider.trust.rotation import Keyring
from outrider.trust.statement import (
    MAX_BYTES,
    PAYLOAD_TYPE,
    Statement,
    Wanted,
    is_below,
    mismatch,
    newest,
    parse_statement,
)

MAX_FILES = 200
"""Envelopes and signatures of minisign that are read from ``trust.folder``."""


class Untrusted(PayloadError):
    """The release lacks the signatures that this machine asks for."""

    kind = "untrusted"
    retry = False
    evidence: Evidence = "untrusted"
    error_code = FailureCode.UNSUPPORTED


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What this machine has learnt from signatures, and never forgets.

    Attributes:
        minimum: No older version may run; empty: none was named.
        keys: Name of the keys that counted last; empty: it has verified nothing yet.
    """

    minimum: str = ""
    keys: str = ""


class SignatureCheck:
    """The signatures of one app's releases."""

    def __init__(
        self,
        settings: TrustSettings,
        cluster: Cluster,
        keys: Keys,
        *,
        app: str,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read the keys of the settings.

        Raises:
            ConfigError: the extra ``trust`` is missing, or a key can't be used.
        """
        self._settings, self._cluster, self._names, self._app, self._clock = settings, cluster, keys, app, clock
        self._keys = load_public_keys(Path(path) for path in settings.keys)

    def check(self, release: Release, known: Known, payload: Path) -> Known:
        """Return when the release may run, with what is known from then on.

        Args:
            payload: Where the release's payload is; its size and SHA-256 are what they should be.

        Raises:
            Untrusted: it may not; the text says why.
            WriteFailed: the payload can't be read.
            Unknown: etcd gives no answer.
        """
        ring = Keyring(self._app, self._keys, self._settings.threshold)
        if problem := ring.follow(self._lists()):
            logger.bind(cause=problem).warning("keys not followed")
        if known.keys and known.keys not in ring.passed:
            raise Untrusted(
                f"{release.label} refused: other keys have counted here before ({known.keys[:12]}), and nothing leads"
                f" from there to those of trust.keys{f' ({problem})' if problem else ''}; name the newest keys in"
                " trust.keys, or put the lists of keys back (`outrider key list`)"
            )
        if is_below(release.version, known.minimum):
            raise Untrusted(
                f"{release.label} refused: older than {known.minimum}, and a signature says that no older version may"
                " run; `outrider package sign` without --minimum doesn't lift that"
            )
        accepted = self._accepted(release, ring, payload)
        minimum = newest((known.minimum, *(one.minimum for one in accepted)))
        # a statement whose minimum is above its own version is read by nobody (`trust.statement`)
        assert not is_below(release.version, minimum)
        return replace(known, minimum=minimum, keys=ring.name)

    def _accepted(self, release: Release, ring: Keyring, payload: Path) -> list[Statement]:
        """The statements that let the release run.

        Raises:
            Untrusted: there is none.
        """
        wanted = Wanted(
            app=self._app,
            version=release.version,
            sha256=release.sha256,
            size=release.size_bytes,
            environment=release.environment_digest,
        )
        said, problems = self._said(wanted, ring, payload)
        found = []
        for statement, by in said.items():
            if len(by) < ring.threshold:
                problems.append(f"is by {len(by)} of the keys that count here, and {ring.threshold} are needed")
            elif problem := mismatch(statement, wanted, self._clock()):
                problems.append(problem)
            else:
                found.append(statement)
        if found:
            return found
        if not problems:
            raise Untrusted(
                f"{release.label} refused: it isn't signed, and this machine asks for it (trust.keys);"
                f" `outrider package sign --app-id {self._app} --version {release.version}`"
            )
        raise Untrusted(f"{release.label} refused: its signature {'; another '.join(dict.fromkeys(problems))}")

    def _said(self, wanted: Wanted, ring: Keyring, payload: Path) -> tuple[dict[Statement, set[str]], list[str]]:
        """What was signed, with the ids of the keys, and what is wrong with the rest.

        Signatures add up when they say the same, in whatever form.

        Raises:
            WriteFailed: the payload can't be read.
        """
        signed: dict[bytes, set[str]] = {}
        said: dict[Statement, set[str]] = {}
        problems: list[str] = []
        content = PayloadBytes(payload)
        for text in self._texts(wanted.version):
            try:
                if cosign.is_cosign(text):
                    signed_image = cosign.read_cosign(text)
                    self._say_cosign(signed_image, ring, wanted, payload, said, problems)
                    continue
                if not is_minisign(text):
                    statement_bytes, ids = good_signatures(text, PAYLOAD_TYPE, of_envelopes(ring.keys))
                    signed.setdefault(statement_bytes, set()).update(ids)
                    continue
                signature = read_minisign(text)
            except ConfigError as error:
                logger.bind(cause=str(error)).warning("signature not read")
                continue
            try:
                statement, keyid = said_by(
                    signature,
                    of_minisign(ring.keys),
                    wanted,
                    content,
                    self._clock(),
                    allow_unbound=self._settings.allow_unbound_minisign,
                )
            except ConfigError as error:
                problems.append(str(error))
            except OSError as error:
                raise _unreadable(payload, error) from error
            else:
                said.setdefault(statement, set()).add(keyid)
        for statement_bytes, by in signed.items():
            if not by:
                problems.append(f"is by 0 of the keys that count here, and {ring.threshold} are needed")
                continue
            try:
                statement = parse_statement(statement_bytes)
            except ConfigError as error:
                problems.append(f"can't be read: {error}")
                continue
            same = msgspec.structs.replace(statement, environments=tuple(sorted(set(statement.environments))))
            said.setdefault(same, set()).update(by)
        return said, problems

    def _say_cosign(
        self,
        signature: cosign.CosignSignature,
        ring: Keyring,
        wanted: Wanted,
        payload: Path,
        said: dict[Statement, set[str]],
        problems: list[str],
    ) -> None:
        try:
            with payload.open("rb") as file:
                descriptor = file.read(MAX_DESCRIPTOR_BYTES)
        except OSError as error:
            raise _unreadable(payload, error) from error
        allow = self._settings.allow_unbound_cosign
        try:
            statement, keyid = cosign.said_by(
                signature, of_cosign(ring.keys), wanted, descriptor, self._clock(), allow_unbound=allow
            )
        except ConfigError as error:
            problems.append(str(error))
        else:
            said.setdefault(statement, set()).add(keyid)

    def _lists(self) -> tuple[str, ...]:
        key = self._names.key_lists(self._app)
        entry = self._cluster.get(key)
        found = None if entry is None else read_or_none(KeyLists, key, entry.value)
        return () if found is None else found.envelopes

    def _texts(self, version: str) -> Iterator[str]:
        key = self._names.signatures(self._app, version)
        entry = self._cluster.get(key)
        found = None if entry is None else read_or_none(Signatures, key, entry.value)
        if found is not None:
            yield from found.envelopes
            yield from found.minisign
            yield from found.cosign
        folder = self._settings.folder
        if folder is None:
            return
        try:
            names = sorted(name for name in os.listdir(folder) if name.endswith((".json", ".minisig")))[:MAX_FILES]
        except OSError as error:
            raise DriverError(f"trust.folder {folder}: {error.strerror or error}", evidence="wrong-setting") from error
        for name in names:
            try:
                with (folder / name).open("rb") as file:
                    yield file.read(MAX_BYTES + 1).decode(errors="replace")
            except OSError as error:
                logger.bind(file=name, cause=str(error)).warning("signature not read")


def _unreadable(payload: Path, error: OSError) -> WriteFailed:
    return WriteFailed(f"{payload}: can't verify: {error.strerror or error}", evidence=seen_in(error.errno))


def signatures_of(settings: TrustSettings, cluster: Cluster, keys: Keys, *, app: str) -> SignatureCheck | None:
    """What payloads must be signed by; None: nobody.

    Raises:
        ConfigError: as ``SignatureCheck``.
    """
    return SignatureCheck(settings, cluster, keys, app=app) if settings.is_on else None
