"""Signatures of container images as cosign makes them with a key pair: reading what a stranger may have written.

cosign signs a small JSON text (simple signing) that names the digest of an image, with ECDSA P-256 over SHA-256. It
names neither app nor version, unless the signer says so: ``cosign sign -a outrider.app=shop -a outrider.version=2.4.0``
puts these words into the text. They are those of minisign's trusted comment (``comment``).

A machine compares with the payload of the package, which is the descriptor of the image. The signature covers the
image's digest alone; which image that is on a machine's platform the descriptor says besides. So the manifests come
with the signature: whoever has made the descriptor can't slip in another image.

Source: sigstore/cosign specs/SIGNATURE_SPEC.md; signatures made by cosign itself are in tests/data/cosign.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

import msgspec

from outrider.core.errors import ConfigError
from outrider.core.images import ImageDescriptor, read_descriptor
from outrider.trust.comment import NEVER, WORD, read_comment
from outrider.trust.statement import ANY_ENVIRONMENT, Statement, Wanted, mismatch

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

TYPE = "cosign container image signature"
MEDIA_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
ANNOTATION = "dev.cosignproject.cosign/signature"
PREFIX = f"{WORD}."
"""Of the words that bind a signature to an app and a version."""
MAX_BYTES = 192 * 1024
"""Of one signature with its manifests; a manifest has some 1 to 4 KiB, an index a few hundred bytes a platform."""
MAX_PAYLOAD_BYTES = 16 * 1024
MAX_MANIFESTS = 65


@dataclass(frozen=True, slots=True)
class CosignKey:
    """A public key: ECDSA on P-256, in PEM.

    Attributes:
        keyid: SHA-256 of the key in DER.
    """

    keyid: str
    public: "EllipticCurvePublicKey"


class CosignSignature(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is kept beside a package.

    Attributes:
        cosign: The signed text, as the registry has it.
        signature: Over it, in DER.
        manifests: Of the image: its index and its manifests, or its only manifest.
    """

    cosign: bytes
    signature: bytes
    manifests: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """What the signed text says.

    Attributes:
        digest: Of the image.
        words: Those that begin with ``PREFIX``, without it.
    """

    digest: str
    words: Mapping[str, str]

    @property
    def is_bound(self) -> bool:
        """The signer means to say for which app and version it is."""
        return bool(self.words)


def tag_of(digest: str) -> str:
    """Where cosign puts the signatures of an image, beside it."""
    return f"{digest.replace(':', '-', 1)}.sig"


def is_cosign(text: str) -> bool:
    """This looks like a signature of cosign as it is kept here, and not like an envelope."""
    return text.lstrip().startswith('{"cosign"')


def encode_cosign(signature: CosignSignature) -> str:
    """As it is kept."""
    return msgspec.json.encode(signature).decode()


def read_cosign(text: str) -> CosignSignature:
    """A signature that was kept, not yet checked. Needs no library of the extra.

    Raises:
        ConfigError: it is too long, or none.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"cosign signature: {len(text)} bytes; at most {MAX_BYTES}")
    try:
        found = msgspec.json.decode(text, type=CosignSignature)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise ConfigError(f"cosign signature: {str(error)[:200]}") from error
    if len(found.manifests) > MAX_MANIFESTS:
        raise ConfigError(f"cosign signature: {len(found.manifests)} manifests; at most {MAX_MANIFESTS}")
    read_signed(found.cosign)
    return found


def read_signed(payload: bytes) -> Signed:
    """What a signed text says.

    Raises:
        ConfigError: it is none of cosign's.
    """
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise ConfigError(f"cosign signature: a text of {len(payload)} bytes; at most {MAX_PAYLOAD_BYTES}")
    try:
        found = json.loads(payload, object_pairs_hook=_once)
        critical, optional = found["critical"], found.get("optional")
        kind, digest = critical["type"], critical["image"]["docker-manifest-digest"]
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError("cosign signature: the signed text is not in the form of simple signing") from error
    if kind != TYPE:
        raise ConfigError(f"cosign signature: it is a {str(kind)[:60]!r}")
    if not isinstance(digest, str) or not digest.startswith("sha256:") or len(digest) != 71:
        raise ConfigError("cosign signature: the signed text names no digest")
    words = {}
    for name, value in (optional if isinstance(optional, dict) else {}).items():
        if name.startswith(PREFIX):
            if not isinstance(value, str):
                raise ConfigError(f"cosign signature: {name[:60]} is no text")
            words[name.removeprefix(PREFIX)] = value
    return Signed(digest=digest, words=words)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose names are there once: of two with one name another reader might see the other one."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is there twice")
    return found


def statement_of(signed: Signed, *, sha256: str, size: int) -> Statement:
    """What a bound signature says of a package whose payload has this digest and size.

    Raises:
        ConfigError: a word is missing, unknown or no good.
    """
    comment = " ".join([WORD, *(f"{name}={value}" for name, value in signed.words.items())])
    try:
        return read_comment(comment, sha256=sha256, size=size)
    except ConfigError as error:
        raise ConfigError(str(error).replace("trusted comment", "annotations (-a)")) from error


def read_cosign_key(public: object) -> CosignKey:
    """The key, of what was read from PEM.

    Raises:
        ConfigError: it is on another curve.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey

    if not isinstance(public, EllipticCurvePublicKey) or not isinstance(public.curve, SECP256R1):
        raise ConfigError("not a key of cosign: those are ECDSA on P-256")
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return CosignKey(hashlib.sha256(der).hexdigest(), public)


