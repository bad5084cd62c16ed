"""Months as contracts count them: in local wall-clock time, from an anchor, without drift, gap or overlap.

The rules, all of them:

- Times are integer microseconds since the epoch, UTC; spans are half-open, `[start, end)`.
- Months are counted from the anchor's local date and time. Boundary k lies k months after the *anchor*, never
  a month after boundary k-1: from 31 January on they fall on 28 (29) February, 31 March, 30 April.
- A day that a month does not have becomes the last day of that month.
- A local time that a clock change skips is read with the offset before the change, so 02:30 becomes 03:30; a
  local time that happens twice is its first occurrence (RFC 5545 §3.3.5). Boundary 0 is the anchor itself.
- On the calendar, the first period is the stub from the anchor to the first of the next month at local
  midnight; the periods after it are whole. An anchor on the first of a month at midnight has no stub.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from headgate.model.errors import InputError

ANNIVERSARY = "anniversary"
CALENDAR = "calendar"
ANCHORS = (ANNIVERSARY, CALENDAR)

# Instants outside these years are refused: nothing is sold there, and calendars of zones run out at 9999.
FIRST_YEAR, LAST_YEAR = 1970, 9000

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_WRITTEN = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?(?P<offset>Z|[+-][0-9]{2}:[0-9]{2})?)?"
)
_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


@dataclass(frozen=True, slots=True)
class Period:
    """A half-open span of time, `[start_us, end_us)`."""

    start_us: int
    end_us: int


def zone_of(name: str) -> ZoneInfo:
    """The time zone of an IANA name such as `Europe/Berlin`.

    Raises:
        InputError: there is no such zone.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise InputError(
            f'{name!r} is not a time zone; write an IANA name such as "UTC" or "Europe/Berlin"'
        ) from None


def local_of(at_us: int, zone: str) -> datetime:
    """The wall clock of a zone at an instant, as a naive datetime (exact to the microsecond)."""
    try:
        local = (_EPOCH + timedelta(microseconds=at_us)).astimezone(zone_of(zone))
    except OverflowError:
        raise InputError(_out_of_range()) from None
    return local.replace(tzinfo=None)


def instant_of(local: datetime, zone: str) -> int:
    """The instant at which a zone's wall clock shows `local` (naive); clock changes: the rules above."""
    if not FIRST_YEAR <= local.year <= LAST_YEAR:
        raise InputError(_out_of_range())
    return (local.replace(tzinfo=zone_of(zone), fold=0) - _EPOCH) // _MICROSECOND


def parse_instant(text: str, zone: str) -> int:
    """Read a date or time as people write it: `2026-01-31`, `2026-01-31T09:30`, `2026-01-31T09:30:00+01:00`.

    Without an offset it is the zone's wall clock, a date alone its midnight.

    Raises:
        InputError: not such a text, no such day, or out of range.
    """
    found = _WRITTEN.fullmatch(text.strip())
    try:
        written = datetime.fromisoformat(text.strip()) if found else None
    except ValueError:
        written = None
    if found is None or written is None:
        raise InputError(f"{text!r} is not a date; write it like 2026-01-31 or 2026-01-31T09:30:00Z")
    if found["offset"] is None:
        return instant_of(written, zone)
    if not FIRST_YEAR <= written.year <= LAST_YEAR:
        raise InputError(_out_of_range())
    return (written - _EPOCH) // _MICROSECOND


def shift_months(anchor_us: int, months: int, zone: str) -> int:
    """The instant `months` after the anchor in local wall-clock time; zero months are the anchor itself."""
    if months == 0:
        return anchor_us
    local = local_of(anchor_us, zone)
    year, month = divmod(_month_index(local) + months, 12)
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise InputError(_out_of_range())
    day = min(local.day, _days_in(year, month + 1))
    return instant_of(local.replace(year=year, month=month + 1, day=day), zone)


def whole_months_between(anchor_us: int, at_us: int, zone: str) -> int | None:
    """The months after which `at_us` lies exactly from the anchor on; None: at no whole month."""
    months = _month_index(local_of(at_us, zone)) - _month_index(local_of(anchor_us, zone))
    return months if shift_months(anchor_us, months, zone) == at_us else None


def month_at(at_us: int, zone: str) -> Period:
    """The calendar month of a zone that contains an instant."""
    index = _month_containing(at_us, zone)
    return Period(_month_start(index, zone), _month_start(index + 1, zone))


def month_name(at_us: int, zone: str) -> str:
    """The calendar month of a zone that contains an instant, written `2026-11`."""
    year, month = divmod(_month_containing(at_us, zone), 12)
    return f"{year:04d}-{month + 1:02d}"


def period_containing(anchor_us: int, at_us: int, *, months: int, zone: str, anchor: str) -> Period:
    """The period of `months` months that contains `at_us`, of those that tile time from `anchor_us` on.

    Raises:
        InputError: `at_us` lies before the anchor.
    """
    if at_us < anchor_us:
        raise InputError("the instant lies before the first billing period")
    number = max(0, (_month_index(local_of(at_us, zone)) - _month_index(local_of(anchor_us, zone))) // months)
    while boundary(anchor_us, number, months=months, zone=zone, anchor=anchor) > at_us:
        number -= 1
    while boundary(anchor_us, number + 1, months=months, zone=zone, anchor=anchor) <= at_us:
        number += 1
    return Period(
        boundary(anchor_us, number, months=months, zone=zone, anchor=anchor),
        boundary(anchor_us, number + 1, months=months, zone=zone, anchor=anchor),
    )


@lru_cache(maxsize=4096)
def boundary(anchor_us: int, number: int, *, months: int, zone: str, anchor: str) -> int:
    """Where period `number` (from 0) starts, and period `number - 1` ends."""
    if number == 0:
        return anchor_us
    if anchor == ANNIVERSARY:
        return shift_months(anchor_us, number * months, zone)
    first = _month_index(local_of(anchor_us, zone))
    if _month_start(first, zone) == anchor_us:
        return _month_start(first + number * months, zone)
    return _month_start(first + 1 + (number - 1) * months, zone)


def _month_containing(at_us: int, zone: str) -> int:
    """By the wall clock; an hour that clocks set back over midnight repeats belongs to the new month."""
    index = _month_index(local_of(at_us, zone))
    return index + 1 if at_us >= _month_start(index + 1, zone) else index


@lru_cache(maxsize=1024)
def _month_start(index: int, zone: str) -> int:
    year, month = divmod(index, 12)
    if not FIRST_YEAR <= year <= LAST_YEAR:
        raise InputError(_out_of_range())
    return instant_of(datetime(year, month + 1, 1), zone)  # noqa: DTZ001  naive on purpose: a wall clock


def _month_index(local: datetime) -> int:
    """Months since year 0, January being 0: makes month arithmetic plain integer arithmetic."""
    return local.year * 12 + local.month - 1


def _days_in(year: int, month: int) -> int:
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 29 if leap else _DAYS[month - 1]


def _out_of_range() -> str:
    return f"the time is out of range; use the years {FIRST_YEAR} to {LAST_YEAR}"
