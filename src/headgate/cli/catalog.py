"""`headgate publish` and `headgate catalog`: what is sold, in numbered versions."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from headgate.cli.opened import Opened, in_store
from headgate.cli.options import ConfigOption, DryRunOption, Format, FormatOption
from headgate.cli.output import Column, minute, print_json, print_rows, print_table, text_of
from headgate.cli.values import instant

if TYPE_CHECKING:
    from headgate.model.catalog import Action, Catalog, Plan
    from headgate.model.catalog_diff import CatalogChange
    from headgate.service.publish import PublishReport

app = typer.Typer(no_args_is_help=True, help="The catalog: published versions, and the file against them.")


def _usd(micros: int) -> str:
    from headgate.model.money import format_usd

    return format_usd(micros)


def _price(action: Action) -> str:
    if action.free:
        return "free"
    return _usd(action.price_micros) + ("" if action.per == 1 else f" per {action.per}")


def _included(plan: Plan) -> str:
    flat = [f"{units} {name}" for name, units in sorted(plan.included.items())]
    return "\n".join(
        flat + [f"{units} {name} per seat" for name, units in sorted(plan.included_per_seat.items())]
    )


def _beyond(plan: Plan) -> str:
    if plan.overage_cap_micros is None:
        return plan.beyond.value
    return f"{plan.beyond.value} up to {_usd(plan.overage_cap_micros)}, then {plan.beyond_cap.value}"


_CHANGES = (
    Column("what", lambda row: row.where, folds=True),
    Column("before", lambda row: "–" if row.before is None else row.before, folds=True),
    Column("after", lambda row: "–" if row.after is None else row.after, folds=True),
)
_VERSIONS = (
    Column("version", lambda row: row.version, number=True),
    Column("status", lambda row: row.status),
    Column("effective", lambda row: minute(row.effective_at)),
    Column("published", lambda row: minute(row.published_at)),
    Column("digest", lambda row: row.digest[:12]),
)
_ACTIONS = (
    Column("action", lambda row: row.name, folds=True),
    Column("unit", lambda row: row.unit),
    Column("price, USD", _price, number=True),
    Column("x402 ceiling", lambda row: row.max_units, number=True),
    Column("routes", lambda row: "\n".join(str(route) for route in row.routes), folds=True),
)
_PLANS = (
    Column("plan", lambda row: row.name),
    Column("per seat, USD", lambda row: _usd(row.price_per_seat_micros), number=True),
    Column("included", _included, folds=True),
    Column("beyond", _beyond, folds=True),
)


def publish(
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            metavar="TIME",
            help="When it takes effect, in the seller's time zone.",
            show_default="now",
        ),
    ] = None,
    dry_run: DryRunOption = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Publish the file's catalog as the next version, and show what that changes."""
    from headgate.service.publish import publish_catalog

    async def work(opened: Opened) -> PublishReport:
        return await publish_catalog(
            opened.registry,
            opened.config.catalog,
            now_us=opened.now_us,
            at_us=instant(at, opened.zone, "--at"),
            dry_run=dry_run,
        )

    report = in_store(config, work)
    if output is Format.JSON:
        print_json(report)
    else:
        _print_publication(report)


def _print_publication(report: PublishReport) -> None:
    if report.version is None:
        typer.echo("nothing to publish: the newest version and the file agree")
        return
    _print_changes(report.changes)
    for about, names in (
        ("open quotes keep the old price for a while", report.repriced),
        ("notice at their renewal", report.at_renewal),
        ("need another plan at their renewal", report.without_plan),
    ):
        if names:
            typer.echo(f"{about}: {', '.join(names)}")
    would = "would be published (dry run)" if report.dry_run else "published"
    typer.echo(f"catalog {report.version} {would}, effective {report.effective_at}")


@app.command("list")
def list_(config: ConfigOption = None, output: FormatOption = Format.TABLE) -> None:
    """List the published versions, oldest first."""
    from headgate.service.publish import list_catalogs

    views = in_store(config, lambda opened: list_catalogs(opened.registry, now_us=opened.now_us))
    print_rows(
        views, _VERSIONS, output, empty="no catalog was published yet; `headgate publish` publishes one"
    )


@app.command()
def show(
    version: Annotated[
        int | None,
        typer.Argument(metavar="[VERSION]", min=1, help="A version.", show_default="the one in force"),
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show a published version."""
    from headgate.service.publish import show_catalog

    catalog = in_store(
        config, lambda opened: show_catalog(opened.registry, now_us=opened.now_us, version=version)
    )
    if output is Format.JSON:
        print_json(_as_json(catalog))
    else:
        _print_catalog(catalog)


@app.command()
def diff(
    old: Annotated[
        int | None, typer.Argument(metavar="[OLD]", min=1, help="A version.", show_default="the newest")
    ] = None,
    new: Annotated[
        int | None, typer.Argument(metavar="[NEW]", min=1, help="Another version.", show_default="the file")
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Show what differs: newest version to file, a version to the file, or two versions.

    Exit 1 if anything does.
    """
    from headgate.model.catalog_diff import diff_catalogs
    from headgate.service.publish import compare_catalogs, drift

    async def work(opened: Opened) -> tuple[CatalogChange, ...]:
        if old is None:
            return await drift(opened.registry, opened.config.catalog)
        if new is None:
            return diff_catalogs(await opened.registry.catalog(old), opened.config.catalog)
        return await compare_catalogs(opened.registry, old, new)

    changes = in_store(config, work)
    if output is Format.JSON:
        print_json(changes)
    else:
        _print_changes(changes)
    if changes:
        raise typer.Exit(1)


def _print_changes(changes: Sequence[CatalogChange]) -> None:
    print_rows(changes, _CHANGES, Format.TABLE, empty="no differences")


def _as_json(catalog: Catalog) -> dict[str, object]:
    from headgate.model.calendar import format_us
    from headgate.model.catalog_json import catalog_to_json

    about = {"version": catalog.version, "effective_at": format_us(catalog.effective_us)}
    return {**about, **json.loads(catalog_to_json(catalog))}


def _print_catalog(catalog: Catalog) -> None:
    from headgate.model.calendar import format_us

    typer.echo(f"catalog {catalog.version}, effective {format_us(catalog.effective_us)}\n")
    actions = [catalog.actions[name] for name in sorted(catalog.actions)]
    print_table([[text_of(column.read(one)) for column in _ACTIONS] for one in actions], _ACTIONS)
    plans = [catalog.plans[name] for name in sorted(catalog.plans)]
    if plans:
        typer.echo()
        print_table([[text_of(column.read(one)) for column in _PLANS] for one in plans], _PLANS)
    if catalog.free:
        typer.echo("\nfree: " + ", ".join(str(route) for route in catalog.free))
