"""`headgate demo` and `headgate facilitator`: a whole world of play money on this machine."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from headgate.cli.opened import awaited
from headgate.cli.options import Format, FormatOption


def demo(
    once: Annotated[bool, typer.Option("--once", help="End with the report, on a terminal too.")] = False,
) -> None:
    """Tell the whole story on this machine: a seat, an overage and a paying agent, then the report.

    Real HTTP and a chain of play money in this process: no wallet, node or
    docker. Exit 0 only if the ledger holds exactly what was served.
    """
    from headgate.demo.story import run

    if not awaited(run(once=once, out=sys.stdout)):
        raise typer.Exit(1)


def facilitator(
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="0 takes any free one.")
    ] = 8404,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run the embedded facilitator and chain on their own, until interrupted. PLAY MONEY only."""
    from headgate.devnet import serve

    serve(port=port, json_format=output is Format.JSON)
