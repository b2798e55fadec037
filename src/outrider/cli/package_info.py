"""``*_info.json``: what ``package download`` writes beside a payload and ``package create bulk`` reads.

The fields are CoreUpdate's (its client's update-api.json): sizes are text, digests base64. Source: updateservicectl
pkg.go.
"""

import base64
import json
from pathlib import Path
from typing import Any

from outrider.cli.rest_client import Json
from outrider.core.errors import ConfigError

SUFFIX = "info.json"


def payload_name(package: Json) -> str:
    """The file that ``package download`` writes: app, version and the payload's own name."""
    return f"{package['app']}_{package['version']}_{package['name']}"


def info_name(package: Json) -> str:
    """The file with the package's facts."""
    return f"{package['app']}_{package['version']}_{SUFFIX}"


def render_info(package: Json) -> str:
    """The text of a package's info file."""
    info = {
        "appId": package["app"],
        "version": package["version"],
        "url": package["download_url"],
        "size": str(package["size_bytes"]),
        "sha1Sum": package["sha1"],
        "sha256Sum": base64.b64encode(bytes.fromhex(package["sha256"])).decode("ascii"),
        "releaseNotes": package["release_notes"],
        "dateCreated": package["created"],
    }
    return json.dumps(info, indent=1) + "\n"


def read_info(path: Path) -> Json:
    """A package's facts from its info file, under the service's names: app, version, url, size_bytes...

    Raises:
        ConfigError: it isn't such a file.
    """
    try:
        info: Any = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path.name}: can't be read as JSON") from error
    facts = info if isinstance(info, dict) else {}
    missing = [name for name in ("appId", "version", "url", "size", "sha256Sum") if not facts.get(name)]
    if missing:
        raise ConfigError(f"{path.name}: {', '.join(missing)} missing; use a file that `package download` wrote")
    if not str(facts["size"]).isdecimal():
        raise ConfigError(f"{path.name}: size {facts['size']!r} is not a number of bytes")
    url = str(facts["url"])
    return {
        "app": str(facts["appId"]),
        "version": str(facts["version"]),
        "url": url,
        "name": url.rpartition("/")[2],
        "size_bytes": int(facts["size"]),
        "sha1": str(facts.get("sha1Sum", "")),
        "sha256": str(facts["sha256Sum"]),
        "release_notes": str(facts.get("releaseNotes", "")),
    }
