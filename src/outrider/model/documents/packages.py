"""Apps, their packages and channels."""

from datetime import datetime

import msgspec

from outrider.core.images import ImagePlatform, parse_image
from outrider.core.tasks import TaskSpec
from outrider.model.documents.base import Document


class App(Document, frozen=True, kw_only=True):
    """``apps/{app}``.

    Attributes:
        id: A UUID in lower case, or a name.
        product_id: Reverse-DNS name by which Omaha clients may call the app as well; None without one.
    """

    id: str
    label: str
    description: str = ""
    product_id: str | None = None
    created: datetime


class Product(Document, frozen=True, kw_only=True):
    """``products/{product}``: which app has this product id; the key makes it unique."""

    app: str


class PackageFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file beside the payload of a package, such as a signature: it lies in the same folder.

    Attributes:
        sha1: Base64, 28 characters; empty when unknown.
        sha256: 64 lower-case hex digits.
    """

    name: str
    size_bytes: int
    sha1: str = ""
    sha256: str


class Package(Document, frozen=True, kw_only=True):
    """``apps/{app}/packages/{version}``.

    Attributes:
        url: Full address of the payload; None for a file stored by the service (served below its own address).
        name: File name of the payload, the last part of its address.
        sha1: Base64, 28 characters, for old Omaha clients; empty when unknown.
        sha256: 64 lower-case hex digits.
        image: Reference of a container image; the payload is its descriptor then. Empty for a file.
        digest: Of the image's index or manifest. Empty for a file, and while the image's tag is not resolved.
        platforms: What the registry has said of each platform's part; empty when it was not asked.
        arch: What it runs on: ``all``, or one architecture as ``core/architectures.py`` names it.
        required: On the wire; clients may leave out a package that isn't.
        tasks: What runs once for a release of it.
        files: What clients of Omaha find beside the payload; sidekicks take the payload alone.
    """

    app: str
    version: str
    url: str | None
    name: str
    size_bytes: int
    sha1: str = ""
    sha256: str
    release_notes: str = ""
    image: str = ""
    digest: str = ""
    platforms: tuple[ImagePlatform, ...] = ()
    arch: str = "all"
    required: bool = True
    tasks: tuple[TaskSpec, ...] = ()
    files: tuple[PackageFile, ...] = ()
    created: datetime

    @property
    def image_digest(self) -> str:
        """The image's digest, also of a package that an older service has stored; empty when it isn't known."""
        return self.digest or (parse_image(self.image).digest if self.image else "")

    @property
    def is_unresolved(self) -> bool:
        """It is an image of which nobody knows yet which one."""
        return bool(self.image) and not self.image_digest


class Unresolved(Document, frozen=True, kw_only=True):
    """``unresolved/{app}/{version}``: a package whose image has no digest yet; the service asks the registry again.

    Attributes:
        why: What the registry said last, or why it said nothing.
    """

    app: str
    version: str
    image: str
    why: str
    at: datetime


class Signatures(Document, frozen=True, kw_only=True):
    """``apps/{app}/signatures/{version}``: what was signed of a package; whoever needs it checks it.

    Attributes:
        envelopes: DSSE envelopes as JSON, newest last; bounded by the service.
        minisign: Signature files of minisign, newest last; bounded by the service.
        cosign: Signatures of cosign with the manifests of their image, newest last; bounded by the service.
    """

    envelopes: tuple[str, ...] = ()
    minisign: tuple[str, ...] = ()
    cosign: tuple[str, ...] = ()


class KeyLists(Document, frozen=True, kw_only=True):
    """``apps/{app}/key-lists``: which keys took the place of which, as DSSE envelopes in order; bounded by the
    service. Each is signed by enough of the keys before it.
    """

    envelopes: tuple[str, ...] = ()


class Floor(msgspec.Struct, frozen=True, kw_only=True):
    """A version that an instance must have run on its way to a channel's version, and why."""

    version: str
    reason: str = ""


class Channel(Document, frozen=True, kw_only=True):
    """``apps/{app}/channels/{channel}``: a name that points at a package, or at none yet.

    Attributes:
        floors: In the order of their versions; each has a package.
        excluded: Versions that the channel can't be pointed at.
        follow: What it follows at a registry, as ``core.follow`` reads it; empty: nothing.
        follow_moves: A followed tag also becomes its version.
    """

    app: str
    name: str
    version: str | None = None
    publish: bool = False
    floors: tuple[Floor, ...] = ()
    excluded: tuple[str, ...] = ()
    follow: str = ""
    follow_moves: bool = False
    created: datetime
