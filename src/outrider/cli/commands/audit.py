"""``outrider audit``: whether the audit log is as it was written."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from outrider.cli.main import Group
from outrider.cli.options import etcd_options, json_option, open_cluster
from outrider.cli.output import echo_json, fail
from outrider.core.errors import ConfigError
from outrider.etcd.seam import EtcdAddress

if TYPE_CHECKING:
    from outrider.service.store.audit_chain import Head


@click.group(cls=Group)
def audit() -> None:
    """Check the audit log. Both commands read etcd itself."""


@audit.command()
@etcd_options
def head(etcd: EtcdAddress, prefix: str) -> None:
    """Print the heads of the audit log's chains, to be kept elsewhere.

    With them `audit verify --head FILE` later finds out whether anything that is in the log now was changed or taken
    out, even by somebody who can write to etcd.
    """
    from outrider.service.store.store import open_stores

    cluster = open_cluster(etcd)
    try:
        heads = open_stores(cluster, prefix.rstrip("/")).audit_log.heads()
    finally:
        cluster.close()
    echo_json({"heads": {name: msgspec.to_builtins(one) for name, one in sorted(heads.items())}})


@audit.command()
@click.option(
    "--head",
    "file",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    help="What `audit head` printed at some time; - is stdin.",
)
@etcd_options
@json_option
def verify(file: Path | None, etcd: EtcdAddress, prefix: str, as_json: bool) -> None:
    """Check that no entry of the audit log was changed or taken out.

    Exits 0 when it is as it was written, and 1 when it isn't. Days that the service has removed because they were too
    old are recorded in the log, and explained.
    """
    from outrider.service.store.store import open_stores

    exported = _exported(file) if file is not None else {}
    cluster = open_cluster(etcd)
    try:
        found = open_stores(cluster, prefix.rstrip("/")).audit_log.verify(exported)
    finally:
        cluster.close()
    if as_json:
        facts = {"entries": found.entries, "chains": found.chains, "unchained": found.unchained}
        echo_json({"ok": not found.findings, **facts, "findings": found.findings, "notes": found.notes})
    else:
        for line in found.findings:
            click.echo(line)
        for line in found.notes:
            click.echo(f"note: {line}")
        if found.unchained:
            click.echo(f"note: {found.unchained} entries are of an earlier version, or can't be read: not protected")
    if found.findings:
        fail(f"the audit log is not as it was written: {len(found.findings)} findings")
    if not as_json:
        entries = "1 entry" if found.entries == 1 else f"{found.entries} entries"
        click.echo(f"ok: {entries} in {found.chains} chain{'' if found.chains == 1 else 's'}")


def _exported(file: Path) -> "dict[str, Head]":
    from outrider.service.store.audit_chain import Head

    try:
        text = sys.stdin.read() if str(file) == "-" else file.read_text(encoding="utf-8")
        found: Any = json.loads(text)
        return {str(name): msgspec.convert(one, Head) for name, one in found["heads"].items()}
    except OSError as error:
        raise ConfigError(f"--head {file}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"--head {file}: not what `audit head` printed") from error
