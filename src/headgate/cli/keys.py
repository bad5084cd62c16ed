"""`headgate keys`: API keys. A secret is printed once, by the command that made it."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import Opened, in_store
from headgate.cli.options import ConfigOption, Format, FormatOption
from headgate.cli.output import Column, minute, note, print_fields, print_json, print_rows
from headgate.cli.values import later, length

if TYPE_CHECKING:
    from headgate.service.keys import CreatedKey, RotatedKey

app = typer.Typer(no_args_is_help=True, help="API keys: create, list, revoke, rotate.")

KeyId = Annotated[str, typer.Argument(metavar="KEY", help="A key's id, like key_12.")]

_ENTROPY_BYTES = 32
_COLUMNS = (
    Column("key", lambda row: row.key_id),
    Column("customer", lambda row: row.customer, folds=True),
    Column("seat", lambda row: row.seat_id, folds=True),
    Column("begins", lambda row: row.hint),
    Column("status", lambda row: row.status),
    Column("created", lambda row: row.created_at[:10]),
    Column("expires", lambda row: minute(row.expires_at)),
)


def _print_secret(made: CreatedKey | RotatedKey, output: Format) -> None:
    if output is Format.JSON:
        optional = ("expires_at", "replaces", "replaced_expires_at")
        print_json({k: v for k, v in asdict(made).items() if v is not None or k not in optional})
        return
    print_fields(
        [
            ("key_id", made.key_id),
            ("customer", made.customer),
            ("seat", made.seat_id),
            ("expires", made.expires_at),
            ("replaces", getattr(made, "replaces", None)),
            ("which works until", getattr(made, "replaced_expires_at", None)),
            ("key", made.key),
        ]
    )
    note("This is the only time the key is shown; only its hash is stored.")


@app.command()
def create(
    customer: Annotated[str, typer.Argument(metavar="CUSTOMER", help="Whose key it is.")],
    seat: Annotated[
        str | None, typer.Option("--seat", metavar="ID", help="The named user it belongs to.")
    ] = None,
    expires: Annotated[
        str | None,
        typer.Option("--expires", metavar="T", help="2027-01-31 (in the seller's time zone) or '90 days'."),
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Create a key and show its secret, once."""
    from headgate.service.keys import create_key

    async def work(opened: Opened) -> CreatedKey:
        return await create_key(
            opened.registry,
            customer,
            mode=opened.config.mode,
            entropy=os.urandom(_ENTROPY_BYTES),
            now_us=opened.now_us,
            seat=seat,
            expires_us=later(expires, opened.now_us, opened.zone, "--expires"),
        )

    _print_secret(in_store(config, work), output)


@app.command("list")
def list_(
    customer: Annotated[
        str | None, typer.Argument(metavar="[CUSTOMER]", help="Only this customer's keys.")
    ] = None,
    of: Annotated[str | None, typer.Option("--customer", metavar="CUSTOMER", help="The same.")] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List keys, oldest first; never their secrets."""
    from headgate.service.keys import list_keys

    views = in_store(
        config,
        lambda opened: list_keys(opened.registry, now_us=opened.now_us, customer=customer or of),
    )
    print_rows(views, _COLUMNS, output, empty="no keys yet; `headgate keys create CUSTOMER` makes one")


@app.command()
def revoke(key: KeyId, config: ConfigOption = None, output: FormatOption = Format.TABLE) -> None:
    """End a key now, in every process."""
    from headgate.service.keys import revoke_key

    view = in_store(config, lambda opened: revoke_key(opened.registry, key, now_us=opened.now_us))
    if output is Format.JSON:
        print_json(view)
    else:
        print_fields(
            [
                ("key_id", view.key_id),
                ("customer", view.customer),
                ("status", view.status),
                ("revoked", view.revoked_at),
            ]
        )


@app.command()
def rotate(
    key: KeyId,
    overlap: Annotated[
        str, typer.Option("--overlap", metavar="T", help="How long the old key goes on working: '24 hours'.")
    ] = "0 s",
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Create a key in place of another and show its secret, once."""
    from headgate.service.keys import rotate_key

    overlap_us = length(overlap, "--overlap")

    async def work(opened: Opened) -> RotatedKey:
        return await rotate_key(
            opened.registry,
            key,
            mode=opened.config.mode,
            entropy=os.urandom(_ENTROPY_BYTES),
            now_us=opened.now_us,
            overlap_us=overlap_us,
        )

    _print_secret(in_store(config, work), output)
