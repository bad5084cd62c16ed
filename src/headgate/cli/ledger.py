"""`headgate events`, `explain`, `verify`, `record`: the ledger, row by row."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.opened import Opened, awaited, in_store, read_config
from headgate.cli.options import ConfigOption, Format, FormatOption
from headgate.cli.output import (
    Column,
    counted,
    minute,
    print_fields,
    print_json,
    print_rows,
    print_wrapped,
    progress,
)
from headgate.cli.values import instant, units
from headgate.model.errors import InputError

if TYPE_CHECKING:
    from headgate.service.explain import ExplainedEvent, Explanation
    from headgate.service.verify import Verification
    from headgate.store.operations import Booked

_TOLD_EVERY = 500
_DIFFERENCES = (
    Column("where", lambda row: row.where, folds=True),
    Column("what", lambda row: row.what, folds=True),
)


def events(
    channel: Annotated[
        str | None, typer.Option("--channel", metavar="CHANNEL", help="seat, overage or x402.")
    ] = None,
    customer: Annotated[str | None, typer.Option("--customer", metavar="ID", help="Your own id.")] = None,
    payer: Annotated[str | None, typer.Option("--payer", metavar="0x…", help="A payer's address.")] = None,
    month: Annotated[str | None, typer.Option("--month", metavar="2026-11", help="Accounting month.")] = None,
    request: Annotated[str | None, typer.Option("--request", metavar="ID", help="A request's id.")] = None,
    key: Annotated[str | None, typer.Option("--key", metavar="KEY", help="An API key's id.")] = None,
    config: ConfigOption = None,
    output: Annotated[
        Format, typer.Option("--format", help="JSON lines, or a line each for people.")
    ] = Format.JSON,
) -> None:
    """Print ledger rows, oldest first, as JSON lines."""
    from headgate.service.event_object import as_line
    from headgate.service.events import EventQuery
    from headgate.service.events import events as read_events

    query = EventQuery(channel, customer, payer, month, request, key)
    line: Callable[[dict[str, Any]], str] = as_line if output is Format.JSON else _event_line

    async def work(opened: Opened) -> None:
        quiet = nullcontext(lambda _done, _of: None)
        done = 0
        with quiet if sys.stdout.isatty() else progress("events") as told:
            async for shown in read_events(opened.driver, opened.registry, query):
                sys.stdout.write(line(shown) + "\n")
                done += 1
                if done % _TOLD_EVERY == 0:
                    told(done, None)

    in_store(config, work)


def _event_line(shown: dict[str, Any]) -> str:
    who = shown["customer"] or shown["payer"] or "–"
    return (
        f"{minute(shown['booked_at'])}  {shown['kind']:<10}  {shown['channel']:<7}  {shown['action']:<24}  "
        f"{shown['units']:>8}  {shown['charged_amount']:>12}  {who}  {shown['event_id']}"
    )


def verify(
    file: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE]", help="An export (`headgate events > FILE`), checked without a store."
        ),
    ] = None,
    head: Annotated[
        str | None,
        typer.Option("--head", metavar="HASH", help="The head that FILE must reach, as a report said."),
    ] = None,
    part: Annotated[bool, typer.Option("--part", help="FILE was filtered: rows may be left out.")] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check the hash chain, and everything kept beside the rows; exit 1 if anything differs."""
    if file is None and (head is not None or part):
        raise InputError("--head and --part are about a FILE; name one")
    found = in_store(config, _verify_store) if file is None else _verify_file(file, head, part=part)
    if output is Format.JSON:
        print_json({"verified": found.verified, **asdict(found)})
    else:
        if found.differences:
            print_rows(found.differences, _DIFFERENCES, output, empty="")
        typer.echo(
            f"{'ledger verified' if found.verified else 'NOT verified'}: {counted(found.events, 'event')} in "
            f"{counted(found.slots, 'slot')}, {counted(len(found.differences), 'difference')}"
        )
        typer.echo(f"head {found.ledger_head}")
    if not found.verified:
        raise typer.Exit(1)


async def _verify_store(opened: Opened) -> Verification:
    from headgate.model.calendar import AccountingCalendar
    from headgate.service.verify import verify as verify_store

    with progress("verifying") as told:
        return await verify_store(opened.driver, calendar=AccountingCalendar(opened.zone), progress=told)


def _verify_file(file: str, head: str | None, *, part: bool) -> Verification:
    from headgate.service.verify_export import verify_export

    try:
        size = Path(file).stat().st_size
        with Path(file).open("rb") as opened, progress("verifying") as told:
            return verify_export(_told_lines(opened, size, told), complete=not part, head=head)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; name an export") from error


def _told_lines(lines: Iterable[bytes], size: int, told: Callable[[int, int], None]) -> Iterator[bytes]:
    """The lines, telling how many bytes of how many are read."""
    done = 0
    for number, line in enumerate(lines):
        yield line
        done += len(line)
        if number % _TOLD_EVERY == 0:
            told(done, size)


