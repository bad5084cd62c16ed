"""The report (contract §7): its span, its columns, its sums, and how it is written as CSV, JSON and a table.

A row's labels are text; its sums are integers. CSV is RFC 4180 with CRLF; a text that a spreadsheet would run
as a formula (it begins with `=`, `+`, `-`, `@`, a tab or a carriage return) is written with an apostrophe
before it, as OWASP advises. Amounts are ours and are written as they are. JSON keeps every text unchanged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any, NamedTuple

import msgspec

from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import InputError
from headgate.model.event import Channel, Event, Kind
from headgate.model.money import format_usd

BY = ("channel", "action", "customer", "payer", "plan", "network", "key", "seat", "day")
DEFAULT_BY = ("channel", "action")
SUM_COLUMNS = (
    *("events", "units", "list_amount", "charged_amount", "adjusted_amount", "refunded_amount"),
    *("net_amount", "settled_amount"),
)
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MONTH = re.compile(r"([0-9]{4})-(0[1-9]|1[0-2])")
_CHANNELS = {channel.name.lower(): channel.value for channel in Channel}


class Sums(NamedTuple):
    """What is added up, in the order the store keeps it. Amounts in micro-dollars."""

    events: int = 0
    units: int = 0
    list_micros: int = 0
    charged_micros: int = 0
    adjusted_micros: int = 0
    refunded_micros: int = 0
    settled_micros: int = 0

    def plus(self, other: Sums) -> Sums:
        """Both together."""
        return Sums(*map(int.__add__, self, other))

    @property
    def net_micros(self) -> int:
        """Charged + adjusted − refunded."""
        return self.charged_micros + self.adjusted_micros - self.refunded_micros

    def shown(self) -> dict[str, int | str]:
        """By column: counts as integers, amounts as decimal text."""
        amounts = (self.list_micros, self.charged_micros, self.adjusted_micros, self.refunded_micros)
        texts = (format_usd(micros) for micros in (*amounts, self.net_micros, self.settled_micros))
        return dict(zip(SUM_COLUMNS, (self.events, self.units, *texts), strict=True))


def sums_of(event: Event) -> Sums:
    """What one row adds to totals: a correction's money is adjusted or refunded, never charged.

    Settled counts transfers to the seller's wallet: x402 use, and its reversal where the transfer was undone.
    """
    charged = event.charged_micros
    kind = Kind(event.kind)
    moved = event.channel == Channel.X402 and event.tx is not None and kind is not Kind.REFUND
    return Sums(
        events=1,
        units=event.units,
        list_micros=event.list_micros,
        charged_micros=charged if kind is Kind.USAGE else 0,
        adjusted_micros=charged if kind in (Kind.ADJUSTMENT, Kind.REVERSAL) else 0,
        refunded_micros=-charged if kind is Kind.REFUND else 0,
        settled_micros=charged if moved else 0,
    )


# --- what is asked --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Span:
    """Whole days of the seller's calendar, first and last included, as numbers like 20261122."""

    first_day: int
    last_day: int

    @classmethod
    def of_month(cls, text: str) -> Span:
        """A month such as `2026-11`.

        Raises:
            InputError: not a month.
        """
        month = parse_month(text)
        first = date(month // 100, month % 100, 1)
        return cls(_number(first), _number(_next_month(first) - timedelta(days=1)))

    @classmethod
    def of_days(cls, first: str, last: str) -> Span:
        """From one day to another, both included, written `2026-11-22`.

        Raises:
            InputError: not days, or in the wrong order.
        """
        span = cls(_parse_day(first), _parse_day(last))
        if span.first_day > span.last_day:
            raise InputError(f"the last day {last} lies before the first day {first}; swap them")
        return span

    @property
    def months(self) -> tuple[int, int]:
        """First and last month, as numbers like 202611."""
        return self.first_day // 100, self.last_day // 100

    @property
    def whole_months(self) -> bool:
        """Whether the span begins and ends with a month."""
        following = _date(self.last_day) + timedelta(days=1)
        return self.first_day % 100 == 1 and following.day == 1

    def bounds_us(self, calendar: AccountingCalendar) -> tuple[int, int]:
        """The half-open span of time."""
        following = _number(_date(self.last_day) + timedelta(days=1))
        return calendar.day_start_us(self.first_day), calendar.day_start_us(following)

    def days(self) -> list[int]:
        """Every day of it."""
        first, last = _date(self.first_day), _date(self.last_day)
        return [_number(first + timedelta(days=offset)) for offset in range((last - first).days + 1)]


def parse_month(text: str) -> int:
    """`2026-11` → 202611.

    Raises:
        InputError: not a month.
    """
    found = _MONTH.fullmatch(text.strip())
    if found is None or found[1] == "0000":
        raise InputError(f"{text!r} is not a month; write it like 2026-11")
    return int(found[1]) * 100 + int(found[2])


def parse_by(text: str) -> tuple[str, ...]:
    """The columns of `--by channel,action`, each once, in the order given.

    Raises:
        InputError: a column the report does not have.
    """
    return checked_by([word.strip() for word in text.split(",") if word.strip()])


def checked_by(columns: Iterable[str]) -> tuple[str, ...]:
    """Columns of the report, each once; raises InputError for one it does not have."""
    found = tuple(dict.fromkeys(columns))
    for column in found:
        if column not in BY:
            raise InputError(f"the report has no column {column!r}; choose from {', '.join(BY)}")
    return found


def day_text(day: int) -> str:
    """20261122 → `2026-11-22`."""
    return f"{day // 10_000:04d}-{day // 100 % 100:02d}-{day % 100:02d}"


# --- what is answered -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReportRow:
    """One group: its texts in the order of `Report.by`, and its sums."""

    labels: tuple[str, ...]
    sums: Sums


@dataclass(frozen=True, slots=True)
class Memo:
    """What stands below the table, so that nothing open hides. Amounts in micro-dollars.

    `seat_*`: billing periods that begin in the span, at the seats and the price of their beginning.
    `pending_*`: payments something still has to happen to, at what was authorized.
    `unpaid_*`: work that was done and whose payment then failed.
    `owed_*`: payments that were taken, and whose work is still to be served.
    `refunds_due_micros`: refunds booked to payers and not sent.
    `unassigned_*`: use of customers without a contract, served and charged nothing.
    `beyond_*`: use beyond a ceiling or a hold, written off; what it is worth at list price.
    `unmeasured_*`: payers' use that could not be measured and was not charged; up to so much at list price.
    """

    seat_periods: int = 0
    seat_seats: int = 0
    seat_fees_micros: int = 0
    pending_payments: int = 0
    pending_micros: int = 0
    unpaid_payments: int = 0
    unpaid_micros: int = 0
    owed_payments: int = 0
    owed_micros: int = 0
    refunds_due_micros: int = 0
    unassigned_events: int = 0
    unassigned_units: int = 0
    unassigned_list_micros: int = 0
    beyond_events: int = 0
    beyond_micros: int = 0
    unmeasured_events: int = 0
    unmeasured_micros: int = 0

    def shown(self) -> dict[str, dict[str, int | str]]:
        """As in JSON."""
        return {
            "seat_fees": {
                "billing_periods": self.seat_periods,
                "seats": self.seat_seats,
                "amount": format_usd(self.seat_fees_micros),
            },
            "payments_pending": {
                "payments": self.pending_payments,
                "authorized_amount": format_usd(self.pending_micros),
            },
            "unpaid_work": {"payments": self.unpaid_payments, "amount": format_usd(self.unpaid_micros)},
            "owed_work": {"payments": self.owed_payments, "amount": format_usd(self.owed_micros)},
            "refunds_due": {"amount": format_usd(self.refunds_due_micros)},
            "unassigned_use": {
                "events": self.unassigned_events,
                "units": self.unassigned_units,
                "list_amount": format_usd(self.unassigned_list_micros),
            },
            "written_off": {
                "events": self.beyond_events,
                "list_amount": format_usd(self.beyond_micros),
                "unmeasured_events": self.unmeasured_events,
                "unmeasured_list_amount": format_usd(self.unmeasured_micros),
            },
        }


@dataclass(frozen=True, slots=True)
class Report:
    """A report as computed: `rows` are sorted, `by` are its label columns in order (month, channel, …)."""

    span: Span
    time_zone: str
    by: tuple[str, ...]
    rows: tuple[ReportRow, ...]
    memo: Memo
    ledger_head: str

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column in order."""
        return (*self.by, *SUM_COLUMNS)

    @property
    def total(self) -> Sums:
        """All rows together."""
        total = Sums()
        for row in self.rows:
            total = total.plus(row.sums)
        return total


def label_columns(by: Sequence[str]) -> tuple[str, ...]:
    """Month and channel always come first, then the others in the order asked for."""
    return ("month", "channel", *(column for column in by if column != "channel"))


def make_rows(grouped: Mapping[tuple[str, ...], Sums]) -> tuple[ReportRow, ...]:
    """Rows by month, channel in its own order (seat, overage, x402), then by text."""
    ordered = sorted(grouped, key=lambda labels: (labels[0], _CHANNELS[labels[1]], labels[2:]))
    return tuple(ReportRow(labels, grouped[labels]) for labels in ordered)


def ledger_head(slots: Iterable[tuple[int, int, bytes]]) -> str:
    """One hash over every slot's (slot, seq, head) that has rows: names the ledger's exact content."""
    state = sorted((int(slot), int(seq), bytes(head)) for slot, seq, head in slots if seq > 0)
    return hashlib.sha256(msgspec.msgpack.encode(state)).hexdigest()


# --- written --------------------------------------------------------------------------------------


def to_csv(report: Report) -> str:
    """Header and rows, without totals, CRLF at the end of each line."""
    lines = [",".join(report.columns)]
    for row in report.rows:
        cells = [*map(csv_text, row.labels), *map(str, row.sums.shown().values())]
        lines.append(",".join(cells))
    return "".join(f"{line}\r\n" for line in lines)


def csv_text(text: str) -> str:
    """A text as a CSV cell: no formula for a spreadsheet, quoted where it must be."""
    risky = text.startswith(_FORMULA)
    if risky:
        text = "'" + text
    if risky or any(mark in text for mark in ',"\r\n'):
        return '"' + text.replace('"', '""') + '"'
    return text


def to_object(report: Report) -> dict[str, Any]:
    """The report as JSON holds it: amounts as decimal text, `memo`, `ledger_head`."""
    return {
        "from": day_text(report.span.first_day),
        "to": day_text(report.span.last_day),
        "time_zone": report.time_zone,
        "currency": "USD",
        "columns": list(report.columns),
        "rows": [
            {**dict(zip(report.by, row.labels, strict=True)), **row.sums.shown()} for row in report.rows
        ],
        "memo": report.memo.shown(),
        "ledger_head": report.ledger_head,
    }


def to_json(report: Report) -> str:
    """`to_object` as text."""
    return json.dumps(to_object(report), ensure_ascii=False, indent=2) + "\n"


def to_table(report: Report) -> list[list[str]]:
    """Header, rows, and a last row with the totals, all as text.

    Units are totalled only where every row counts the same action's: documents and tokens do not add up.
    """
    table = [list(report.columns)]
    table += [[*row.labels, *map(str, row.sums.shown().values())] for row in report.rows]
    total = report.total.shown()
    at = report.by.index("action") if "action" in report.by else None
    if at is None or len({row.labels[at] for row in report.rows}) > 1:
        total["units"] = ""
    table.append(["total", *("" for _ in report.by[1:]), *map(str, total.values())])
    return table


def memo_lines(report: Report) -> list[tuple[str, str]]:
    """What stands below the table: (what, how much)."""
    memo = report.memo
    return [
        (
            "Seat fees",
            (
                f"{format_usd(memo.seat_fees_micros)} USD for {memo.seat_seats} seats "
                f"in {memo.seat_periods} billing periods that begin here"
            ),
        ),
        (
            "Payments pending",
            f"{memo.pending_payments}, {format_usd(memo.pending_micros)} USD authorized",
        ),
        ("Unpaid work", f"{memo.unpaid_payments} payments failed, {format_usd(memo.unpaid_micros)} USD"),
        ("Owed work", f"{memo.owed_payments} payments taken, {format_usd(memo.owed_micros)} USD"),
        ("Refunds due", f"{format_usd(memo.refunds_due_micros)} USD"),
        (
            "Unassigned use",
            (
                f"{memo.unassigned_events} events, {memo.unassigned_units} units, "
                f"{format_usd(memo.unassigned_list_micros)} USD at list price, charged 0"
            ),
        ),
        (
            "Written off",
            f"{memo.beyond_events} events beyond their ceiling, {format_usd(memo.beyond_micros)} USD",
        ),
        (
            "Not measured",
            f"{memo.unmeasured_events} events charged 0, up to {format_usd(memo.unmeasured_micros)} USD",
        ),
        ("Ledger head", report.ledger_head),
    ]


# --- parts ----------------------------------------------------------------------------------------


def _parse_day(text: str) -> int:
    try:
        day = date.fromisoformat(text.strip())
    except ValueError:
        day = None
    if day is None or day.isoformat() != text.strip():
        raise InputError(f"{text!r} is not a day; write it like 2026-11-22")
    return _number(day)


def _number(day: date) -> int:
    return day.year * 10_000 + day.month * 100 + day.day


def _date(day: int) -> date:
    return date(day // 10_000, day // 100 % 100, day % 100)


def _next_month(first: date) -> date:
    return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)
