"""What was signed of packages (envelopes, and signatures of minisign and cosign), and which keys took the place of
which. The service keeps it; the machines check it.

The service has no keys and checks no signature. It refuses what no machine could use: what can't be read, or is about
something else than the package.
"""

from dataclasses import dataclass

import msgspec

from outrider.core.errors import Conflict
from outrider.model.documents import App, KeyLists, Package, Signatures
from outrider.service.store.changes import Auditing, Change, apply
from outrider.service.store.context import StoreContext, absent_app, app_id_of
from outrider.service.store.packages import absent_package
from outrider.trust.comment import is_bound, read_comment
from outrider.trust.cosign import read_cosign, read_signed, statement_of
from outrider.trust.envelope import read_envelope
from outrider.trust.minisign import read_minisign
from outrider.trust.rotation import read_key_list
from outrider.trust.statement import PAYLOAD_TYPE, parse_statement

MAX_ENVELOPES = 16
"""Of one package, and as many signatures of minisign; the oldest goes."""
MAX_COSIGN = 4
"""Of one package: they have the manifests of the image with them, and a transaction takes 1.5 MiB."""
MAX_LISTS = 32
"""Lists of keys of one app."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """Signatures of all packages."""

    context: StoreContext
    auditing: Auditing

    def of(self, app: str, version: str) -> Signatures:
        """What was signed of a package."""
        found = self.context.get_or_none(Signatures, self.context.keys.signatures(app_id_of(app), version))
        return found or Signatures()

    def add(self, app: str, version: str, envelope: str) -> Signatures:
        """Add an envelope; those over the same statement become one as machines count them.

        Raises:
            NotFound: there is no such app or package.
            ConfigError: it isn't an envelope with a statement.
            Conflict: the statement is about something else than the package.
        """
        payload, _ = read_envelope(envelope, PAYLOAD_TYPE)
        statement = parse_statement(payload)
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Signatures:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            package = change.require(Package, keys.package(app_id, version), absent_package(app_id, version))
            for what, signed, known in (
                ("app", statement.app, app_id),
                ("version", statement.version, version),
                ("SHA-256", statement.sha256, package.sha256),
                ("size", str(statement.size), str(package.size_bytes)),
            ):
                if signed != known:
                    raise Conflict(f"the signature is for {what} {signed}, and package {version} has {known}")
            key = keys.signatures(app_id, version)
            old = change.read_or_none(Signatures, key) or Signatures()
            others = tuple(one for one in old.envelopes if one != envelope)
            new = msgspec.structs.replace(old, envelopes=(*others, envelope)[-MAX_ENVELOPES:])
            change.put(key, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)

    def add_minisign(self, app: str, version: str, text: str) -> Signatures:
        """Add a signature file of minisign.

        One whose trusted comment names neither app nor version is taken: some machines count it.

        Raises:
            NotFound: there is no such app or package.
            ConfigError: it isn't a signature, or its trusted comment can't be read.
            Conflict: the trusted comment is about something else than the package.
        """
        signature = read_minisign(text)
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Signatures:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            package = change.require(Package, keys.package(app_id, version), absent_package(app_id, version))
            if is_bound(signature.comment):
                said = read_comment(signature.comment, sha256=package.sha256, size=package.size_bytes)
                for what, signed, known in (("app", said.app, app_id), ("version", said.version, version)):
                    if signed != known:
                        raise Conflict(f"the signature is for {what} {signed}, not for {known}")
            key = keys.signatures(app_id, version)
            old = change.read_or_none(Signatures, key) or Signatures()
            others = tuple(one for one in old.minisign if one != text)
            new = msgspec.structs.replace(old, minisign=(*others, text)[-MAX_ENVELOPES:])
            change.put(key, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)

    def add_cosign(self, app: str, version: str, text: str) -> Signatures:
        """Add a signature of cosign, with the manifests of its image.

        One that names neither app nor version is taken: some machines count it.

        Raises:
            NotFound: there is no such app or package.
            ConfigError: it isn't a signature, or its words can't be read.
            Conflict: its words are about something else than the package.
        """
        signed = read_signed(read_cosign(text).cosign)
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> Signatures:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            package = change.require(Package, keys.package(app_id, version), absent_package(app_id, version))
            if signed.is_bound:
                said = statement_of(signed, sha256=package.sha256, size=package.size_bytes)
                for what, named, known in (("app", said.app, app_id), ("version", said.version, version)):
                    if named != known:
                        raise Conflict(f"the signature is for {what} {named}, not for {known}")
            key = keys.signatures(app_id, version)
            old = change.read_or_none(Signatures, key) or Signatures()
            others = tuple(one for one in old.cosign if one != text)
            new = msgspec.structs.replace(old, cosign=(*others, text)[-MAX_COSIGN:])
            change.put(key, new)
            return new

        return apply(self.context.cluster, attempt, self.auditing)

    def key_lists(self, app: str) -> tuple[str, ...]:
        """The lists of keys of an app, in order."""
        found = self.context.get_or_none(KeyLists, self.context.keys.key_lists(app_id_of(app)))
        return () if found is None else found.envelopes

    def add_key_list(self, app: str, envelope: str) -> tuple[str, ...]:
        """Add the next list of keys, or more signatures of the newest one.

        Raises:
            NotFound: there is no such app.
            ConfigError: it isn't an envelope with a list of keys.
            Conflict: it is another app's, or has another number than the next one.
        """
        found = read_key_list(envelope)
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> tuple[str, ...]:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            if found.app != app_id:
                raise Conflict(f"the list is for app {found.app}, not {app_id}")
            old = change.read_or_none(KeyLists, keys.key_lists(app_id)) or KeyLists()
            known = old.envelopes
            if known and found == read_key_list(known[-1]):
                known = known[:-1]
            if found.number != len(known) + 1:
                raise Conflict(
                    f"the list has number {found.number}, and the next one of app {app_id} is {len(known) + 1}"
                )
            if len(known) >= MAX_LISTS:
                raise Conflict(
                    f"app {app_id} has {MAX_LISTS} lists of keys; name the newest keys in trust.keys of its machines,"
                    " and remove the lists (`outrider key forget`)"
                )
            new = KeyLists(envelopes=(*known, envelope))
            change.put(keys.key_lists(app_id), new)
            return new.envelopes

        return apply(self.context.cluster, attempt, self.auditing)

    def forget_key_lists(self, app: str) -> tuple[str, ...]:
        """Remove the lists of keys: the machines' settings name the newest keys themselves.

        Raises:
            NotFound: there is no such app.
        """
        app_id, keys = app_id_of(app), self.context.keys

        def attempt(change: Change) -> tuple[str, ...]:
            change.require_only_existing(App, keys.app(app_id), absent_app(app))
            old = change.read_or_none(KeyLists, keys.key_lists(app_id)) or KeyLists()
            change.delete(keys.key_lists(app_id))
            return old.envelopes

        return apply(self.context.cluster, attempt, self.auditing)