def explain(
    subject: Annotated[str, typer.Argument(metavar="ID", help="An event's, a request's or a payment's id.")],
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Explain one number: the decision, the arithmetic, the catalog, the books, the chain."""
    from headgate.service.explain import explain as explain_subject

    found = in_store(config, lambda opened: explain_subject(opened.driver, opened.registry, subject))
    if output is Format.JSON:
        print_json(_as_json(found))
    else:
        _print_explanation(found)
    if not all(each.sound for each in found.events):
        raise typer.Exit(1)


def _as_json(found: Explanation) -> dict[str, Any]:
    from headgate.model.money import format_usd

    whole = asdict(found)
    for shown, each in zip(whole["events"], found.events, strict=True):
        shown["sound"] = each.sound
        shown["books"] = [
            {
                "account": posting.account,
                "debit": format_usd(posting.debit_micros),
                "credit": format_usd(posting.credit_micros),
            }
            for posting in each.books
        ]
    return whole


def _print_explanation(found: Explanation) -> None:
    from headgate.cli.payments import print_payment

    for place, each in enumerate(found.events):
        if place:
            typer.echo()
        _print_explained(each)
    payments = {
        one.payment_id: one for one in [found.payment, *(each.payment for each in found.events)] if one
    }
    for payment in payments.values():
        typer.echo("\npayment")
        print_payment(payment, indent="  ")


def _print_explained(each: ExplainedEvent) -> None:
    from headgate.model.money import format_usd

    row = each.event
    typer.echo(f"event {row['event_id']}")
    print_wrapped(each.decision, "  ")
    print_wrapped(each.catalog, "  ")
    print_fields(
        [("  request", row["request_id"]), ("  booked", row["booked_at"]), ("  month", row["month"])]
    )
    for amount in each.amounts:
        typer.echo(f"\n  {amount.name} {amount.stored} USD{'' if amount.agrees else '  DOES NOT AGREE'}")
        for line in amount.working:
            typer.echo(f"    {line}")
    if each.allowance is not None:
        left = each.allowance
        typer.echo(f"\n  allowance of {left.granted}: {left.before} left before, {left.after} after")
    if each.books:
        typer.echo("\n  books")
    for posting in each.books:
        side, micros = (
            ("debit ", posting.debit_micros) if posting.debit_micros else ("credit", posting.credit_micros)
        )
        typer.echo(f"    {side}  {posting.account:<24}  {format_usd(micros):>14}")
    for delivery in each.deliveries:
        typer.echo(
            f"\n  export {delivery.export}: {'delivered' if delivery.delivered else 'not delivered yet'}"
        )
    if each.same_request:
        typer.echo(f"\n  same request: {', '.join(each.same_request)}")
    if each.corrected_by:
        typer.echo(f"\n  corrected by: {', '.join(each.corrected_by)}")
    chain = each.chain
    holds = "follows from the row and the one before" if chain.recomputed else "DOES NOT FOLLOW FROM THE ROW"
    typer.echo(f"\n  chain of slot {chain.slot}, row {chain.seq}: hash {chain.row_hash}")
    typer.echo(f"    {holds}")


def record(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="Whose use it was.")],
    action: Annotated[str, typer.Argument(metavar="ACTION", help="An action of the catalog.")],
    amount: Annotated[str, typer.Argument(metavar="UNITS", help="How many units.")],
    id_: Annotated[
        str, typer.Option("--id", metavar="ID", help="Booked once per id, however often it is repeated.")
    ],
    seat: Annotated[str | None, typer.Option("--seat", metavar="ID", help="The named user.")] = None,
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="When it occurred.", show_default="now")
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Book use that was no HTTP request, once per id."""
    from headgate.model.event import Channel, event_id, request_id_text
    from headgate.model.money import format_usd

    booked = awaited(_record(config, customer, action, amount, id_, seat, at))
    rows = [
        {
            "event_id": event_id(event.booked_us, event.slot, event.seq),
            "channel": Channel(event.channel).name.lower(),
            "units": event.units,
            "charged_amount": format_usd(event.charged_micros),
        }
        for event in booked.events
    ]
    if output is Format.JSON:
        request_id = request_id_text(booked.events[0].request_id) if booked.events else None
        print_json({"repeated": booked.repeated, "request_id": request_id, "events": rows})
        return
    if booked.repeated:
        typer.echo("booked before under this id; nothing was added:")
    for row in rows:
        typer.echo(f"{row['channel']}  {row['units']} units  {row['charged_amount']} USD  {row['event_id']}")


async def _record(
    config: str | None, customer: str, action: str, amount: str, id_: str, seat: str | None, at: str | None
) -> Booked:
    from dataclasses import replace

    from headgate.app import Headgate
    from headgate.config import OverageConfig

    read = read_config(config)
    # This process books one use: payments and deliveries are left to those that serve.
    async with Headgate(replace(read, x402=None, overage=OverageConfig())) as gate:
        return await gate.record(
            customer,
            action,
            units(amount, "UNITS"),
            id=id_,
            seat=seat,
            occurred_us=instant(at, read.seller.time_zone, "--at"),
        )
