"""`headgate subscriptions`: contracts of customers on plans."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import Opened, in_store
from headgate.cli.options import ConfigOption, Format, FormatOption
from headgate.cli.output import Column, print_fields, print_json, print_rows, print_table, text_of
from headgate.cli.values import instant, money, pairs, units

if TYPE_CHECKING:
    from headgate.model.catalog import Catalog
    from headgate.model.negotiated import Negotiated
    from headgate.service.contract_views import SubscriptionView

app = typer.Typer(no_args_is_help=True, help="Contracts: create, list, show, update, cancel.")

SubscriptionId = Annotated[str, typer.Argument(metavar="ID", help="A contract's id, like sub_7.")]
Allowance = Annotated[
    list[str] | None,
    typer.Option(
        "--allowance", metavar="ACTION=UNITS", help="Own allowance per billing period ('plan': the plan's)."
    ),
]
OveragePrice = Annotated[
    list[str] | None,
    typer.Option(
        "--overage-price",
        metavar="ACTION=USD",
        help="Own price beyond, for as many units as the list price is for ('plan': the list price).",
    ),
]
OverageCap = Annotated[
    str | None,
    typer.Option(
        "--overage-cap", metavar="USD", help="Own cap per billing period ('none', or 'plan': the plan's)."
    ),
]

_AS_PLAN = "plan"
_COLUMNS = (
    Column("id", lambda row: row.subscription),
    Column("customer", lambda row: row.customer, folds=True),
    Column("plan", lambda row: row.plan, folds=True),
    Column("seats", lambda row: row.seats, number=True),
    Column("status", lambda row: row.status),
    Column("start", lambda row: row.start_at[:10]),
    Column("end", lambda row: (row.canceled_at or row.end_at or "open")[:10]),
)
_ALLOWANCES = (
    Column("action", lambda row: row.action),
    Column("granted", lambda row: row.granted, number=True),
    Column("used", lambda row: row.used, number=True),
    Column("held", lambda row: row.held, number=True),
    Column("left", lambda row: row.left, number=True),
    Column("beyond, USD", lambda row: _per(row.overage_price, row.overage_per), number=True),
)


def _per(price: str, per: int) -> str:
    return price if per == 1 else f"{price} per {per}"


def _print(view: SubscriptionView, output: Format) -> None:
    if output is Format.JSON:
        print_json(view)
        return
    billing_period = None
    if view.period_start_at and view.period_end_at:
        billing_period = f"{view.period_start_at[:19]}Z to {view.period_end_at[:19]}Z ({view.anchor})"
    print_fields(
        [
            ("subscription", view.subscription),
            ("customer", view.customer),
            ("plan", f"{view.plan} (catalog {view.catalog_version})"),
            ("seats", view.seats),
            ("status", view.status),
            ("start", view.start_at),
            ("end", view.end_at or "open"),
            ("cancelled", view.canceled_at),
            ("time zone", view.time_zone),
            ("billing period", billing_period),
            ("seat fee", f"{view.seat_fee} USD per billing period"),
            ("beyond", view.beyond),
            ("overage cap", view.overage_cap and f"{view.overage_cap} USD per billing period"),
            *(
                (
                    "from " + one.from_at[:19] + "Z",
                    f"{one.plan}, {one.seats} seats (catalog {one.catalog_version})",
                )
                for one in view.planned
            ),
        ]
    )
    if view.allowances:
        typer.echo()
        print_table(
            [[text_of(column.read(row)) for column in _ALLOWANCES] for row in view.allowances], _ALLOWANCES
        )


def _negotiated(
    before: Negotiated,
    catalog: Catalog,
    allowance: list[str] | None,
    overage_price: list[str] | None,
    overage_cap: str | None,
) -> Negotiated | None:
    """What was negotiated, with the options applied; None where none was given."""
    from headgate.model.errors import InputError
    from headgate.model.negotiated import Negotiated
    from headgate.model.subscription import NO_CAP, Price

    if not (allowance or overage_price or overage_cap is not None):
        return None
    own, prices, cap = dict(before.allowance), dict(before.overage_price), before.overage_cap_micros
    for action, text in pairs(allowance, "--allowance").items():
        own.pop(action, None)
        if text != _AS_PLAN:
            own[action] = units(text, f"--allowance {action}")
    for action, text in pairs(overage_price, "--overage-price").items():
        prices.pop(action, None)
        if text != _AS_PLAN:
            if action not in catalog.actions:
                known = ", ".join(sorted(catalog.actions))
                raise InputError(
                    f"--overage-price: catalog {catalog.version} has no action {action!r}; it has {known}"
                )
            prices[action] = Price(money(text, f"--overage-price {action}"), catalog.actions[action].per)
    if overage_cap is not None:
        cap = {_AS_PLAN: None, "none": NO_CAP}.get(overage_cap, 0)
        cap = money(overage_cap, "--overage-cap") if cap == 0 else cap
    return Negotiated(own, prices, cap)


@app.command()
def create(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="Who is put under contract.")],
    plan: Annotated[str, typer.Option("--plan", metavar="PLAN", help="A plan of the published catalog.")],
    seats: Annotated[int, typer.Option("--seats", metavar="N", min=0, help="How many seats.")] = 1,
    start: Annotated[
        str | None, typer.Option("--start", metavar="DATE", help="2026-01-31, or a time.", show_default="now")
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--end", metavar="DATE", help="When it ends.", show_default="after the plan's term"),
    ] = None,
    time_zone: Annotated[
        str | None,
        typer.Option("--time-zone", metavar="ZONE", help="Like Europe/Berlin.", show_default="the seller's"),
    ] = None,
    anchor: Annotated[
        str,
        typer.Option(
            "--anchor", metavar="ANCHOR", help="Billing periods from the start: anniversary; or calendar."
        ),
    ] = "anniversary",
    allowance: Allowance = None,
    overage_price: OveragePrice = None,
    overage_cap: OverageCap = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Put a customer under contract."""
    from headgate.model.negotiated import NOTHING_NEGOTIATED
    from headgate.service.subscribe import Agreement, create_subscription

    async def work(opened: Opened) -> SubscriptionView:
        zone = time_zone or opened.zone
        catalog = await opened.registry.catalog_at(opened.now_us)
        agreement = Agreement(
            plan=plan,
            seats=seats,
            start_us=instant(start, zone, "--start"),
            end_us=instant(end, zone, "--end"),
            time_zone=zone,
            anchor=anchor,
            negotiated=_negotiated(NOTHING_NEGOTIATED, catalog, allowance, overage_price, overage_cap)
            or NOTHING_NEGOTIATED,
        )
        return await create_subscription(
            opened.registry, customer, agreement, now_us=opened.now_us, grace_us=opened.grace_us
        )

    _print(in_store(config, work), output)