def said_by(
    signature: CosignSignature,
    keys: Iterable[CosignKey],
    wanted: Wanted,
    payload: bytes,
    now: datetime,
    *,
    allow_unbound: bool,
) -> tuple[Statement, str]:
    """What a signature says of ``wanted``, whose payload this is, and the id of the key.

    Args:
        payload: The descriptor of the image.
        allow_unbound: A signature that names no app and version stands for those that are wanted.

    Raises:
        ConfigError: nothing that lets it run; in words after "its signature".
    """
    key = next((key for key in keys if _is_by(signature, key)), None)
    if key is None:
        raise ConfigError("of cosign is by none of the keys that count here")
    signed = read_signed(signature.cosign)
    if signed.is_bound:
        try:
            statement = statement_of(signed, sha256=wanted.sha256, size=wanted.size)
        except ConfigError as error:
            raise ConfigError(f"of cosign has bad {error}") from error
    elif allow_unbound:
        statement = Statement(
            app=wanted.app,
            version=wanted.version,
            sha256=wanted.sha256,
            size=wanted.size,
            environments=(ANY_ENVIRONMENT,),
            expires=NEVER,
        )
    else:
        raise ConfigError(
            f"of cosign names no app and version; sign with `cosign sign -a {PREFIX}app={wanted.app}"
            f" -a {PREFIX}version={wanted.version}`, or set trust.allow_unbound_cosign"
        )
    if problem := mismatch(statement, wanted, now):
        raise ConfigError(problem)
    if problem := image_problem(signature, signed, payload):
        raise ConfigError(problem)
    return statement, key.keyid


def image_problem(signature: CosignSignature, signed: Signed, payload: bytes) -> str:
    """Why the signature doesn't cover this payload, in words after "its signature"; empty when it does."""
    try:
        descriptor = read_descriptor(payload)
    except ConfigError:
        return "of cosign is of an image, and the payload is none that a registry has"
    if descriptor.digest != signed.digest:
        return f"of cosign is for the image {signed.digest}, and the payload names {descriptor.digest or 'no digest'}"
    return _platform_problem(signature, descriptor)


def _platform_problem(signature: CosignSignature, descriptor: ImageDescriptor) -> str:
    """Each platform of the descriptor must be one of the signed image: its manifest, and therein its configuration."""
    known = {f"sha256:{hashlib.sha256(one).hexdigest()}": one for one in signature.manifests}
    inside = {descriptor.digest}
    index = _object(known.get(descriptor.digest, b""))
    for entry in index.get("manifests") or ():
        if isinstance(entry, dict) and isinstance(entry.get("digest"), str):
            inside.add(entry["digest"])
    for platform in descriptor.platforms:
        config = _object(known.get(platform.manifest, b"")).get("config")
        named = config.get("digest") if isinstance(config, dict) else None
        if platform.manifest not in inside or named != platform.config:
            return (
                f"of cosign does not cover the image that the payload names for {platform.platform}; add it again with"
                " `outrider package sign --cosign`"
            )
    return ""


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        found = json.loads(body, object_pairs_hook=_once) if body else {}
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _is_by(signature: CosignSignature, key: CosignKey) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.public.verify(signature.signature, signature.cosign, ECDSA(SHA256()))
    except (InvalidSignature, ValueError):
        return False
    return True


def signatures_in(manifest: bytes) -> list[tuple[str, bytes]]:
    """Digests of the signed texts in the manifest that cosign keeps beside an image, each with its signature.

    Raises:
        ConfigError: it is no such manifest.
    """
    found = []
    layers = _object(manifest).get("layers")
    for layer in layers if isinstance(layers, list) else ():
        if not isinstance(layer, dict) or layer.get("mediaType") != MEDIA_TYPE:
            continue
        annotations = layer.get("annotations")
        text = annotations.get(ANNOTATION) if isinstance(annotations, dict) else None
        if not isinstance(text, str) or not isinstance(layer.get("digest"), str):
            continue
        try:
            found.append((layer["digest"], base64.b64decode("".join(text.split()), validate=True)))
        except (binascii.Error, ValueError):
            continue
    if not found:
        raise ConfigError("no signature of cosign is in the manifest beside the image")
    return found
