"""``outrider page``: a link to the web page of the update service."""

import click

from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json
from outrider.cli.rest_client import ServiceClient


@click.command()
@service_options
@json_option
def page(service: ServiceClient, as_json: bool) -> None:
    """Print a link that lets you into the web page of the update service.

    It works once, for a minute: give it to your own browser alone. The page knows you as the command line does.
    """
    made = service.post("page-links", body={})
    if as_json:
        echo_json(made)
        return
    click.echo(f"for {made['user']}, once, within {made['for_s']:.0f} seconds:", err=True)
    click.echo(made["url"])