@app.command("list")
def list_(
    customer: Annotated[
        str | None, typer.Argument(metavar="[CUSTOMER]", help="Only this customer's contracts.")
    ] = None,
    of: Annotated[str | None, typer.Option("--customer", metavar="CUSTOMER", help="The same.")] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List contracts by customer."""
    from headgate.service.subscribe import list_subscriptions

    views = in_store(
        config,
        lambda opened: list_subscriptions(
            opened.registry, now_us=opened.now_us, grace_us=opened.grace_us, customer=customer or of
        ),
    )
    empty = "no contracts yet; `headgate subscriptions create CUSTOMER --plan PLAN` makes one"
    print_rows(views, _COLUMNS, output, empty=empty)


@app.command()
def show(
    subscription: SubscriptionId, config: ConfigOption = None, output: FormatOption = Format.TABLE
) -> None:
    """Show a contract, and what was used in its running billing period."""
    from headgate.service.subscribe import show_subscription

    view = in_store(
        config,
        lambda opened: show_subscription(
            opened.registry, subscription, now_us=opened.now_us, grace_us=opened.grace_us
        ),
    )
    _print(view, output)


@app.command()
def update(
    subscription: SubscriptionId,
    seats: Annotated[int | None, typer.Option("--seats", metavar="N", min=0, help="How many seats.")] = None,
    plan: Annotated[
        str | None, typer.Option("--plan", metavar="PLAN", help="Another plan, from the renewal on.")
    ] = None,
    allowance: Allowance = None,
    overage_price: OveragePrice = None,
    overage_cap: OverageCap = None,
    at_renewal: Annotated[
        bool, typer.Option("--at-renewal", help="All of it holds from the renewal on, at its prices.")
    ] = False,
    renew: Annotated[bool, typer.Option("--renew", help="Extend the contract by a term.")] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Change seats now, own terms from the next billing period on, the plan at renewal."""
    from headgate.model.errors import InputError
    from headgate.model.subscription import latest_terms
    from headgate.service.subscribe import Change, find_subscription, negotiated_of, update_subscription

    given = (seats, plan, allowance, overage_price, overage_cap)
    if not renew and all(one is None for one in given):
        raise InputError("nothing to change; give --seats, --plan, --allowance, … (see --help)")

    async def work(opened: Opened) -> SubscriptionView:
        contract = await find_subscription(opened.registry, subscription)
        catalog = await opened.registry.catalog_at(opened.now_us)
        before = negotiated_of(latest_terms(contract))
        change = Change(
            seats=seats,
            plan=plan,
            negotiated=_negotiated(before, catalog, allowance, overage_price, overage_cap),
            at_renewal=at_renewal,
            renew=renew,
        )
        return await update_subscription(
            opened.registry, subscription, change, now_us=opened.now_us, grace_us=opened.grace_us
        )

    _print(in_store(config, work), output)


@app.command()
def cancel(
    subscription: SubscriptionId,
    at: Annotated[
        str | None,
        typer.Option("--at", metavar="DATE", help="When, in the contract's time zone.", show_default="now"),
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """End a contract, without grace."""
    from headgate.service.subscribe import cancel_subscription, find_subscription

    async def work(opened: Opened) -> SubscriptionView:
        contract = await find_subscription(opened.registry, subscription)
        return await cancel_subscription(
            opened.registry,
            subscription,
            now_us=opened.now_us,
            grace_us=opened.grace_us,
            at_us=instant(at, contract.time_zone, "--at"),
        )

    _print(in_store(config, work), output)
