"""Images, and signatures of them exactly as cosign makes them, by ``cryptography``."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from outrider.core.images import ImagePlatform, ImageReference, describe_image
from outrider.trust.cosign import CosignSignature, encode_cosign

INDEX = "application/vnd.oci.image.index.v1+json"
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
NAME = "registry.example/shop"


def digest_of(body: bytes) -> str:
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


@dataclass(frozen=True)
class Image:
    """An image for two platforms: what a registry has of it."""

    word: str = "good"

    @property
    def configs(self) -> dict[str, bytes]:
        return {
            arch: json.dumps({"architecture": arch, "os": "linux", "word": self.word}).encode()
            for arch in ("amd64", "arm64")
        }

    @property
    def manifests(self) -> dict[str, bytes]:
        return {
            arch: json.dumps(
                {
                    "schemaVersion": 2,
                    "mediaType": MANIFEST,
                    "config": {"mediaType": CONFIG, "digest": digest_of(config), "size": len(config)},
                    "layers": [],
                }
            ).encode()
            for arch, config in self.configs.items()
        }

    @property
    def index(self) -> bytes:
        entries = [
            {
                "mediaType": MANIFEST,
                "digest": digest_of(body),
                "size": len(body),
                "platform": {"architecture": arch, "os": "linux"},
            }
            for arch, body in self.manifests.items()
        ]
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": entries}).encode()

    @property
    def digest(self) -> str:
        return digest_of(self.index)

    @property
    def platforms(self) -> tuple[ImagePlatform, ...]:
        return tuple(
            ImagePlatform(
                platform=f"linux/{arch}", manifest=digest_of(body), config=digest_of(self.configs[arch]), size_bytes=0
            )
            for arch, body in self.manifests.items()
        )

    @property
    def descriptor(self) -> bytes:
        """The payload of its package."""
        return describe_image(ImageReference(name=NAME, tag="2.0.0"), self.digest, self.platforms)


@dataclass
class CosignSigner:
    """A key pair, and what it signs."""

    key: ec.EllipticCurvePrivateKey = field(default_factory=lambda: ec.generate_private_key(ec.SECP256R1()))

    def public_file(self, path: Path) -> Path:
        """Write ``cosign.pub``."""
        path.write_bytes(
            self.key.public_key().public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return path

    def text(self, digest: str, annotations: Mapping[str, object] | None = None, **critical: object) -> bytes:
        """The bytes that ``cosign sign`` signs: Go's JSON, without spaces."""
        said = {
            "critical": {
                "identity": {"docker-reference": NAME},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
                **critical,
            },
            "optional": annotations,
        }
        return json.dumps(said, separators=(",", ":")).encode()

    def sign(self, text: bytes) -> bytes:
        return self.key.sign(text, ec.ECDSA(SHA256()))

    def signed(self, image: Image, annotations: Mapping[str, object] | None = None) -> str:
        """As it is kept beside a package."""
        text = self.text(image.digest, annotations)
        return self.kept(text, self.sign(text), image)

    def kept(self, text: bytes, signature: bytes, image: Image) -> str:
        manifests = (image.index, *image.manifests.values())
        return encode_cosign(CosignSignature(cosign=text, signature=signature, manifests=manifests))


BOUND = {"outrider.app": "shop", "outrider.version": "2.0.0"}
