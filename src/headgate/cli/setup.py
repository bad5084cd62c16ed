"""`headgate init`, `check`, `migrate`, `status`: a configuration and a store, from the first day on."""

from __future__ import annotations

import importlib
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headgate.cli.opened import Opened, awaited, in_store, read_config, store_file
from headgate.cli.options import ConfigOption, Format, FormatOption
from headgate.cli.output import Column, counted, minute, print_fields, print_json, print_rows, print_wrapped
from headgate.model.errors import ConfigError, HeadgateError, InputError

if TYPE_CHECKING:
    from headgate.config import Config
    from headgate.model.catalog import Catalog
    from headgate.service.finding import Finding
    from headgate.service.status import StoreStatus

_PAYMENTS = (
    Column("payments", lambda row: row.state),
    Column("count", lambda row: row.payments, number=True),
    Column("authorized, USD", lambda row: row.authorized_amount, number=True),
    Column("oldest", lambda row: minute(row.oldest_at)),
    Column("", lambda row: "open" if row.open else ""),
)
_EXPORTS = (
    Column("export", lambda row: row.export, folds=True),
    Column("waiting", lambda row: row.waiting, number=True),
    Column("oldest", lambda row: minute(row.oldest_at)),
    Column("failures", lambda row: row.failures, number=True),
    Column("next try", lambda row: "paused" if row.paused else minute(row.next_try_at)),
    Column("last error", lambda row: row.last_error, folds=True),
)
_SLOTS = (
    Column("slot", lambda row: row.slot, number=True),
    Column("process", lambda row: "running" if row.running else "gone"),
    Column("times taken", lambda row: row.epoch, number=True),
    Column("events", lambda row: row.events, number=True),
)


