"""``outrider key``: keys that sign releases, and new ones in place of old ones."""

import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import msgspec

from outrider.cli import addressing
from outrider.cli.main import F, Group
from outrider.cli.options import json_option, service_options
from outrider.cli.output import confirm, echo_json, echo_table
from outrider.cli.rest_client import ServiceClient
from outrider.core.errors import ConfigError
from outrider.trust.envelope import read_envelope, sign
from outrider.trust.keys import create_key, load_public_keys, load_signer, public_file
from outrider.trust.rotation import PAYLOAD_TYPE, KeyList, key_list_problem, read_key_list

app_option = addressing.app_option("App whose releases the keys sign.")


@click.group(cls=Group)
def key() -> None:
    """Keys that sign releases."""


def key_option(*, required: bool = True) -> Callable[[F], F]:
    """``--private-key FILE``, any number of times."""
    return click.option(
        "--private-key",
        "key_files",
        multiple=True,
        required=required,
        type=click.Path(path_type=Path),
        help="File with a private key; repeatable. Its passphrase, if it has one, is in OUTRIDER_KEY_PASSPHRASE.",
    )


def passphrase() -> bytes:
    """Of private keys; empty without one."""
    return os.environ.get("OUTRIDER_KEY_PASSPHRASE", "").encode()


@key.command()
@click.argument("path", metavar="FILE", type=click.Path(path_type=Path))
def create(path: Path) -> None:
    """Make a key pair: FILE is the private key (0600), FILE.pub the public one for the machines.

    With OUTRIDER_KEY_PASSPHRASE set, the private key is encrypted with it.
    """
    identity = create_key(path, passphrase())
    click.echo(f"{path}: private key {identity[:12]}; keep it off the machines that run releases")
    click.echo(f"{public_file(path)}: public key; name it in trust.keys of each machine")


@key.command()
@app_option
@key_option()
@click.option(
    "--to",
    "new_files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="File with a public key, also one of minisign, that counts from now on; repeatable: all of them.",
)
@click.option("--threshold", type=click.IntRange(min=1), default=1, show_default=True, help="How many must sign.")
@service_options
@json_option
def rotate(
    app_id: str,
    key_files: tuple[Path, ...],
    new_files: tuple[Path, ...],
    threshold: int,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Let new keys take the place of the old ones, whose holders sign that.

    Run it again with another holder's --private-key when several must sign; machines follow once enough have.
    """
    lists = service.get("apps", app_id, "key-lists")["envelopes"]
    load_public_keys(new_files)
    keys = tuple(sorted(path.read_text(encoding="utf-8") for path in new_files))
    known = lists[-1] if lists else ""
    content = read_key_list(known) if known else None
    if content is None or (content.keys, content.threshold) != (keys, threshold):
        known = ""
        content = KeyList(
            app=service.get("apps", app_id)["id"],
            number=len(lists) + 1,
            keys=keys,
            threshold=threshold,
            made=datetime.now(UTC).replace(microsecond=0),
        )
        if problem := key_list_problem(content):
            raise ConfigError(problem)
    payload = read_envelope(known, PAYLOAD_TYPE)[0] if known else msgspec.json.encode(content, order="sorted")
    signers = [load_signer(path, passphrase()) for path in key_files]
    envelope = sign(payload, PAYLOAD_TYPE, signers, known)
    _show(service.post("apps", app_id, "key-lists", body={"envelope": envelope})["envelopes"], as_json)


@key.command("list")
@app_option
@service_options
@json_option
def list_keys(app_id: str, service: ServiceClient, as_json: bool) -> None:
    """List which keys took the place of which."""
    _show(service.get("apps", app_id, "key-lists")["envelopes"], as_json)


@key.command()
@app_option
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@service_options
@json_option
def forget(app_id: str, yes: bool, service: ServiceClient, as_json: bool) -> None:
    """Remove these lists, once trust.keys of every machine names the newest keys."""
    confirm(f"Machines of {app_id} whose trust.keys names older keys refuse every release then. Go on?", yes=yes)
    _show(service.delete("apps", app_id, "key-lists")["envelopes"], as_json)


def _show(envelopes: list[str], as_json: bool) -> None:
    if as_json:
        echo_json(envelopes)
        return
    rows = []
    for text in envelopes:
        found = read_key_list(text)
        _, signatures = read_envelope(text, PAYLOAD_TYPE)
        by = ", ".join(one.keyid[:12] for one in signatures)
        rows.append((found.number, f"{found.threshold} of {len(found.keys)}", f"{found.made:%Y-%m-%d}", by))
    echo_table(("Number", "Threshold", "Made", "Signed by"), rows)
