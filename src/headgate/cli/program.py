"""The tree of commands, and what becomes of errors.

Exit codes: 0 done, 1 the answer is no, 2 bad usage or configuration.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from headgate.cli import (
    buying,
    catalog,
    customers,
    importing,
    keys,
    ledger,
    payments,
    report,
    setup,
    subscriptions,
    world,
)
from headgate.cli.output import printable
from headgate.model.errors import (
    AllowanceExhausted,
    AlreadyExists,
    ChainError,
    FacilitatorError,
    HeadgateError,
    IdConflict,
    NotFound,
)

_START, _CONTRACTS, _LEDGER, _STORE = "Start", "Catalog and contracts", "Ledger", "Store"
_SAYS_NO = (NotFound, AlreadyExists, IdConflict, AllowanceExhausted, FacilitatorError, ChainError)


class _Commands(TyperGroup):
    """Tells an error on purpose in plain words; a fault keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            sys.stdout.flush()
            return result
        except BrokenPipeError:  # a reader that has seen enough (`| head`)
            _discard_output()
            raise typer.Exit(0) from None
        except HeadgateError as error:
            sys.stderr.write(_told(error))
            raise typer.Exit(1 if isinstance(error, _SAYS_NO) else 2) from None
        except ModuleNotFoundError as error:
            if "headgate[" not in str(error):
                raise
            sys.stderr.write(_told(error))
            raise typer.Exit(2) from None


def _told(error: Exception) -> str:
    """One line, or a line for each problem where several were found at once."""
    problems = getattr(error, "problems", ())
    if len(problems) < 2:
        return f"headgate: {printable(str(error))}\n"
    lines = [f"headgate: {len(problems)} problems", *(f"  {printable(str(each))}" for each in problems)]
    return "\n".join(lines) + "\n"


app = typer.Typer(
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from headgate import __version__

        typer.echo(f"headgate {__version__}")
        raise typer.Exit


@app.callback()
def _program(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Sell one API through seats, overage and x402 payments, with one ledger.

    Commands read headgate.toml in this directory; -c after the command, or
    HEADGATE_CONFIG, names another file.
    Exit codes: 0 done, 1 the answer is no, 2 bad usage or configuration.
    """
    del version


app.command("demo", rich_help_panel=_START)(world.demo)
app.command("init", rich_help_panel=_START)(setup.init)
app.command("check", rich_help_panel=_START)(setup.check)
app.command("pay", rich_help_panel=_START)(buying.pay)
app.command("facilitator", rich_help_panel=_START)(world.facilitator)
app.command("publish", rich_help_panel=_CONTRACTS)(catalog.publish)
app.add_typer(catalog.app, name="catalog", rich_help_panel=_CONTRACTS)
app.add_typer(customers.app, name="customers", rich_help_panel=_CONTRACTS)
app.add_typer(subscriptions.app, name="subscriptions", rich_help_panel=_CONTRACTS)
app.add_typer(keys.app, name="keys", rich_help_panel=_CONTRACTS)
app.command("import", rich_help_panel=_CONTRACTS)(importing.import_)
app.command("report", rich_help_panel=_LEDGER)(report.report)
app.command("events", rich_help_panel=_LEDGER)(ledger.events)
app.command("record", rich_help_panel=_LEDGER)(ledger.record)
app.command("explain", rich_help_panel=_LEDGER)(ledger.explain)
app.command("verify", rich_help_panel=_LEDGER)(ledger.verify)
app.add_typer(payments.app, name="payments", rich_help_panel=_LEDGER)
app.command("status", rich_help_panel=_STORE)(setup.status)
app.command("migrate", rich_help_panel=_STORE)(setup.migrate)


def run(arguments: Sequence[str]) -> None:
    """Run one command line; leaves by SystemExit with the exit code."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that knows no € is no reason to fail
    app(list(arguments), prog_name="headgate")


def _discard_output() -> None:
    """What is left in the buffer has no reader; without this the interpreter complains at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
