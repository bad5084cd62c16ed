"""Writing: tables for people, JSON for programs, notes and progress on stderr.

Values come from the store and may be anything, so they are written as plain text, never as markup. Where a
row is wider than the terminal (80 columns where there is none), texts are folded; numbers, ids and times
never are: rather than cut anything off, the table is wider.
"""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, is_dataclass
from typing import Any

import typer

from headgate.cli.options import Format

_FOLDED_WIDTH = 16
_RULES = "    \n    \n ── \n    \n    \n ── \n    \n    \n"
"""A line below the headings and one above the totals (rich: 8 rows of left, fill, between, right)."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its heading, how a row's cell is read, is it a number, may its text be folded."""

    heading: str
    read: Callable[[Any], object]
    number: bool = False
    folds: bool = False


def printable(text: str) -> str:
    """A text without what would move a terminal's cursor: stored texts may come from strangers."""
    return "".join(each if each.isprintable() or each == "\n" else f"\\x{ord(each):02x}" for each in text)


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
    return printable(str(value))


def counted(number: int, noun: str) -> str:
    """`1 event`, `2,000 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


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


def minute(at: str | None) -> str:
    """A time of a view, to the minute, as tables show it: `2026-11-22 23:34Z`."""
    return "" if at is None else f"{at[:10]} {at[11:16]}Z"


def print_rows(rows: Sequence[Any], columns: Sequence[Column], output: Format, *, empty: str) -> None:
    """Views as JSON, or as a table; where there are none, a line that says so."""
    if output is Format.JSON:
        print_json(list(rows))
    elif rows:
        print_table([[text_of(column.read(row)) for column in columns] for row in rows], columns)
    else:
        typer.echo(empty)


def print_table(
    cells: Sequence[Sequence[str]], columns: Sequence[Column], *, totals: Sequence[str] | None = None
) -> None:
    """A table on standard output, numbers to the right; `totals` below a line."""
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(
        box=Box(_RULES),
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
        header_style="bold",
        show_footer=totals is not None,
        footer_style="bold",
    )
    for place, column in enumerate(columns):
        table.add_column(
            Text(column.heading),
            footer="" if totals is None else Text(totals[place]),
            justify="right" if column.number else "left",
            no_wrap=not column.folds,
            min_width=len(column.heading),
            overflow="fold",
        )
    for row in cells:
        table.add_row(*(Text(cell) for cell in row))
    console = Console(highlight=False)
    console.width = max(console.width, _narrowest([*cells, *([totals] if totals else [])], columns))
    with console.capture() as drawn:  # rich has an opinion of its own on broken pipes
        console.print(table)
    sys.stdout.write(drawn.get())


def _narrowest(cells: Sequence[Sequence[str]], columns: Sequence[Column]) -> int:
    """The width below which something would be cut off."""
    from rich.cells import cell_len

    width = 2 * (len(columns) - 1)
    for place, column in enumerate(columns):
        texts = [column.heading, *(line for row in cells for line in row[place].split("\n"))]
        widest = max(map(cell_len, texts))
        width += max(len(column.heading), min(widest, _FOLDED_WIDTH)) if column.folds else widest
    return width


def print_wrapped(text: str, indent: str) -> None:
    """A paragraph: wrapped on a terminal, one line elsewhere, so that programs find it whole."""
    text = printable(text)
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns
        text = textwrap.fill(
            text,
            max(width, 40),
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
    else:
        text = indent + text
    typer.echo(text)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """One thing: a name and a value on each line; what is not known is left out."""
    shown = [(name, text_of(value)) for name, value in fields]
    width = max((len(name) for name, value in shown if value), default=0)
    for name, value in shown:
        if value:
            typer.echo(f"{name:<{width}}  {value}")


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int | None], None]]:
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
