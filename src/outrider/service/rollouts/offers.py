"""What an offer says of a package: its files, and the address of the folder that holds them."""

from urllib.parse import quote

from outrider.core.omaha import OfferedPackage
from outrider.model.documents import Package


def offered(package: Package, before: str = "") -> tuple[OfferedPackage, ...]:
    """The payload and the files beside it; ``before``: begins their names."""
    payload = OfferedPackage(
        name=before + package.name,
        size_bytes=package.size_bytes,
        sha1=package.sha1,
        sha256=package.sha256,
        required=package.required,
    )
    others = (
        OfferedPackage(
            name=before + one.name, size_bytes=one.size_bytes, sha1=one.sha1, sha256=one.sha256, required=False
        )
        for one in package.files
    )
    return (payload, *others)


def codebase_of(package: Package, app_id: str, base_url: str) -> str:
    """The folder of a package's payload, with a slash at the end."""
    if package.url is not None:
        return package.url.removesuffix(package.name)
    return f"{base_url}/packages/{quote(app_id, safe='@:+')}/{quote(package.version, safe='+')}/"
