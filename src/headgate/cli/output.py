"""Writing: tables for people, JSON for programs, notes and progress on stderr.

Values come from the store and may be anything, so they are written as plain text, never as markup. Cells are
folded where a row is wider than the terminal (80 columns where there is none): nothing is cut off.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import typer

from headgate.cli.options import Format


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, how a row's cell is read, and whether it holds numbers."""

    heading: str
    read: Callable[[Any], object]
    number: bool = False


def text_of(value: object) -> str:
    """A cell: nothing for None, several values joined."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name}={each}" for name, each in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(text_of(each) for each in value)
    return str(value)


def plain(value: Any) -> Any:
    """A view as JSON has it."""
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    if isinstance(value, (list, tuple)):
        value = [plain(each) for each in value]
    typer.echo(json.dumps(plain(value), indent=2, ensure_ascii=False))


def print_line(value: Any) -> None:
    """One JSON object on a line of its own."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False, separators=(",", ":")))


def note(text: str) -> None:
    """A remark on stderr."""
    sys.stderr.write(text + "\n")


def print_rows(rows: Sequence[Any], columns: Sequence[Column], output: Format, *, empty: str) -> None:
    """Views as JSON, or as a table; where there are none, a line that says so."""
    if output is Format.JSON:
        print_json(list(rows))
    elif rows:
        print_table([[text_of(column.read(row)) for column in columns] for row in rows], columns)
    else:
        typer.echo(empty)


def print_table(
    cells: Sequence[Sequence[str]],
    columns: Sequence[Column],
    *,
    title: str | None = None,
    totals: Sequence[str] | None = None,
) -> None:
    """A table on standard output, numbers to the right; `totals` below a line."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=None if title is None else Text(title),
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1),
        header_style="bold",
        show_footer=totals is not None,
        footer_style="bold",
    )
    for place, column in enumerate(columns):
        table.add_column(
            Text(column.heading),
            footer=Text(totals[place]) if totals is not None else "",
            justify="right" if column.number else "left",
            no_wrap=column.number,
            overflow="fold",
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """One thing: a name and a value on each line; what is not known is left out."""
    shown = [(name, text_of(value)) for name, value in fields]
    width = max((len(name) for name, value in shown if value), default=0)
    for name, value in shown:
        if value:
            typer.echo(f"{name:<{width}}  {value}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A progress bar on stderr, where that is a terminal; called with (done, of)."""
    if not sys.stderr.isatty():
        yield lambda _done, _of: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, of: bar.update(task, completed=done, total=of)
