"""`headgate customers`: accounts under the seller's own ids."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import in_store
from headgate.cli.options import ConfigOption, Format, FormatOption
from headgate.cli.output import Column, print_fields, print_json, print_rows
from headgate.cli.values import pairs

if TYPE_CHECKING:
    from headgate.service.customers import CustomerView

app = typer.Typer(no_args_is_help=True, help="Customers: create, list, show, update, archive.")

Id = Annotated[str, typer.Argument(metavar="ID", help="The customer's id in your own system.")]
Name = Annotated[str | None, typer.Option("--name", help="A name; empty erases it.")]
Email = Annotated[str | None, typer.Option("--email", help="An email address; empty erases it.")]
Refs = Annotated[
    list[str] | None,
    typer.Option(
        "--ref", metavar="SYSTEM=ID", help="Its id in another system, like stripe=cus_…; may be repeated."
    ),
]

_COLUMNS = (
    Column("customer", lambda row: row.customer),
    Column("name", lambda row: row.name, folds=True),
    Column("email", lambda row: row.email, folds=True),
    Column("references", lambda row: row.references, folds=True),
    Column("created", lambda row: row.created_at[:10]),
    Column("archived", lambda row: row.archived_at and row.archived_at[:10]),
)


def _print(view: CustomerView, output: Format) -> None:
    if output is Format.JSON:
        print_json(view)
        return
    print_fields(
        [
            ("customer", view.customer),
            ("name", view.name),
            ("email", view.email),
            *((f"ref {system}", value) for system, value in sorted(view.references.items())),
            ("created", view.created_at),
            ("archived", view.archived_at),
        ]
    )


@app.command()
def create(
    customer: Id,
    name: Name = None,
    email: Email = None,
    ref: Refs = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Create a customer."""
    from headgate.service.customers import create_customer

    references = pairs(ref, "--ref")
    view = in_store(
        config,
        lambda opened: create_customer(
            opened.registry,
            customer,
            now_us=opened.now_us,
            name=name or "",
            email=email or "",
            references=references,
        ),
    )
    _print(view, output)


@app.command("list")
def list_(
    archived: Annotated[bool, typer.Option("--archived", help="Archived ones too.")] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List customers by id."""
    from headgate.service.customers import list_customers

    views = in_store(config, lambda opened: list_customers(opened.registry, archived=archived))
    columns = _COLUMNS if archived else _COLUMNS[:-1]
    print_rows(views, columns, output, empty="no customers yet; `headgate customers create ID` makes one")


@app.command()
def show(customer: Id, config: ConfigOption = None, output: FormatOption = Format.TABLE) -> None:
    """Show a customer, archived or not."""
    from headgate.service.customers import show_customer

    _print(in_store(config, lambda opened: show_customer(opened.registry, customer)), output)


@app.command()
def update(
    customer: Id,
    name: Name = None,
    email: Email = None,
    ref: Refs = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Change what is given of a customer; `--ref SYSTEM=` removes a reference."""
    from headgate.service.customers import update_customer

    references = pairs(ref, "--ref")
    view = in_store(
        config,
        lambda opened: update_customer(
            opened.registry, customer, name=name, email=email, references=references
        ),
    )
    _print(view, output)


@app.command()
def archive(customer: Id, config: ConfigOption = None, output: FormatOption = Format.TABLE) -> None:
    """Take a customer out of the lists and revoke its keys; its events stay."""
    from headgate.service.customers import archive_customer

    view = in_store(config, lambda opened: archive_customer(opened.registry, customer, now_us=opened.now_us))
    _print(view, output)
