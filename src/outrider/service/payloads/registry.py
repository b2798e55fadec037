"""Asks registries which image a tag names: Docker Registry v2, as OCI's distribution specification has it now.

Digests are computed from what arrived, never taken from a header. Credentials go to the registry that they are for,
and to the token service that it names; ``requests`` drops them when a blob is served elsewhere.

Source: github.com/opencontainers/distribution-spec spec.md; github.com/distribution/distribution docs/spec/auth.
"""

import base64
import hashlib
import ipaddress
import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import requests
from urllib3.exceptions import HTTPError

from outrider.core.errors import ConfigError, DriverError
from outrider.core.images import (
    DOCKER_HUB,
    MAX_PLATFORMS,
    ImagePlatform,
    ImageReference,
    checked_digest,
    credentials_for,
    registry_of,
)
from outrider.http import Deadline, read_body
from outrider.trust.cosign import CosignSignature, signatures_in, tag_of

TIMEOUT_S = 15.0
"""For all questions about one image together: an operator's command waits for it."""
MAX_BYTES = 4 * 1024 * 1024
"""What registries take at most as a manifest."""
MAX_SIGNATURES = 16
"""Of cosign, of one image."""
MAX_TAGS = 10_000
_HUB_HOST = "registry-1.docker.io"
_INDEXES = ("application/vnd.oci.image.index.v1+json", "application/vnd.docker.distribution.manifest.list.v2+json")
_MANIFESTS = ("application/vnd.oci.image.manifest.v1+json", "application/vnd.docker.distribution.manifest.v2+json")
_PART = re.compile(r'([a-zA-Z]+)="([^"]*)"')


class RegistryError(DriverError):
    """A registry didn't say what an image is. ``str()`` names it, the reason, and what to do where that is known."""

    kind: ClassVar[str] = "registry"


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedImage:
    """What a reference names now.

    Attributes:
        digest: Of the index, or of the manifest where there is no index.
    """

    digest: str
    platforms: tuple[ImagePlatform, ...]


class Registries(Protocol):
    """Where the service asks about images."""

    def resolve(self, reference: ImageReference) -> ResolvedImage:
        """What ``reference`` names: by its digest if it has one, else by its tag.

        Raises:
            RegistryError: no registry has said it.
        """

    def tags(self, name: str) -> tuple[str, ...]:
        """The tags of an image, as the registry lists them.

        Raises:
            RegistryError: it gives no list.
        """


