"""Options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer


class Format(StrEnum):
    """How output is written."""

    TABLE = "table"
    JSON = "json"


ConfigOption = Annotated[
    str | None,
    typer.Option(
        "-c",
        "--config",
        metavar="FILE",
        envvar="HEADGATE_CONFIG",
        show_envvar=True,
        help="The configuration.",
        show_default="headgate.toml",
    ),
]
FormatOption = Annotated[Format, typer.Option("--format", help="A table for people, JSON for programs.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Show what would happen; change nothing.")]
