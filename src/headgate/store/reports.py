"""The readers' statements that have to be composed: a report's groups, and pages of events under filters.

A report reads the narrowest source that has its columns: `totals` (its cost depends on the number of groups),
`party_totals` (customers and payers, whole months), or the events themselves from the month's first row on.
Column names and numbers are put into the SQL text by this file; whatever a user wrote is bound.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from headgate.model.calendar import AccountingCalendar
from headgate.model.event import Event
from headgate.model.report import Span
from headgate.store.driver import Driver, Row, Snapshot

_SUMS = (
    *("events", "units", "list_micros", "charged_micros"),
    *("adjusted_micros", "refunded_micros", "settled_micros"),
)
# How `headgate.model.report.sums_of` reads in SQL.
_EVENT_SUMS = (
    "COUNT(*)",
    "SUM(e.units)",
    "SUM(e.list_micros)",
    "SUM(CASE WHEN e.kind = 1 THEN e.charged_micros ELSE 0 END)",
    "SUM(CASE WHEN e.kind IN (2, 4) THEN e.charged_micros ELSE 0 END)",
    "SUM(CASE WHEN e.kind = 3 THEN -e.charged_micros ELSE 0 END)",
    "SUM(CASE WHEN e.channel = 3 AND e.tx IS NOT NULL AND e.kind <> 3 THEN e.charged_micros ELSE 0 END)",
)
# When a row counts: when it occurred, or when it was booked if its own month was closed by then.
_COUNTS_AT = "CASE WHEN e.late_for IS NULL THEN e.occurred_us ELSE e.booked_us END"
# The plan whose terms were in force when the use occurred.
_PLAN = (
    "(SELECT t.plan FROM terms t WHERE t.subscription = e.subscription AND t.from_us <= e.occurred_us"
    " ORDER BY t.from_us DESC, t.n DESC LIMIT 1)"
)
_EVENT_COLUMNS = ", ".join(f"e.{field}" for field in Event._fields)
_SLACK_US = 86_400_000_000  # clocks of processes may disagree, and a clock may be set back: never by a day


class Source(Enum):
    """What a report is read from."""

    TOTALS = "totals"
    PARTY_TOTALS = "party_totals"
    EVENTS = "events"


def source_of(by: Sequence[str], span: Span) -> Source:
    """The narrowest source that has these columns over this span."""
    asked = frozenset(by)
    if asked <= {"month", "channel", "action", "network", "day"}:
        return Source.TOTALS
    if span.whole_months and asked <= {"month", "channel", "action", "network", "customer", "payer"}:
        return Source.PARTY_TOTALS
    return Source.EVENTS


async def grouped(
    snapshot: Snapshot, by: Sequence[str], span: Span, calendar: AccountingCalendar, since: Sequence[Row]
) -> list[Row]:
    """Raw groups: a value for each of `by` (as stored; networks from events are rails), then seven sums.

    `since` are (slot, first seq) to read events from; see `first_rows`. `day` comes as 20261122.
    """
    source = source_of(by, span)
    months = span.months
    if source is Source.EVENTS:
        if not since:
            return []
        sql, params = _from_events(by, span, calendar, since)
        return await snapshot.rows_sql(sql, params)
    columns = ", ".join("month * 100 + day" if column == "day" else column for column in by)
    sums = ", ".join(f"SUM({column})" for column in _SUMS)
    sql = f"SELECT {columns}, {sums} FROM {source.value} WHERE month >= ? AND month <= ?"
    params = [*months]
    if source is Source.TOTALS and not span.whole_months:
        sql += " AND month * 100 + day >= ? AND month * 100 + day <= ?"
        params += [span.first_day, span.last_day]
    return await snapshot.rows_sql(f"{sql} GROUP BY {_places(by)}", params)


def _from_events(
    by: Sequence[str], span: Span, calendar: AccountingCalendar, since: Sequence[Row]
) -> tuple[str, list[Any]]:
    expressions = {
        "network": "e.rail",
        "key": "e.api_key",
        "plan": _PLAN,
        "day": _day(span, calendar) if "day" in by else "",
    }
    columns = ", ".join(expressions.get(column, f"e.{column}") for column in by)
    starts = ", ".join(f"({int(slot)}, {int(seq)})" for slot, seq in since)
    sql = (
        f"WITH since(slot, lowest) AS (VALUES {starts}) SELECT {columns}, {', '.join(_EVENT_SUMS)}"
        " FROM since CROSS JOIN events e WHERE e.slot = since.slot AND e.seq >= since.lowest"
        " AND e.month >= ? AND e.month <= ?"
    )
    params: list[Any] = [*span.months]
    if not span.whole_months:
        sql += f" AND {_COUNTS_AT} >= ? AND {_COUNTS_AT} < ?"
        params += span.bounds_us(calendar)
    return f"{sql} GROUP BY {_places(by)}", params


def _places(by: Sequence[str]) -> str:
    return ", ".join(str(place) for place in range(1, len(by) + 1))


def _day(span: Span, calendar: AccountingCalendar) -> str:
    """The seller's day of a row: a comparison with each midnight of the span, latest first."""
    cases = (f"WHEN {_COUNTS_AT} >= {calendar.day_start_us(day)} THEN {day}" for day in reversed(span.days()))
    return f"CASE {' '.join(cases)} ELSE {span.first_day} END"


# --- pages of events ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EventFilter:
    """Which events are asked for, as stored; None: all."""

    channel: int | None = None
    customer: int | None = None
    payer: bytes | None = None
    month: int | None = None
    request_id: bytes | None = None
    api_key: int | None = None


async def events_page(
    driver: Driver, which: EventFilter, slot: int, after: int, until: int, limit: int
) -> list[Row]:
    """The next rows of a slot after a place, each with the hash of the row before it (None: no such)."""
    sql = (
        f"SELECT {_EVENT_COLUMNS}, p.row_hash FROM events e"
        " LEFT JOIN events p ON p.slot = e.slot AND p.seq = e.seq - 1"
        " WHERE e.slot = ? AND e.seq > ? AND e.seq <= ?"
    )
    params: list[Any] = [slot, after, until]
    wanted = {
        "channel": which.channel,
        "customer": which.customer,
        "payer": which.payer,
        "month": which.month,
        "request_id": which.request_id,
        "api_key": which.api_key,
    }
    for column, value in wanted.items():
        if value is not None:
            sql += f" AND e.{column} = ?"
            params.append(value)
    return await driver.rows_sql(f"{sql} ORDER BY e.seq LIMIT ?", [*params, limit])


async def first_rows(snapshot: Snapshot, slots: Sequence[Row], at_us: int) -> list[Row]:
    """(slot, seq) from which on rows may be of a month that begins at `at_us`; slots without any: left out.

    A row is booked after it occurred, and a slot's rows are booked one after the other, but for clocks that
    disagree a little: a binary search for the first row booked a day before the month finds where to begin.
    """
    found = []
    for slot, last in ((row[0], row[1]) for row in slots):
        low, high = 1, int(last) + 1
        while low < high:
            middle = (low + high) // 2
            rows = await snapshot.rows("first_seq_since", (slot, middle))
            if not rows or rows[0][1] >= at_us - _SLACK_US:
                high = middle
            else:
                low = int(rows[0][0]) + 1
        if low <= last:
            found.append((slot, low))
    return found