def init(
    directory: Annotated[str, typer.Argument(metavar="[DIR]", help="Where to write it.")] = ".",
    openapi: Annotated[
        str | None, typer.Option("--openapi", metavar="FILE", help="A route for each of its operations.")
    ] = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Write a commented headgate.toml."""
    from headgate.service.init import write_config

    report = write_config(Path(directory), None if openapi is None else Path(openapi))
    if output is Format.JSON:
        print_json({**asdict(report), "path": str(report.path)})
        return
    typer.echo(f"wrote {report.path}, which sells {', '.join(report.actions)}")
    for skipped in report.skipped:
        typer.echo(f"left out: {skipped}")
    typer.echo("next:")
    for step in report.next_steps:
        typer.echo(f"  {step}")


def check(
    live: Annotated[bool, typer.Option("--live", help="The checklist before real money too.")] = False,
    app: Annotated[
        str | None,
        typer.Option("--app", metavar="MODULE:APP", help="Also hold this application's routes against it."),
    ] = None,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Check configuration, prices, offers and facilitator; exit 1 if something keeps you from selling."""
    from headgate.service.finding import Finding, Level

    try:
        read = read_config(config)
    except ConfigError as error:
        if output is Format.TABLE:
            raise
        print_json([Finding.error(each.where, each.what, each.fix) for each in error.problems])
        raise typer.Exit(2) from None
    findings = awaited(_check(read, None if app is None else _application(app), live=live))
    if output is Format.JSON:
        print_json(findings)
    else:
        _print_findings(findings)
    if any(finding.level is Level.ERROR for finding in findings):
        raise typer.Exit(1)


async def _check(config: Config, app: Any, *, live: bool) -> list[Finding]:
    from headgate.app import clock_us
    from headgate.service.check import run_check
    from headgate.service.finding import Finding

    found: list[Finding] = []
    published = None
    try:
        published = await _published(config)
    except HeadgateError as error:
        found.append(Finding.error("store", str(error), "see the message"))
    return found + await run_check(config, now_us=clock_us, app=app, live=live, published=published)


async def _published(config: Config) -> Catalog | None:
    """The catalog in force, if there is a store with one. A check creates none."""
    from headgate.app import clock_us, make_driver
    from headgate.model.errors import NotFound
    from headgate.store.registry import Registry

    file = store_file(config)
    if file is not None and not file.exists():
        return None
    driver = make_driver(config)
    try:
        if await driver.schema_version() == 0:
            return None
        return await Registry(driver).catalog_at(clock_us())
    except NotFound:
        return None
    finally:
        await driver.close()


def _application(name: str) -> Any:
    """The object that `MODULE:APP` names, imported from this directory.

    Raises:
        InputError: it cannot be imported, or there is none.
    """
    module_name, colon, attributes = name.partition(":")
    if not (module_name and colon and attributes):
        raise InputError(f"--app: {name!r} is not MODULE:APP; write it like main:app")
    sys.path.insert(0, str(Path.cwd()))
    try:
        found: Any = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            found = getattr(found, attribute)
    except HeadgateError:
        raise
    except Exception as error:  # an application may fail in any way while it is imported
        reason = f"{type(error).__name__}: {error}"
        raise InputError(f"--app: {name} cannot be imported from {Path.cwd()} ({reason})") from error
    return found


def _print_findings(findings: Sequence[Finding]) -> None:
    from headgate.service.finding import Level

    for finding in findings:
        typer.echo(f"{finding.level.value:<7}  {finding.where}")
        print_wrapped(finding.message, " " * 9)
        if finding.fix:
            print_wrapped(f"Fix: {finding.fix}", " " * 9)
    counts = Counter(finding.level for finding in findings)
    nouns = {Level.ERROR: "error", Level.WARNING: "warning", Level.INFO: "remark"}
    words = [counted(counts[level], noun) for level, noun in nouns.items() if counts[level]]
    typer.echo(", ".join(words) if words else "nothing to report")


def migrate(
    plan: Annotated[bool, typer.Option("--plan", help="List what is missing; change nothing.")] = False,
    config: ConfigOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Bring the store to this version; back it up first."""
    names = awaited(_migrate(read_config(config), plan_only=plan))
    if output is Format.JSON:
        print_json({"missing" if plan else "applied": names})
    elif not names:
        typer.echo("nothing to do: the store is up to date")
    else:
        for name in names:
            typer.echo(f"{'would apply' if plan else 'applied'} {name}")


async def _migrate(config: Config, *, plan_only: bool) -> list[str]:
    from headgate.app import make_driver
    from headgate.model.errors import StoreTooNew
    from headgate.store.statements import load_migrations

    known = load_migrations()
    file = store_file(config)
    if plan_only and file is not None and not file.exists():
        return [f"{number:04d}_{name}" for number, name, _ in known]
    driver = make_driver(config)
    try:
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


def status(config: ConfigOption = None, output: FormatOption = Format.TABLE) -> None:
    """Show open payments, exports, slots and the store's size."""
    from headgate.service.status import store_status

    async def work(opened: Opened) -> tuple[StoreStatus, int | None]:
        found = await store_status(
            opened.driver,
            opened.registry,
            mode=opened.config.mode,
            now_us=opened.now_us,
            export_from_us=opened.config.overage.from_us,
        )
        return found, _size_bytes(opened.config)

    found, size_bytes = in_store(config, work)
    if output is Format.JSON:
        print_json({**asdict(found), "store_bytes": size_bytes})
        return
    print_fields(
        [
            ("mode", found.mode),
            ("catalog", found.catalog_version),
            ("schema", found.schema),
            ("events", f"{found.events:,}"),
            ("open payments", found.open_payments),
            ("owed work", found.owed_work),
            ("store", None if size_bytes is None else f"{size_bytes:,} bytes"),
            ("ledger head", found.ledger_head),
        ]
    )
    for rows, columns in ((found.payments, _PAYMENTS), (found.exports, _EXPORTS), (found.slots, _SLOTS)):
        if rows:
            typer.echo()
            print_rows(rows, columns, output, empty="")


def _size_bytes(config: Config) -> int | None:
    """The size of a SQLite store with its log."""
    file = store_file(config)
    if file is None:
        return None
    files = (file, file.with_name(file.name + "-wal"))
    return sum(each.stat().st_size for each in files if each.exists())
