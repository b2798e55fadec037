"""The files beside a package's payload, as a request names them."""

from outrider.core.errors import ConfigError
from outrider.model.documents import PackageFile
from outrider.service.api.models import NewPackage
from outrider.service.context import Context
from outrider.service.store.packages import sha256_hex


def files_of(new: NewPackage, ours: Context) -> tuple[PackageFile, ...]:
    """Read them, with the digests of what is stored here.

    Raises:
        ConfigError: a stored file beside an address, or an address without size and SHA-256.
        NotFound: a file is not stored here.
    """
    found = []
    for one in new.files:
        if one.stored is not None:
            if new.stored is None:
                raise ConfigError(f"file {one.name!r}: is stored here, but the payload isn't; all files share a folder")
            known = ours.payloads.describe(sha256_hex(one.stored), one.name)
            facts = PackageFile(name=one.name, size_bytes=known.size_bytes, sha1=known.sha1, sha256=known.sha256)
        elif new.stored is not None:
            raise ConfigError(f"file {one.name!r}: the payload is stored here; upload this file too, as stored")
        elif one.size_bytes is None or one.sha256 is None:
            raise ConfigError(f"file {one.name!r}: give size_bytes and sha256; clients cannot verify it otherwise")
        else:
            sha1 = one.sha1 or ours.payloads.sha1_of(sha256_hex(one.sha256))
            facts = PackageFile(name=one.name, size_bytes=one.size_bytes, sha1=sha1, sha256=one.sha256)
        found.append(facts)
    return tuple(found)
