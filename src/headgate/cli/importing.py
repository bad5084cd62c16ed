"""`headgate import`: customers and contracts from a CSV."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import Opened, in_store
from headgate.cli.options import ConfigOption, DryRunOption, Format, FormatOption
from headgate.cli.output import counted, print_json, progress
from headgate.model.errors import InputError

if TYPE_CHECKING:
    from headgate.service.import_csv import ImportReport

_MAX_BYTES = 256 * 1024 * 1024


def import_(
    file: Annotated[str, typer.Argument(metavar="FILE.csv", help="The file; - reads standard input.")],
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Import customers, contracts and use so far from a CSV. Repeating it changes nothing that is the same.

    The first line names the columns, in any order. Only customer is needed;
    an empty cell is "not given". There are customer, name, email, ref_SYSTEM
    (as ref_stripe), plan, seats, start, end, time_zone, anchor, overage_cap,
    seat_ids (separated by blanks), and for each action allowance:ACTION,
    overage_price:ACTION and used:ACTION (units used so far in the running
    billing period: counted, never billed).

    All rows are checked first; if one is wrong, nothing is kept.
    """
    from headgate.service.import_csv import import_customers

    content = _read(file)

    async def work(opened: Opened) -> ImportReport:
        with progress("importing") as on_row:
            return await import_customers(
                opened.registry,
                content,
                now_us=opened.now_us,
                seller_zone=opened.zone,
                dry_run=dry_run,
                on_row=on_row,
            )

    _print(in_store(config, work), output)


def _read(file: str) -> bytes:
    try:
        if file == "-":
            content = sys.stdin.buffer.read(_MAX_BYTES + 1)
        else:
            with Path(file).open("rb") as opened:
                content = opened.read(_MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {file}: {error.strerror}; name a CSV file") from error
    if len(content) > _MAX_BYTES:
        raise InputError(f"{file} is larger than {_MAX_BYTES:,} bytes; import it in parts")
    return content


def _print(report: ImportReport, output: Format) -> None:
    if output is Format.JSON:
        print_json(report)
        return
    for row in report.rows:
        for difference in row.differs:
            typer.echo(f"line {row.line}, {row.customer}: left as it is: {difference}")
    customers, contracts = counted(report.created, "customer"), counted(report.contracts, "contract")
    if report.dry_run:
        typer.echo(
            f"would create {customers} and {contracts}, update {report.updated}, "
            f"leave {report.unchanged} as they are (dry run: nothing was kept)"
        )
    else:
        typer.echo(
            f"created {customers} and {contracts}, updated {report.updated}, "
            f"left {report.unchanged} as they are"
        )
