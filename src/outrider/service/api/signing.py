"""The REST API of signatures, and of the keys that take the place of others."""

from fastapi import APIRouter
from pydantic import ConfigDict, Field
from pydantic.types import JsonValue

from outrider.core.errors import ConfigError
from outrider.model.documents import Signatures
from outrider.service.api.models import Given, Shown
from outrider.service.context import Bound
from outrider.service.problems import RESPONSES
from outrider.trust.cosign import MAX_BYTES as MAX_COSIGN_BYTES
from outrider.trust.statement import MAX_BYTES

router = APIRouter(prefix="/api/v1", responses=RESPONSES)
_EXAMPLE: dict[str, JsonValue] = {
    "envelope": '{"payload":"e30=","payloadType":"application/vnd.outrider.release.v1+json","signatures":[]}'
}


class NewEnvelope(Given):
    """Something signed, as a DSSE envelope."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    envelope: str = Field(description="The envelope as JSON, in a text.", max_length=MAX_BYTES)


class NewSignature(Given):
    """A signature of a package: a DSSE envelope, a signature file of minisign, or a signature of cosign."""

    model_config = ConfigDict(json_schema_extra={"examples": [_EXAMPLE]})

    envelope: str = Field("", description="The envelope as JSON, in a text.", max_length=MAX_BYTES)
    minisign: str = Field(
        "", description="What minisign wrote into its .minisig file: four lines.", max_length=MAX_BYTES
    )
    cosign: str = Field(
        "",
        description="What cosign signed, with its signature and the image's manifests, all in base64: JSON in a text.",
        max_length=MAX_COSIGN_BYTES,
    )


class SignaturesShown(Shown):
    """What was signed of a package; the service has checked no signature."""

    envelopes: list[str]
    minisign: list[str]
    cosign: list[str]


class EnvelopesShown(Shown):
    """What was signed, as DSSE envelopes; the service has checked no signature."""

    envelopes: list[str]


@router.get("/apps/{app}/packages/{version}/signatures", tags=["packages"])
def list_signatures(app: str, version: str, store: Bound) -> SignaturesShown:
    """List what was signed of a package."""
    store.packages.get(app, version)
    return _shown(store.signing.of(app, version))


@router.post("/apps/{app}/packages/{version}/signatures", tags=["packages"])
def add_signature(app: str, version: str, new: NewSignature, store: Bound) -> SignaturesShown:
    """Add a signature of a package."""
    if [bool(new.envelope), bool(new.minisign), bool(new.cosign)].count(True) != 1:
        raise ConfigError("envelope, minisign, cosign: give one of them")
    if new.cosign:
        return _shown(store.signing.add_cosign(app, version, new.cosign))
    if new.minisign:
        return _shown(store.signing.add_minisign(app, version, new.minisign))
    return _shown(store.signing.add(app, version, new.envelope))


@router.get("/apps/{app}/key-lists", tags=["apps"])
def list_key_lists(app: str, store: Bound) -> EnvelopesShown:
    """List which signing keys took the place of which."""
    store.apps.get(app)
    return EnvelopesShown(envelopes=list(store.signing.key_lists(app)))


@router.post("/apps/{app}/key-lists", tags=["apps"])
def add_key_list(app: str, new: NewEnvelope, store: Bound) -> EnvelopesShown:
    """Add a list of signing keys, signed by enough of those before it."""
    return EnvelopesShown(envelopes=list(store.signing.add_key_list(app, new.envelope)))


@router.delete("/apps/{app}/key-lists", tags=["apps"])
def forget_key_lists(app: str, store: Bound) -> EnvelopesShown:
    """Remove the lists of signing keys, once every machine's settings name the newest keys."""
    return EnvelopesShown(envelopes=list(store.signing.forget_key_lists(app)))


def _shown(found: Signatures) -> SignaturesShown:
    return SignaturesShown(envelopes=list(found.envelopes), minisign=list(found.minisign), cosign=list(found.cosign))
