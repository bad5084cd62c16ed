"""`headgate report`: the table for finance.

On a terminal too narrow for every column, what says nothing is moved out of the table: a single month into
the line above it, amounts that are zero in every row into the line below. CSV and JSON always have all.
"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import Opened, in_store
from headgate.cli.options import ConfigOption
from headgate.cli.output import Column, print_fields, print_table
from headgate.model.errors import InputError

if TYPE_CHECKING:
    from headgate.model.report import Report, Span


class ReportFormat(StrEnum):
    """How a report is written."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def report(
    month: Annotated[
        str | None,
        typer.Option("--month", metavar="2026-11", help="An accounting month.", show_default="this one"),
    ] = None,
    first: Annotated[str | None, typer.Option("--from", metavar="DAY", help="The first day.")] = None,
    last: Annotated[
        str | None, typer.Option("--to", metavar="DAY", help="The last day, included.", show_default="today")
    ] = None,
    by: Annotated[
        str,
        typer.Option(
            "--by",
            metavar="COLUMNS",
            help="Of channel, action, customer, payer, plan, network, key, seat and day.",
        ),
    ] = "channel,action",
    config: ConfigOption = None,
    output: Annotated[
        ReportFormat, typer.Option("--format", help="A table with totals, or all rows as CSV or JSON.")
    ] = ReportFormat.TABLE,
) -> None:
    """Report use and money by channel."""
    from headgate.model.calendar import AccountingCalendar
    from headgate.model.report import parse_by, to_csv, to_json
    from headgate.service.report import report as make_report

    async def work(opened: Opened) -> Report:
        calendar = AccountingCalendar(opened.zone)
        span = _span(month, first, last, calendar.month_and_day(opened.now_us))
        return await make_report(
            opened.driver, opened.registry, calendar=calendar, span=span, by=parse_by(by)
        )

    made = in_store(config, work)
    if output is ReportFormat.CSV:
        sys.stdout.write(to_csv(made))
    elif output is ReportFormat.JSON:
        sys.stdout.write(to_json(made))
    else:
        _print(made)


def _span(month: str | None, first: str | None, last: str | None, today: tuple[int, int]) -> Span:
    """What is asked for; `today` is (month, day) in the seller's zone."""
    from headgate.model.calendar import format_month
    from headgate.model.report import Span

    if month is not None and (first is not None or last is not None):
        raise InputError("--month and --from/--to exclude each other; give one of them")
    if first is None and last is not None:
        raise InputError("--to needs --from; give both")
    if first is not None:
        return Span.of_days(first, last or f"{format_month(today[0])}-{today[1]:02d}")
    return Span.of_month(month or format_month(today[0]))


def _print(made: Report) -> None:
    from headgate.model.report import day_text, memo_lines, to_table

    header, *rows, totals = to_table(made)
    typer.echo(
        f"{day_text(made.span.first_day)} to {day_text(made.span.last_day)} ({made.time_zone}), "
        "amounts in USD\n"
    )
    if rows:
        _print_table(header, rows, totals, len(made.by))
    else:
        typer.echo("no events")
    typer.echo()
    *memo, (head, digest) = memo_lines(made)
    print_fields(memo)
    typer.echo(f"{head}  {digest}")  # 64 digits fit a line of 80 only without the fields' indent


def _print_table(header: list[str], rows: list[list[str]], totals: list[str], labels: int) -> None:
    from rich.console import Console

    kept, unsaid = list(range(len(header))), []

    def width() -> int:
        widest = (max(len(line[place]) for line in (header_words(header), *rows, totals)) for place in kept)
        return sum(widest) + 2 * (len(kept) - 1)

    if width() > (room := Console().width):
        months = {row[0] for row in rows}
        zero = [
            place
            for place in kept
            if header[place].endswith("_amount") and all(row[place] == _ZERO for row in rows)
        ]
        for place in zero:
            if width() > room:
                kept.remove(place)
                unsaid.append(header_words(header)[place])
        if len(months) == 1 and width() > room:
            kept.remove(0)
            typer.echo(f"month {months.pop()}\n")
            totals = ["", "total", *totals[2:]]
    columns = [
        Column(header_words(header)[place], str, number=place >= labels, folds=place < labels)
        for place in kept
    ]
    print_table(
        [[row[place] for place in kept] for row in rows], columns, totals=[totals[place] for place in kept]
    )
    if unsaid:
        typer.echo(f"\n{_ZERO} in every row: {', '.join(unsaid)}")


_ZERO = "0.000000"


def header_words(header: list[str]) -> list[str]:
    """The columns' names, short: below `amounts in USD`, `list_amount` is `list`."""
    return [name.removesuffix("_amount") for name in header]
