"""How the story is told: short lines that fit 80 columns, in colour on a terminal, plain elsewhere."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Final, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console, JustifyMethod
from rich.table import Table
from rich.text import Text

WIDTH: Final = 80
_INDENT: Final = 4
_ASKED_WIDTH: Final = 41
_STATUS_WIDTH: Final = 7
_OUTCOMES: Final = {"seat": "green", "overage": "yellow", "x402": "magenta"}


class Teller:
    """Writes to `out`. On a terminal colours are used where it has them."""

    def __init__(self, out: TextIO) -> None:
        self._console = Console(file=out, highlight=False, emoji=False, markup=False)
        self._console.width = min(self._console.width, WIDTH) if self._console.is_terminal else WIDTH

    def title(self, text: str, below: str) -> None:
        """What this is, and a paragraph under it."""
        self._console.print(Text(text, style="bold"))
        self._paragraph(below, "", "")

    def step(self, number: int, text: str) -> None:
        """The headline of a step."""
        line = Text()
        line.append(f"\n{number:>2}  ", style="bold cyan")
        line.append(text, style="bold")
        self._console.print(line)

    def line(self, asked: str, status: str, outcome: str) -> None:
        """One request, or several of a kind: what was asked, the status, and what became of it."""
        line = Text(" " * _INDENT)
        line.append(f"{asked:<{_ASKED_WIDTH}} ")
        line.append(f"{status:<{_STATUS_WIDTH}} ", style=_status_style(status))
        line.append(outcome, style=_OUTCOMES.get(outcome.split(" ", 1)[0], "default"))
        self._console.print(line, soft_wrap=True)

    def moral(self, text: str) -> None:
        """What a step means."""
        self._paragraph(text, " " * _INDENT, "dim")

    def say(self, text: str = "", style: str = "") -> None:
        """A paragraph of its own."""
        self._paragraph(text, "", style)

    def rule(self, text: str) -> None:
        """The beginning of a part."""
        self._console.print()
        self._console.rule(Text(text, style="bold"), align="left", characters="─")

    def copyable(self, text: str) -> None:
        """A line to copy: never broken, however narrow the terminal."""
        self._console.print(Text(text), soft_wrap=True)

    def report(self, columns: Sequence[str], rows: Sequence[Sequence[str]], total: Sequence[str]) -> None:
        """The finance report: the first two columns are words, the others numbers."""
        table = Table(
            box=SIMPLE_HEAD, show_edge=False, show_footer=True, padding=(0, 1, 0, 0), pad_edge=False
        )
        for place, name in enumerate(columns):
            justify: JustifyMethod = "left" if place < 2 else "right"
            table.add_column(name, justify=justify, footer=total[place], footer_style="bold", no_wrap=True)
        for row in rows:
            table.add_row(Text(row[0], style=_OUTCOMES.get(row[0], "")), *row[1:])
        self._console.print(table)

    def row(self, at: str, channel: str, action: str, who: str, charged: str) -> None:
        """A ledger row as it lands."""
        line = Text(f"{at}  ")
        line.append(f"{channel:<9}", style=_OUTCOMES.get(channel, ""))
        line.append(f"{action:<22}{who:<20}{charged:>10}")
        self._console.print(line, soft_wrap=True)

    def verdict(self, good: bool, what: str, found: str) -> None:
        """One thing that was checked."""
        line = Text()
        style = "bold green" if good else "bold red"
        line.append("✓ " if good else "✗ ", style=style)
        if not what:  # the last word
            line.append(found, style=style)
            self._console.print(line, soft_wrap=True)
            return
        line.append(f"{what:<9}", style="bold")
        self._hanging(line, found, 11)

    def difference(self, what: str, expected: str, found: str) -> None:
        """One thing that is not as it should be."""
        self._console.print(Text(f"  {what}", style="red"), soft_wrap=True)
        self._console.print(Text(f"    expected {expected}"), soft_wrap=True)
        self._console.print(Text(f"    found    {found}"), soft_wrap=True)

    def _hanging(self, line: Text, text: str, indent: int) -> None:
        for place, part in enumerate(textwrap.wrap(text, self._console.width - indent) or [""]):
            if place:
                line.append("\n" + " " * indent)
            line.append(part)
        self._console.print(line, soft_wrap=True)

    def _paragraph(self, text: str, indent: str, style: str) -> None:
        width = self._console.width
        filled = textwrap.fill(
            text,
            width,
            initial_indent=indent,
            subsequent_indent=indent,
            break_long_words=False,
            break_on_hyphens=False,
        )
        self._console.print(Text(filled, style=style), soft_wrap=True)


def _status_style(status: str) -> str:
    return {"2": "green", "4": "red" if status[:3] != "402" else "magenta"}.get(status[:1], "red")
