"""`headgate migrate`: bringing a store to this version."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import read_config
from headgate.cli.options import ConfigOption, Format, FormatOption
from headgate.cli.output import print_json

if TYPE_CHECKING:
    from headgate.config import Config


def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="List what is missing; change nothing.")] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Bring the store to this version; back it up first."""
    names = asyncio.run(_migrate(read_config(config), plan_only=plan))
    if output is Format.JSON:
        print_json({"applied" if not plan else "missing": names})
    elif not names:
        typer.echo("nothing to do: the store is up to date")
    else:
        for name in names:
            typer.echo(f"{'would apply' if plan else 'applied'} {name}")


async def _migrate(config: Config, *, plan_only: bool) -> list[str]:
    from headgate.app import make_driver
    from headgate.model.errors import StoreTooNew
    from headgate.store.statements import load_migrations

    driver = make_driver(config)
    try:
        known = load_migrations()
        version = await driver.schema_version()
        if version > known[-1][0]:
            raise StoreTooNew(
                f"the store has schema {version}, this Headgate knows {known[-1][0]}; upgrade Headgate"
            )
        if plan_only:
            return [f"{number:04d}_{name}" for number, name, _ in known if number > version]
        return await driver.migrate()
    finally:
        await driver.close()
