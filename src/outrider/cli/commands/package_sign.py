"""``outrider package sign`` and ``signatures``."""

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click
from click.core import ParameterSource

from outrider.cli import addressing
from outrider.cli.commands.key import key_option, passphrase
from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, echo_table
from outrider.cli.rest_client import Json, ServiceClient
from outrider.core.errors import ConfigError, NotFound
from outrider.core.images import parse_image
from outrider.trust.comment import NEVER, comment_of, is_bound, read_comment
from outrider.trust.cosign import PREFIX, encode_cosign, read_cosign, read_signed, statement_of
from outrider.trust.envelope import read_envelope, sign
from outrider.trust.keys import load_signer
from outrider.trust.minisign import read_minisign
from outrider.trust.statement import (
    ANY_ENVIRONMENT,
    MAX_BYTES,
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
@key_option(required=False)
@click.option(
    "--minisign",
    "minisign_files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Add this .minisig file, which minisign made of the payload; repeatable.",
)
@click.option(
    "--minisign-comment",
    is_flag=True,
    help="Sign nothing, and print the trusted comment for `minisign -S -t`, which says what would be signed.",
)
@click.option(
    "--cosign",
    "cosign",
    is_flag=True,
    help="Add the signatures that `cosign sign --key` has put beside the image in its registry.",
)
@click.option(
    "--registry-auth",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="Credentials for that registry, a file like Docker's config.json.",
)
@click.option(
    "--registry-ca",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="PEM file of the authorities of that registry's certificate.",
)
@click.option("--plain-registry", multiple=True, help="That registry speaks plain http, HOST:PORT.")
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
    minisign_files: tuple[Path, ...],
    minisign_comment: bool,
    cosign: bool,
    registry_auth: Path | None,
    registry_ca: Path | None,
    plain_registry: tuple[str, ...],
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

    A signature that minisign made of the payload is added with --minisign. Its trusted comment says for what it is:
    minisign -S -m PAYLOAD -t "$(outrider package sign ... --minisign-comment)"

    Those that cosign made of the image are added with --cosign; they say for what they are by annotations:
    cosign sign --key cosign.key -a outrider.app=APP -a outrider.version=VERSION IMAGE@DIGEST
    """
    _require_one(key_files, minisign_files, minisign_comment=minisign_comment, cosign=cosign)
    package = service.get("apps", app_id, "packages", version)
    if minisign_files:
        stored = {}
        for text in [_read_minisign(path, package) for path in minisign_files]:
            stored = service.post("apps", app_id, "packages", version, "signatures", body={"minisign": text})
        show(stored, as_json)
        return
    if cosign:
        stored = {}
        for text in _read_cosign(package, registry_auth, registry_ca, frozenset(plain_registry)):
            stored = service.post("apps", app_id, "packages", version, "signatures", body={"cosign": text})
        show(stored, as_json)
        return
    signers = [load_signer(path, passphrase()) for path in key_files]
    known = ""
    if join:
        known = _newest(service.get("apps", app_id, "packages", version, "signatures"), version)
        statement = parse_statement(read_envelope(known, PAYLOAD_TYPE)[0])
        _compare(statement, package)
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
    content = read_envelope(known, PAYLOAD_TYPE)[0] if known else encode_statement(statement)
    click.echo(f"signing SHA-256 {statement.sha256}, until {statement.expires:%Y-%m-%d %H:%M} UTC", err=True)
    if minisign_comment:
        click.echo(comment_of(statement))
        return
    envelope = sign(content, PAYLOAD_TYPE, signers, known)
    if output is not None:
        try:
            output.write_text(f"{envelope}\n", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--output {output}: {error.strerror or error}") from error
    stored = service.post("apps", app_id, "packages", version, "signatures", body={"envelope": envelope})
    show(stored, as_json)


@click.command("signatures")
@app_option
@version_option
@service_options
@json_option
def signatures(app_id: str, version: str, service: ServiceClient, as_json: bool) -> None:
    """List what was signed of a package. Each machine checks it by its own keys."""
    show(service.get("apps", app_id, "packages", version, "signatures"), as_json)


def show(found: Json, as_json: bool) -> None:
    """Print what is signed, by whom and until when; as JSON, a list of the texts."""
    # an older service has none of the latter
    envelopes, minisign, cosign = found["envelopes"], found.get("minisign", []), found.get("cosign", [])
    if as_json:
        echo_json([*envelopes, *minisign, *cosign])
        return
    rows = []
    for text in envelopes:
        payload, signed = read_envelope(text, PAYLOAD_TYPE)
        rows.append((*_row(parse_statement(payload)), ", ".join(each.keyid[:12] for each in signed)))
    for text in minisign:
        one = read_minisign(text)
        by = f"minisign {one.name}"
        if is_bound(one.comment):
            rows.append((*_row(read_comment(one.comment, sha256="0" * 64, size=0)), by))
        else:
            rows.append(("any", "-", "-", "any", by))
    for text in cosign:
        said = read_signed(read_cosign(text).cosign)
        by = f"cosign, image {said.digest.removeprefix('sha256:')[:12]}"
        if said.is_bound:
            rows.append((*_row(statement_of(said, sha256="0" * 64, size=0)), by))
        else:
            rows.append(("any", "-", "-", "any", by))
    echo_table(("Version", "Expires", "Minimum", "Environments", "Signed by"), rows)


def _row(one: Statement) -> tuple[str, str, str, str]:
    environments = ", ".join(each[:12] or "none" for each in one.environments)
    return (
        one.version,
        "-" if one.expires == NEVER else f"{one.expires:%Y-%m-%d %H:%M}",
        one.minimum or "-",
        environments,
    )


def _require_one(
    key_files: tuple[Path, ...], minisign_files: tuple[Path, ...], *, minisign_comment: bool, cosign: bool
) -> None:
    """Refuse all but one of the ways to sign, and options that another's signature has said already."""
    if [bool(key_files), bool(minisign_files), minisign_comment, cosign].count(True) != 1:
        raise click.UsageError("give one of --private-key, --minisign, --minisign-comment and --cosign")
    context = click.get_current_context()
    refused = {"expires", "minimum", "groups", "any_environment", "join"} if minisign_files or cosign else set()
    refused |= {"output"} if minisign_files or minisign_comment or cosign else set()
    of_registries = {"registry_auth", "registry_ca", "plain_registry"}
    refused |= set() if cosign else of_registries
    for parameter in context.command.params:
        name = parameter.name or ""
        if name in refused and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
            if name in of_registries:
                raise click.UsageError(f"{parameter.opts[0]} goes with --cosign")
            raise click.UsageError(
                f"{parameter.opts[0]} goes with --private-key"
                + (
                    "; what a minisign signature says is in its trusted comment (--minisign-comment)"
                    * (name != "output" and not cosign)
                    + "; what a signature of cosign says is in its annotations (cosign sign -a)"
                    * (name != "output" and cosign)
                )
            )


def _read_minisign(path: Path, package: Json) -> str:
    """The text of a .minisig file, compared with the package as far as it can be without the payload."""
    try:
        text = path.read_bytes()[: MAX_BYTES + 1].decode()
        signature = read_minisign(text)
        if is_bound(signature.comment):
            read_comment(signature.comment, sha256=package["sha256"], size=package["size_bytes"])
    except OSError as error:
        raise ConfigError(f"--minisign {path}: {error.strerror or error}") from error
    except (UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"--minisign {path}: {error}") from error
    if not is_bound(signature.comment):
        click.echo(
            f"{path}: the trusted comment names no app and version, so machines refuse it unless they have"
            " trust.allow_unbound_minisign; --minisign-comment prints one that does",
            err=True,
        )
    return text


def _read_cosign(package: Json, auth: Path | None, ca: Path | None, plain: frozenset[str]) -> list[str]:
    """The signatures that cosign has put beside the package's image."""
    try:
        from outrider.service.payloads.registry import HttpRegistries
    except ModuleNotFoundError as error:
        raise ConfigError(f"--cosign: the Python package {error.name} is missing; install outrider[server]") from error
    digest = package.get("digest") or ""
    if not package.get("image") or not digest:
        raise ConfigError(
            "--cosign: the package is no image"
            if not package.get("image")
            else "--cosign: the image's digest isn't known yet; `outrider package resolve` adds it"
        )
    registries = HttpRegistries(auth_file=auth, ca_file=ca, plain=plain)
    found = registries.cosign_signatures(parse_image(package["image"]).name, digest)
    texts = []
    for one in found:
        signed = read_signed(one.cosign)
        if signed.digest != digest:
            raise ConfigError(f"--cosign: a signature beside the image is for {signed.digest}, not for {digest}")
        if not signed.is_bound:
            click.echo(
                "a signature names no app and version, so machines refuse it unless they have"
                f" trust.allow_unbound_cosign; sign with -a {PREFIX}app={package['app']}"
                f" -a {PREFIX}version={package['version']}",
                err=True,
            )
        texts.append(encode_cosign(one))
    return texts


def _newest(found: Json, version: str) -> str:
    """The newest envelope.

    Raises:
        NotFound: there is none.
    """
    if not found["envelopes"]:
        raise NotFound(f"package {version} has no signature to join; leave out --join")
    return str(found["envelopes"][-1])


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
