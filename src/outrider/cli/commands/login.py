"""``outrider login`` and ``logout``: at the identity provider of an update service."""

from pathlib import Path

import click

from outrider.cli import logins
from outrider.cli.options import service_options
from outrider.cli.rest_client import ServiceClient
from outrider.core.addresses import is_private
from outrider.core.errors import ConfigError


@click.command()
@click.option(
    "--provider-ca-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="PEM file of the authority that signed the identity provider's certificate.",
)
@service_options
def login(service: ServiceClient, provider_ca_file: Path | None) -> None:
    """Log in at the identity provider of the update service.

    Prints an address and a code: open the address in a browser, on any machine, and type the code. From then on
    commands for this service need no --token. The token is kept in logins.json beside the contexts, for you alone, and
    is replaced by itself as long as the provider lets it be.
    """
    from outrider.oidc.flows import await_device, begin_device
    from outrider.oidc.provider import discover, fetcher, require_libraries
    from outrider.oidc.settings import issuer_problem

    require_libraries()
    if service.socket is None and not is_private(service.server):
        raise ConfigError(f"--server {service.server}: plain http would show your token to others; use https")
    found = service.get("identity-provider")
    issuer, client_id, scopes = str(found["issuer"]), str(found["client_id"]), tuple(map(str, found["scopes"]))
    if problem := issuer_problem(issuer):
        raise ConfigError(f"the service names the identity provider {issuer[:200]!r}: {problem}")
    ca_file = str(provider_ca_file.absolute()) if provider_ca_file else ""
    metadata = discover(issuer, fetcher(ca_file or True))
    code = begin_device(metadata, client_id=client_id, scopes=scopes, verify=ca_file or True)
    click.echo(f"open {code.verification_uri}", err=True)
    click.echo(f"and type {code.user_code}", err=True)
    if code.verification_uri_complete:
        click.echo(f"or open {code.verification_uri_complete}", err=True)
    tokens = await_device(metadata, code, client_id=client_id, verify=ca_file or True)
    whoami = service.with_token(tokens.id_token).get("whoami")
    logins.save(
        service.server,
        logins.Login(
            issuer=issuer,
            client_id=client_id,
            ca_file=ca_file,
            token=tokens.id_token,
            refresh_token=tokens.refresh_token,
            until_s=logins.end_of(tokens.id_token),
        ),
    )
    click.echo(f"logged in at {service.server} as {whoami['name']}, {whoami['role']}")


@click.command()
@service_options
def logout(service: ServiceClient) -> None:
    """Forget the login at the update service.

    The token itself counts until it ends; the identity provider ends logins.
    """
    if logins.find(service.server) is None:
        click.echo(f"nobody was logged in at {service.server}")
        return
    logins.save(service.server, None)
    click.echo(f"logged out at {service.server}")