@dataclass(frozen=True, slots=True)
class NoRegistries:
    """Asks nobody."""

    def resolve(self, reference: ImageReference) -> ResolvedImage:
        raise RegistryError("this service asks no registry")

    def tags(self, name: str) -> tuple[str, ...]:
        raise RegistryError("this service asks no registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRegistries:
    """Asks over HTTP.

    Attributes:
        auth_file: Credentials in the form of Docker's config.json; read again each time.
        ca_file: PEM file of authorities for registries' certificates; None: the machine's.
        plain: Registries that speak plain http, as they stand in references. Loopback ones may.
    """

    auth_file: Path | None = None
    ca_file: Path | None = None
    plain: frozenset[str] = frozenset()
    timeout_s: float = TIMEOUT_S

    def resolve(self, reference: ImageReference) -> ResolvedImage:
        """As ``Registries.resolve``."""
        with self._session(reference.name) as session:
            wanted = reference.digest or reference.tag
            body, media_type = session.manifest(wanted)
            digest = _digest_of(body)
            if reference.digest and digest != reference.digest:
                raise session.error(f"{wanted}: sent another manifest, {digest}")
            document = _json(session, body)
            if media_type in _INDEXES or "manifests" in document:
                return ResolvedImage(digest=digest, platforms=tuple(_of_index(session, document)))
            config = session.blob(_field(session, document, "config", "digest"))
            facts = _json(session, config)
            platform = _platform(session, facts)
            return ResolvedImage(digest=digest, platforms=(_of_manifest(session, platform, digest, document),))

    def tags(self, name: str) -> tuple[str, ...]:
        """As ``Registries.tags``."""
        with self._session(name) as session:
            found: list[str] = []
            path = f"/v2/{session.repository}/tags/list?n=1000"
            while path and len(found) < MAX_TAGS:
                answer = session.get(path)
                found += [str(one) for one in _list(session, _json(session, answer.body), "tags")]
                path = answer.next_path
            return tuple(found[:MAX_TAGS])

    def cosign_signatures(self, name: str, digest: str) -> tuple[CosignSignature, ...]:
        """What cosign has put beside an image, each with the manifests of the image; nothing is checked.

        Args:
            name: Of the image, with its registry.
            digest: Of the image.

        Raises:
            RegistryError: the registry gives no answer, or has no such signature.
        """
        with self._session(name) as session:
            body, _ = session.manifest(tag_of(digest))
            try:
                listed = signatures_in(body)
            except ConfigError as error:
                raise session.error(str(error)) from error
            manifests = [session.manifest(digest)[0]]
            if _digest_of(manifests[0]) != digest:
                raise session.error(f"{digest}: sent something else under that digest")
            entries = _json(session, manifests[0]).get("manifests") or ()
            for entry in list(entries)[:MAX_PLATFORMS]:
                each = _digest(session, entry.get("digest") if isinstance(entry, dict) else None)
                manifests.append(session.manifest(each)[0])
                if _digest_of(manifests[-1]) != each:
                    raise session.error(f"{each}: sent something else under that digest")
            return tuple(
                CosignSignature(cosign=session.blob(text), signature=signature, manifests=tuple(manifests))
                for text, signature in listed[:MAX_SIGNATURES]
            )

    @contextmanager
    def _session(self, name: str) -> Iterator["_Session"]:
        registry, repository = registry_of(name)
        credentials = None
        if self.auth_file is not None:
            try:
                credentials = credentials_for(registry, self.auth_file.read_bytes())
            except (OSError, ConfigError) as error:
                raise RegistryError(f"--registry-auth {self.auth_file}: {error}") from error
        verify: bool | str = True
        if self.ca_file is not None:
            verify = str(self.ca_file)
            try:
                ssl.create_default_context(cafile=verify)
            except OSError as error:  # requests would leave with this, or take it for an answer that was cut off
                why = "holds no certificate" if isinstance(error, ssl.SSLError) else error.strerror
                raise RegistryError(f"--registry-ca {self.ca_file}: {why}") from error
        with requests.Session() as http, Deadline(self.timeout_s) as deadline:
            http.trust_env = False  # no .netrc: only the credentials that were given for it
            http.mount("http://", deadline)
            http.mount("https://", deadline)
            http.verify = verify
            yield _Session(
                http=http,
                registry=registry,
                repository=repository,
                schemes=self._schemes(registry),
                credentials=credentials or {},
                timeout_s=self.timeout_s,
                until=time.monotonic() + self.timeout_s,
            )

    def _schemes(self, registry: str) -> tuple[str, ...]:
        if registry in self.plain:
            return ("http",)
        return ("https", "http") if _is_loopback(registry) else ("https",)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Answer:
    body: bytes
    media_type: str
    next_path: str = ""


@dataclass(slots=True, kw_only=True)
class _Session:
    """Questions about one repository, with one time limit for all."""

    http: requests.Session
    registry: str
    repository: str
    schemes: tuple[str, ...]
    credentials: Mapping[str, str]
    timeout_s: float
    until: float
    token: str = ""

    def error(self, problem: str) -> RegistryError:
        """About this repository."""
        return RegistryError(f"registry {self.registry}: {self.repository}: {problem}")

    def manifest(self, reference: str) -> tuple[bytes, str]:
        """A manifest, or an index, and its media type."""
        accept = ", ".join((*_INDEXES, *_MANIFESTS))
        answer = self.get(f"/v2/{self.repository}/manifests/{reference}", {"Accept": accept})
        return answer.body, answer.media_type

    def blob(self, digest: str) -> bytes:
        """A small blob, proved by its digest."""
        body = self.get(f"/v2/{self.repository}/blobs/{digest}").body
        if _digest_of(body) != digest:
            raise self.error(f"{digest}: sent something else under that digest")
        return body

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> _Answer:
        """GET, with credentials or a token when the registry asks for them."""
        answer = self._get(path, headers or {})
        if answer.status_code == 401:
            self._authenticate(answer.headers.get("WWW-Authenticate", ""))
            answer = self._get(path, headers or {})
        with answer:
            if answer.status_code in (401, 403):
                given = (
                    "the credentials were refused" if self.credentials else "it asks for credentials (--registry-auth)"
                )
                raise self.error(f"{answer.status_code}: {given}")
            if answer.status_code == 404:
                raise self.error(f"has no {path.rpartition('/')[2].partition('?')[0]}")
            if answer.status_code != 200:
                raise self.error(f"answered {answer.status_code}")
            try:
                body = read_body(answer, MAX_BYTES)
            except (HTTPError, OSError) as error:
                raise self.error(f"answer broken off: {error}") from error
            if len(body) > MAX_BYTES:
                raise self.error(f"sent more than {MAX_BYTES} bytes")
            link = answer.links.get("next", {}).get("url", "")
            return _Answer(
                body=body,
                media_type=answer.headers.get("Content-Type", "").partition(";")[0].strip(),
                next_path=link if link.startswith("/v2/") else "",
            )

    def _get(self, path: str, headers: Mapping[str, str]) -> requests.Response:
        problem: Exception | None = None
        for scheme in self.schemes:
            host = _HUB_HOST if self.registry == DOCKER_HUB else self.registry
            try:
                answer = self._ask(f"{scheme}://{host}{path}", headers)
            except requests.RequestException as error:
                problem = error
                if "CERTIFICATE_VERIFY_FAILED" in str(error):
                    break  # it speaks TLS
                continue
            self.schemes = (scheme,)  # what answered once
            return answer
        assert problem is not None
        raise self.error(f"no answer: {_plain(problem, self.timeout_s)}") from problem

    def _ask(self, url: str, headers: Mapping[str, str], auth: tuple[str, str] | None = None) -> requests.Response:
        left_s = self.until - time.monotonic()
        if left_s <= 0:
            raise self.error(f"no answer in {self.timeout_s:g} s")
        more = {"Authorization": self.token} if self.token and auth is None else {}
        return self.http.get(
            url,
            headers={"User-Agent": "outrider", "Accept-Encoding": "identity", **headers, **more},
            auth=auth,
            timeout=left_s,
            stream=True,
            proxies=requests.utils.get_environ_proxies(url, no_proxy=None),
        )

    def _authenticate(self, challenge: str) -> None:
        """Have the header that the registry asks for."""
        scheme, _, rest = challenge.partition(" ")
        pair = (self.credentials.get("username", ""), self.credentials.get("password", ""))
        if scheme.lower() == "basic":
            if not self.credentials:
                return
            self.token = f"Basic {base64.b64encode(':'.join(pair).encode()).decode('ascii')}"
        elif scheme.lower() == "bearer":
            self.token = f"Bearer {self._token(dict(_PART.findall(rest)), pair)}"
        else:
            raise self.error(f"asks for credentials of a kind that is not supported: {scheme[:40] or 'none named'}")

    def _token(self, challenge: Mapping[str, str], pair: tuple[str, str]) -> str:
        realm = challenge.get("realm", "")
        if not realm.startswith(("https://", "http://") if self.schemes == ("http",) else "https://"):
            raise self.error(f"names a token service that is not safe to ask: {realm[:200]!r}")
        words = {"service": challenge.get("service", ""), "scope": f"repository:{self.repository}:pull"}
        url = requests.Request("GET", realm, params=words).prepare().url or realm
        try:
            with self._ask(url, {}, pair if self.credentials else None) as answer:
                body = read_body(answer, MAX_BYTES)
                status = answer.status_code
        except (requests.RequestException, HTTPError, OSError) as error:
            raise self.error(f"token service: no answer: {_plain(error, self.timeout_s)}") from error
        if status in (401, 403):
            asked = "the credentials were refused" if self.credentials else "it asks for credentials (--registry-auth)"
            raise self.error(f"token service: {status}: {asked}")
        facts = _json(self, body) if status == 200 else {}
        token = facts.get("token") or facts.get("access_token")
        if not isinstance(token, str) or not token.isprintable():
            raise self.error(f"token service: answered {status} without a token")
        return token


def _of_index(session: _Session, index: Mapping[str, Any]) -> Iterator[ImagePlatform]:
    listed = [one for one in _list(session, index, "manifests") if isinstance(one, dict)]
    # build tools add attestations, for a platform that is called unknown
    images = [one for one in listed if isinstance(one.get("platform"), dict)]
    images = [one for one in images if one["platform"].get("os", "unknown") != "unknown"]
    if len(images) > MAX_PLATFORMS:
        raise session.error(f"names {len(images)} platforms; at most {MAX_PLATFORMS} are taken")
    for one in images:
        digest = _digest(session, one.get("digest"))
        body, _ = session.manifest(digest)
        if _digest_of(body) != digest:
            raise session.error(f"{digest}: sent another manifest")
        yield _of_manifest(session, _platform(session, one["platform"]), digest, _json(session, body))


def _of_manifest(session: _Session, platform: str, digest: str, manifest: Mapping[str, Any]) -> ImagePlatform:
    layers = _list(session, manifest, "layers")
    try:
        size_bytes = sum(int(layer["size"]) for layer in layers)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise session.error(f"{digest}: its layers have no size") from None
    config = _field(session, manifest, "config", "digest")
    return ImagePlatform(platform=platform, manifest=digest, config=config, size_bytes=size_bytes)


def _platform(session: _Session, facts: Mapping[str, Any]) -> str:
    parts = [facts.get("os"), facts.get("architecture"), facts.get("variant")]
    found = "/".join(str(part) for part in parts if part)
    if not re.fullmatch(r"[a-z0-9._-]+/[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)?", found):
        raise session.error(f"names no platform: {found[:100]!r}")
    return found


def _field(session: _Session, document: Mapping[str, Any], *names: str) -> str:
    found: Any = document
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return _digest(session, found)


def _digest(session: _Session, text: object) -> str:
    try:
        return checked_digest(str(text))
    except ConfigError as problem:
        raise session.error(f"its manifest is none that we know (schema 2 or OCI): {problem}") from problem


def _list(session: _Session, document: Mapping[str, Any], name: str) -> list[Any]:
    found = document.get(name) or []
    if not isinstance(found, list):
        raise session.error(f"sent {name} that are no list: is it a registry?")
    return found


def _json(session: _Session, body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise session.error("sent no JSON: is it a registry?") from error
    if not isinstance(found, dict):
        raise session.error("sent JSON that is no object: is it a registry?")
    return found


def _digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _is_loopback(registry: str) -> bool:
    host = registry[1:].partition("]")[0] if registry.startswith("[") else registry.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _plain(error: Exception, timeout_s: float) -> str:
    """A few words for what requests says in many."""
    text = str(error)
    if isinstance(error, requests.Timeout):
        return f"nothing in {timeout_s:g} s"
    known = {
        "Connection refused": "connection refused",
        "Name or service not known": "its name is not known",
        "Temporary failure in name resolution": "its name can't be looked up",
        "CERTIFICATE_VERIFY_FAILED": "its certificate is not trusted (--registry-ca)",
        "WRONG_VERSION_NUMBER": "it does not speak TLS (--plain-registry)",
        "record layer failure": "it does not speak TLS (--plain-registry)",
        "RemoteDisconnected": "connection closed",
        "Connection aborted": "connection closed",
    }
    return next((words for phrase, words in known.items() if phrase in text), text[-200:])
