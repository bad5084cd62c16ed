"""Reading the import's CSV: cells → checked rows, every problem with its line. Columns: `import_csv.py`."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from headgate.model.catalog import Catalog
from headgate.model.customer import checked_ref, checked_system
from headgate.model.errors import InputError
from headgate.model.money import parse_usd
from headgate.model.negotiated import Negotiated
from headgate.model.periods import ANNIVERSARY, parse_instant, zone_of
from headgate.model.subscription import NO_CAP, Price
from headgate.service.subscribe import MAX_SEATS, Agreement

_NEEDS_PLAN = frozenset({"seats", "start", "end", "time_zone", "anchor", "overage_cap"})
_PLAIN = _NEEDS_PLAN | {"customer", "name", "email", "plan", "seat_ids"}
_PER_ACTION = ("allowance", "overage_price", "used")
_MAX_UNITS = 10**15
_SEPARATORS = re.compile(r"[\s|]+")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class CsvProblem:
    """One thing wrong in a file; `column` is empty where the row as a whole is meant."""

    line: int
    column: str
    what: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.column + ': ' if self.column else ''}{self.what}"


class CsvError(InputError):
    """The file cannot be imported; nothing was written."""

    def __init__(self, problems: tuple[CsvProblem, ...]) -> None:
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class CsvRow:
    """One checked line. `given` are the columns that were not empty."""

    line: int
    customer: str
    name: str
    email: str
    references: Mapping[str, str]
    agreement: Agreement | None
    used: Mapping[str, int]
    seat_ids: tuple[str, ...]
    given: frozenset[str]


def read_rows(text: str, catalog: Catalog, seller_zone: str) -> tuple[list[CsvRow], list[CsvProblem]]:
    """The rows that can be read, and what is wrong with the others."""
    text = text.removeprefix("\ufeff")
    first = text.partition("\n")[0]
    separator = ";" if ";" in first and "," not in first else ","
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    rows: list[CsvRow] = []
    problems: list[CsvProblem] = []
    try:
        header = [name.strip() for name in next(reader, [])]
        problems += check_header(header, catalog)
        seen: dict[str, int] = {}
        for cells in () if problems else reader:
            if any(cell.strip() for cell in cells):
                row = _Row(reader.line_num, header, cells, catalog, seller_zone)
                rows += row.read(seen)
                problems += row.problems
    except csv.Error as error:
        problems.append(CsvProblem(reader.line_num, "", f"this is not CSV: {error}"))
    return rows, problems


def check_header(header: Sequence[str], catalog: Catalog) -> list[CsvProblem]:
    """What is wrong with the names of the columns."""
    if "customer" not in header:
        return [CsvProblem(1, "customer", "the first line must name the columns, `customer` among them")]
    problems = []
    for place, name in enumerate(header):
        kind, _, action = name.partition(":")
        if name in header[:place]:
            problems.append(CsvProblem(1, name, "the column is there twice"))
        elif kind in _PER_ACTION and action in catalog.actions:
            continue
        elif kind in _PER_ACTION:
            problems.append(CsvProblem(1, name, f"catalog {catalog.version} has no action {action!r}"))
        elif name.startswith("ref_"):
            try:
                checked_system(name.removeprefix("ref_"))
            except InputError as error:
                problems.append(CsvProblem(1, name, str(error)))
        elif name not in _PLAIN:
            problems.append(CsvProblem(1, name, "there is no such column; see `headgate import --help`"))
    return problems


class _Row:
    """One line while it is read; collects what is wrong with it."""

    def __init__(
        self, line: int, header: Sequence[str], cells: Sequence[str], catalog: Catalog, seller_zone: str
    ) -> None:
        self.line = line
        self.problems: list[CsvProblem] = []
        self._too_many = len(cells) - len(header)
        self._cells = {name: cell.strip() for name, cell in zip(header, cells, strict=False) if cell.strip()}
        self._catalog = catalog
        self._zone = seller_zone

    def read(self, seen: dict[str, int]) -> list[CsvRow]:
        """The row, or nothing where it has problems. `seen` maps the customers so far to their lines."""
        if self._too_many > 0:
            self._wrong("", f"has {self._too_many} more cells than the first line names")
        customer = self._cell("customer", lambda text: checked_ref(text, "customer"), "")
        if "customer" not in self._cells:
            self._wrong("customer", "is empty")
        elif customer in seen:
            self._wrong("customer", f"{customer!r} is in line {seen[customer]} already")
        seen.setdefault(customer, self.line)
        row = CsvRow(
            line=self.line,
            customer=customer,
            name=self._cells.get("name", ""),
            email=self._cells.get("email", ""),
            references={
                name.removeprefix("ref_"): value
                for name, value in self._cells.items()
                if name.startswith("ref_")
            },
            agreement=self._agreement(),
            used=self._per_action("used", _units),
            seat_ids=self._seat_ids(),
            given=frozenset(self._cells),
        )
        return [] if self.problems else [row]

    def _agreement(self) -> Agreement | None:
        if "plan" not in self._cells:
            for name in self._cells:
                if name in _NEEDS_PLAN or name.partition(":")[0] in _PER_ACTION:
                    self._wrong(name, "needs a plan in the same row")
            return None
        zone = self._cell("time_zone", lambda text: zone_of(text).key, self._zone)
        return Agreement(
            plan=self._cell("plan", self._plan, ""),
            seats=self._cell("seats", _seats, 1),
            start_us=self._cell("start", lambda text: parse_instant(text, zone), None),
            end_us=self._cell("end", lambda text: parse_instant(text, zone), None),
            time_zone=zone,
            anchor=self._cells.get("anchor", ANNIVERSARY),
            negotiated=Negotiated(
                allowance=self._per_action("allowance", _units),
                overage_price={
                    action: Price(micros, self._catalog.actions[action].per)
                    for action, micros in self._per_action("overage_price", _money).items()
                },
                overage_cap_micros=self._cell("overage_cap", _cap, None),
            ),
        )

    def _plan(self, name: str) -> str:
        if name not in self._catalog.plans:
            known = ", ".join(sorted(self._catalog.plans)) or "none at all"
            raise InputError(f"catalog {self._catalog.version} has no plan {name!r}; it has {known}")
        return name

    def _seat_ids(self) -> tuple[str, ...]:
        return self._cell("seat_ids", _refs, ())

    def _per_action(self, kind: str, read: Callable[[str], int]) -> dict[str, int]:
        found = {}
        for name in self._cells:
            prefix, _, action = name.partition(":")
            if prefix == kind and action:
                found[action] = self._cell(name, read, 0)
        return found

    def _cell(self, name: str, read: Callable[[str], T], default: T) -> T:
        text = self._cells.get(name)
        return default if text is None else self._try(name, lambda: read(text), default)

    def _try(self, name: str, read: Callable[[], T], default: T) -> T:
        try:
            return read()
        except InputError as error:
            self._wrong(name, str(error))
            return default

    def _wrong(self, column: str, what: str) -> None:
        self.problems.append(CsvProblem(self.line, column, what))


def _refs(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(checked_ref(ref, "seat") for ref in _SEPARATORS.split(text) if ref))


def _units(text: str) -> int:
    return _whole(text, _MAX_UNITS)


def _seats(text: str) -> int:
    return _whole(text, MAX_SEATS)


def _whole(text: str, at_most: int) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 18 and int(text) <= at_most:
        return int(text)
    raise InputError(f"{text!r} is not a whole number from 0 to {at_most}, written in digits alone")


def _money(text: str) -> int:
    micros = parse_usd(text)
    if micros < 0:
        raise InputError(f"{text!r} is negative")
    return micros


def _cap(text: str) -> int:
    return NO_CAP if text == "none" else _money(text)
