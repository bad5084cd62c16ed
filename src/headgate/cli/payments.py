"""`headgate payments`: x402 payments with their timeline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import Opened, in_store
from headgate.cli.options import ConfigOption, Format, FormatOption
from headgate.cli.output import Column, minute, plain, print_json, print_rows, text_of
from headgate.model.errors import InputError

if TYPE_CHECKING:
    from headgate.service.payments import PaymentView

app = typer.Typer(no_args_is_help=True, help="x402 payments: list, find, show, reopen, resolve.")

Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=1000, help="At most so many.")]

_COLUMNS = (
    Column("payment", lambda row: row.payment_id),
    Column("state", lambda row: row.state),
    Column("action", lambda row: row.action),
    Column("payer", lambda row: row.payer),
    Column("charged, USD", lambda row: row.charged_amount, number=True),
    Column("changed", lambda row: minute(row.updated_at)),
)
_EMPTY = "no such payments"


@app.command("list")
def list_(
    state: Annotated[
        str | None,
        typer.Option(
            "--state",
            metavar="STATE",
            help="claimed, verified, served, settling, settled, failed, unknown, released, reopened "
            "or repeating.",
        ),
    ] = None,
    limit: Limit = 100,
    after: Annotated[
        str | None, typer.Option("--after", metavar="ID", help="Go on after this payment.")
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List payments, the last changed first."""
    from headgate.service.payments import list_payments

    views = in_store(
        config, lambda opened: list_payments(opened.driver, state=state, limit=limit, after=after)
    )
    _print_listed(views, output)


@app.command()
def find(
    tx: Annotated[
        str | None, typer.Option("--tx", metavar="0x…", help="A settlement's transaction hash.")
    ] = None,
    payer: Annotated[str | None, typer.Option("--payer", metavar="0x…", help="A payer's address.")] = None,
    request: Annotated[str | None, typer.Option("--request", metavar="ID", help="A request's id.")] = None,
    limit: Limit = 100,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Find payments by transaction, payer or request; exit 1 if there is none."""
    from headgate.service.payments import find_payments

    if [tx, payer, request].count(None) != 2:
        raise InputError("say one of --tx 0x…, --payer 0x… or --request ID")
    views = in_store(
        config,
        lambda opened: find_payments(opened.driver, tx=tx, payer=payer, request=request, limit=limit),
    )
    _print_listed(views, output)
    if not views:
        raise typer.Exit(1)


@app.command()
def show(
    payment: Annotated[str, typer.Argument(metavar="ID", help="A payment's id, like pay_…")],
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show a payment and what happened to it, step by step."""
    from headgate.service.payments import show_payment

    view = in_store(config, lambda opened: show_payment(opened.driver, payment))
    if output is Format.JSON:
        print_json(view)
    else:
        print_payment(view)


@app.command()
def reopen(
    payment: Annotated[str, typer.Argument(metavar="ID", help="A payment's id, like pay_…")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for its timeline.")],
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Let a settled payment be served once more, uncharged."""
    from headgate.service.reopen import reopen_payment

    view = in_store(
        config, lambda opened: reopen_payment(opened.driver, payment, reason, now_us=opened.now_us)
    )
    if output is Format.JSON:
        print_json(view)
    else:
        print_payment(view)


@app.command()
def resolve(
    payment: Annotated[str, typer.Argument(metavar="ID", help="A payment's id, like pay_…")],
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="How you know, for its timeline.")],
    tx: Annotated[
        str | None, typer.Option("--tx", metavar="0x…", help="The transaction that paid it: it is booked.")
    ] = None,
    unpaid: Annotated[
        bool, typer.Option("--unpaid", help="Nothing was paid: its payer may sign a new one.")
    ] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Say what became of an unknown payment that nobody else can tell about.

    First look its payer and nonce up in an explorer of its network. Where
    `rpc_url` is set the chain's word counts, and this is never needed.
    """
    from headgate.app import clock_us
    from headgate.service.facilitators import make_chains
    from headgate.service.resolve import resolve_payment

    if (tx is None) is not unpaid:
        raise InputError("say either --tx 0x… or --unpaid")

    async def work(opened: Opened) -> PaymentView:
        chains = make_chains(opened.config)
        try:
            return await resolve_payment(
                *(opened.store, opened.config, payment),
                tx=tx,
                reason=reason,
                now_us=clock_us,
                chains=chains,
            )
        finally:
            for chain in chains.values():
                await chain.close()

    view = in_store(config, work)
    if output is Format.JSON:
        print_json(view)
    else:
        print_payment(view)


def _print_listed(views: Sequence[PaymentView], output: Format) -> None:
    """Payments without their timelines, which are read where one is shown."""
    if output is Format.JSON:
        print_json(
            [{name: said for name, said in plain(view).items() if name != "timeline"} for view in views]
        )
    else:
        print_rows(views, _COLUMNS, output, empty=_EMPTY)


def print_payment(view: PaymentView, indent: str = "") -> None:
    """A payment for people: a field on each line, then its timeline."""
    per = "" if view.per == 1 else f" per {view.per}"
    fields: list[tuple[str, object]] = [
        ("payment", view.payment_id),
        ("state", view.state),
        ("reason", view.reason),
        ("payer", view.payer),
        ("nonce", view.nonce),
        ("pay to", view.pay_to),
        ("network", view.network),
        ("asset", view.asset),
        ("scheme", view.scheme),
        ("authorized", f"{view.authorized_amount} USD"),
        ("charged", f"{view.charged_amount} USD ({view.units} × {view.unit_price}{per})"),
        ("written off", f"{view.written_off} units" if view.written_off else None),
        ("action", view.action),
        ("route", view.route),
        ("customer", view.customer),
        ("request", view.request_id),
        ("transaction", view.transaction),
        ("event", view.event_id),
        ("valid before", view.valid_before),
    ]
    shown = [(name, text_of(value)) for name, value in fields if value not in (None, "")]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        typer.echo(f"{indent}{name:<{width}}  {value}")
    if view.timeline:
        typer.echo()
    for step in view.timeline:
        typer.echo(f"{indent}{step.at}  {step.state:<9}  {text_of(step.note)}".rstrip())
