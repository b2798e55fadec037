"""``outrider package sign`` and ``signatures``."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from outrider.cli import addressing
from outrider.cli.commands.key import key_option, passphrase
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError, NotFound
from outrider.trust.envelope import read_envelope, sign
from outrider.trust.keys import load_signer
from outrider.trust.statement import (
    ANY_ENVIRONMENT,
    NO_ENVIRONMENT,
    PAYLOAD_TYPE,
    Statement,
    encode_statement,
    parse_statement,
)

app_option = addressing.app_option("Application that the package belongs to.")
version_option = click.option("--version", required=True, help="Version, for example 1.2.3.")
DAYS = 90


@click.command("sign")
@app_option
@version_option
@key_option
@click.option(
    "--expires",
    default=f"{DAYS}d",
    show_default=True,
    help="Until when the signature counts: days such as 90d, or a date such as 2027-01-31.",
)
@click.option("--minimum", default="", help="No older version than this may run once a machine has accepted it.")
@click.option("--group", "groups", multiple=True, help="Also with the present environment of this group; repeatable.")
@click.option("--any-environment", is_flag=True, help="With whatever environment a group has.")
@click.option("--join", is_flag=True, help="Sign the newest statement that is there, as another holder of a key.")
@click.option("--output", type=click.Path(path_type=Path), help="Also write the envelope to this file.")
@service_options
@json_option
def sign_package(
    app_id: str,
    version: str,
    key_files: tuple[Path, ...],
    expires: str,
    minimum: str,
    groups: tuple[str, ...],
    any_environment: bool,
    join: bool,
    output: Path | None,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Sign a package, for machines with trust.keys.

    What is signed: the app, the version, the payload's SHA-256 and size, the environments and the end. Compare the
    SHA-256 that is printed with the one of your own build: the signature says that these bytes may run.
    """
    package = service.get("apps", app_id, "packages", version)
    signers = [load_signer(path, passphrase()) for path in key_files]
    if join:
        known = service.get("apps", app_id, "packages", version, "signatures")["envelopes"]
        if not known:
            raise NotFound(f"package {version} has no signature to join; leave out --join")
        payload, _ = read_envelope(known[-1], PAYLOAD_TYPE)
        statement = parse_statement(payload)
        _compare(statement, package)
        envelope = sign(payload, PAYLOAD_TYPE, signers, known[-1])
    else:
        statement = Statement(
            app=package["app"],
            version=version,
            sha256=package["sha256"],
            size=package["size_bytes"],
            environments=_environments(service, app_id, groups, any_environment=any_environment),
            expires=_end(expires, datetime.now(UTC)),
            minimum=minimum,
        )
        envelope = sign(encode_statement(statement), PAYLOAD_TYPE, signers)
    click.echo(f"signing SHA-256 {statement.sha256}, until {statement.expires:%Y-%m-%d %H:%M} UTC", err=True)
    if output is not None:
        try:
            output.write_text(f"{envelope}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output {output}: {error.strerror or error}") from error
    stored = service.post("apps", app_id, "packages", version, "signatures", body={"envelope": envelope})
    show(stored["envelopes"], as_json)


@click.command("signatures")
@app_option
@version_option
@service_options
@json_option
def signatures(app_id: str, version: str, service: ServiceClient, as_json: bool) -> None:
    """List what was signed of a package. Each machine checks it by its own keys."""
    show(service.get("apps", app_id, "packages", version, "signatures")["envelopes"], as_json)


def show(envelopes: list[str], as_json: bool) -> None:
    """Print what is signed, by whom and until when."""
    if as_json:
        echo_json(envelopes)
        return
    rows = []
    for text in envelopes:
        payload, signed = read_envelope(text, PAYLOAD_TYPE)
        one = parse_statement(payload)
        environments = ", ".join(each[:12] or "none" for each in one.environments)
        by = ", ".join(each.keyid[:12] for each in signed)
        rows.append((one.version, f"{one.expires:%Y-%m-%d %H:%M}", one.minimum or "-", environments, by))
    echo_table(("Version", "Expires", "Minimum", "Environments", "Signed by"), rows)


def _compare(statement: Statement, package: Json) -> None:
    if (statement.sha256, statement.size) != (package["sha256"], package["size_bytes"]):
        raise ConfigError(f"the signature is for SHA-256 {statement.sha256}, and the package has {package['sha256']}")


def _environments(
    service: ServiceClient, app_id: str, groups: tuple[str, ...], *, any_environment: bool
) -> tuple[str, ...]:
    if any_environment:
        return (ANY_ENVIRONMENT,)
    digests = [service.get("apps", app_id, "groups", group, "environment")["digest"] for group in groups]
    return tuple(dict.fromkeys((NO_ENVIRONMENT, *digests)))


def _end(text: str, now: datetime) -> datetime:
    days = re.fullmatch(r"([0-9]{1,4})d", text)
    if days is not None and int(days[1]) > 0:
        return now.replace(microsecond=0) + timedelta(days=int(days[1]))
    try:
        end = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--expires {text}: write days such as 90d, or a date such as 2027-01-31") from error
    end = end.replace(tzinfo=UTC) if end.tzinfo is None else end.astimezone(UTC)
    if end <= now:
        raise ConfigError(f"--expires {text}: is over already")
    return end
