"""`headgate facilitator`: a whole x402 world of play money on this machine."""

from __future__ import annotations

from typing import Annotated

import typer

from headgate.cli.options import Format, FormatOption


def facilitator(
    port: Annotated[
        int, typer.Option("--port", metavar="PORT", min=0, max=65535, help="0 takes any free one.")
    ] = 8404,
    output: FormatOption = Format.TABLE,
) -> None:
    """Run the embedded facilitator and chain on their own, until interrupted. PLAY MONEY only."""
    from headgate.devnet import serve

    serve(port=port, json_format=output is Format.JSON)
