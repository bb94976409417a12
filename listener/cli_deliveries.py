"""Commands for deliveries: what is on its way to which destination, and putting back what was given up."""

from __future__ import annotations

import getpass
import sys
from typing import Annotated

import typer

from listener.desk import Desk
from listener.show import printable
from listener.terminal import AsJson, Reason, app, configuration, print_json
from store.ledger import GIVEN_UP, DeliveryState

deliveries_app = typer.Typer(
    invoke_without_command=True, help="Deliveries of results and of forwarded images: list them, or put back what was given up."
)
app.add_typer(deliveries_app, name="deliveries")


@deliveries_app.callback()
def deliveries(
    context: typer.Context,
    state: Annotated[DeliveryState | None, typer.Option(help="Only deliveries in this state.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Also each one that was refused or has expired.")] = False,
    as_json: AsJson = False,
) -> None:
    """List deliveries, newest first; what was refused or has expired once for each destination and reason."""
    if context.invoked_subcommand is not None:
        return
    desk = Desk(configuration(context))
    found = desk.deliveries(state)
    if as_json:
        print_json(found)
        return
    for group in desk.given_up() if state is None else ():
        what = f"{group['destination']}: {group['count']} {group['state']} since {group['since']:%Y-%m-%d %H:%M}Z: {group['reason']}"
        again = f"fourview deliveries retry --state {group['state']} --destination {group['destination']}"
        print(printable(f"{what}\n    when that is mended: {again}"))
    for one in found:
        if every or state is not None or one["state"] not in (DeliveryState.REFUSED, DeliveryState.EXPIRED):
            where = f"{one['destination']:<16} {one['kind']:<8} {one['state']:<10}"
            print(printable(f"{one['id']:>8} {where} {one['sop_instance_uid']:<64} {one['reason']}"))


@deliveries_app.command()
def retry(
    context: typer.Context,
    delivery: Annotated[list[int] | None, typer.Argument(help="Numbers of deliveries, as `fourview deliveries` lists them.")] = None,
    state: Annotated[list[DeliveryState] | None, typer.Option(help="All in this state: refused, expired or cancelled.")] = None,
    destination: Annotated[str, typer.Option(help="Only of this destination.")] = "",
    reason: Reason = "",
) -> None:
    """Put deliveries that were refused, expired or cancelled back into the outbox. The same bytes are sent, and nothing is read again."""
    if bool(delivery) == bool(state):
        raise typer.BadParameter("name deliveries, or one --state, not both")
    if wrong := [one for one in state or () if one not in GIVEN_UP]:
        raise typer.BadParameter(f"{wrong[0]}: only what is {', '.join(GIVEN_UP)} can be sent again", param_hint="--state")
    done, refused = Desk(configuration(context)).retry(
        person=getpass.getuser(), why=reason, delivery_ids=delivery or (), states=state or (), destination=destination
    )
    for line in refused:
        print(printable(line), file=sys.stderr)
    print(f"{done} will be sent again")
    if refused and (delivery or not done):
        raise typer.Exit(1)
