"""``outrider instance fake`` and ``instance bench``: simulated instances."""

import click

from outrider.cli.options import json_option, service_options
from outrider.cli.output import echo_json, fail
from outrider.cli.rest_client import ServiceClient


@click.command()
@click.option("--app-id", required=True, help="Application to update.")
@click.option("--group-id", required=True, help="Group to update in.")
@click.option("--version", default="0.0.0", show_default=True, help="First version to report.")
@click.option(
    "--clients-per-app",
    type=click.IntRange(1, 5000),
    default=20,
    show_default=True,
    help="Number of simulated instances.",
)
@click.option(
    "--min-sleep",
    type=click.FloatRange(min=0),
    default=1,
    show_default=True,
    help="Shortest time between checks, in seconds.",
)
@click.option(
    "--max-sleep",
    type=click.FloatRange(min=0),
    default=10,
    show_default=True,
    help="Longest time between checks, in seconds.",
)
@click.option(
    "--errorrate",
    type=click.FloatRange(-1, 100),
    default=1,
    show_default=True,
    help="Chance in percent that a step of an update fails; 0 and -1 for never.",
)
@click.option("--oem", default="fakeclient", show_default=True, help="OEM to report.")
@click.option(
    "--ping-only",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    help="Number of pings for which the first update waits.",
)
@click.option("--force-update", is_flag=True, help="Mark the request as asked for by a person.")
@click.option("--updates", type=click.IntRange(min=1), help="End after this number of updates per instance.")
@click.option("--verbose", is_flag=True, help="Print requests and answers.")
@service_options
def fake(
    app_id: str,
    group_id: str,
    version: str,
    clients_per_app: int,
    min_sleep: float,
    max_sleep: float,
    errorrate: float,
    oem: str,
    ping_only: int,
    force_update: bool,
    updates: int | None,
    verbose: bool,
    service: ServiceClient,
) -> None:
    """Simulate instances that ask, pretend to update, and report, until Ctrl-C or --updates.

    They are rows like any other in `instance list-updates`: their ids begin with deadbeef.
    """
    from outrider.cli.signals import stopped_by_signals
    from outrider.clients import FakeFleet, FakeSettings

    if min_sleep > max_sleep:
        raise click.UsageError("--min-sleep is longer than --max-sleep")
    fleet = FakeFleet(
        FakeSettings(
            url=service.omaha_url,
            app_id=app_id,
            group=group_id,
            version=version,
            clients=clients_per_app,
            min_sleep_s=min_sleep,
            max_sleep_s=max_sleep,
            error_percent=errorrate,
            oem=oem,
            pings=ping_only,
            on_demand=force_update,
            updates=updates,
            verify=service.verify,
        ),
        lambda client, text: click.echo(f"{client}: {text}"),
        (lambda client, body: click.echo(f"{client}: {body.decode(errors='replace')}")) if verbose else None,
    )
    with stopped_by_signals(fleet.stop):
        tally = fleet.run()
    click.echo(f"{clients_per_app} clients: {tally.checks} checks, {tally.updates} updates, {tally.failures} failures")


@click.command()
@click.option("--app-id", required=True, help="Application to ask for.")
@click.option("--group-id", required=True, help="Group to ask for.")
@click.option("--version", default="0.0.0", show_default=True, help="Version to report.")
@click.option(
    "--seconds", type=click.FloatRange(min=0.1), default=10, show_default=True, help="How long to ask, in seconds."
)
@click.option(
    "--clients-per-app", type=click.IntRange(1, 500), default=20, show_default=True, help="Requests at the same time."
)
@click.option("--oem", default="fakeclient", show_default=True, help="OEM to report.")
@click.option("--force-update", is_flag=True, help="Mark the requests as asked for by a person.")
@click.option("--verbose", is_flag=True, help="Print a line each second.")
@service_options
@json_option
def bench(
    app_id: str,
    group_id: str,
    version: str,
    seconds: float,
    clients_per_app: int,
    oem: str,
    force_update: bool,
    verbose: bool,
    service: ServiceClient,
    as_json: bool,
) -> None:
    """Measure how many new instances the service answers per second.

    Every request leaves a row in `instance list-updates` (ids begin with deadbeefdeadbeef): use an app of its own.
    """
    from outrider.cli.signals import stopped_by_signals
    from outrider.clients import Bench, FakeSettings

    settings = FakeSettings(
        url=service.omaha_url,
        app_id=app_id,
        group=group_id,
        version=version,
        clients=clients_per_app,
        oem=oem,
        on_demand=force_update,
        verify=service.verify,
    )

    def tell(line: str) -> None:
        click.echo(line, err=True)

    measuring = Bench(settings, seconds, tell, tell if verbose else None)
    with stopped_by_signals(measuring.stop):
        found = measuring.run()
    if as_json:
        facts = {"seconds": round(found.seconds, 3), "answers": found.answers, "offers": found.offers}
        echo_json(facts | {"errors": found.errors, "per_second": round(found.per_second, 1)})
    else:
        click.echo(f"ran {found.seconds:.1f} seconds with {clients_per_app} requests at the same time")
        click.echo(f"answers to new clients: {found.answers} ({found.offers} with an update), errors: {found.errors}")
        click.echo(f"answers per second: {found.per_second:.1f}")
    if not found.answers:
        fail(f"update service {service.server} gave no answer; check --server")
