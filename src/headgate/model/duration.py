"""Lengths of time as people write them: `5 min`, `14 days`, `month`, `1 year`. Read by one function.

Months and years are calendar lengths, no fixed number of microseconds; they are kept apart.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from headgate.model.errors import InputError

SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

_FIXED_US = {
    **dict.fromkeys(("ms", "millisecond"), 1_000),
    **dict.fromkeys(("s", "sec", "second"), SECOND_US),
    **dict.fromkeys(("m", "min", "minute"), MINUTE_US),
    **dict.fromkeys(("h", "hour"), HOUR_US),
    **dict.fromkeys(("d", "day"), DAY_US),
    **dict.fromkeys(("w", "week"), 7 * DAY_US),
}
_CALENDAR_MONTHS = {"month": 1, "quarter": 3, "year": 12}
_TEXT = re.compile(r"(?:([0-9]{1,6})\s*)?([A-Za-z]+)")


@dataclass(frozen=True, slots=True)
class Duration:
    """`months` for calendar lengths, `us` (microseconds) for fixed ones; one of them is zero."""

    months: int = 0
    us: int = 0


def parse_duration(text: str) -> Duration:
    """Read a number and a unit; a unit alone is one of it.

    >>> parse_duration("5 min").us
    300000000
    >>> parse_duration("1 year").months
    12

    Raises:
        InputError: not such a length of time.
    """
    found = _TEXT.fullmatch(text.strip())
    if found is not None:
        count = 1 if found[1] is None else int(found[1])
        unit = found[2].lower()
        for name in (unit, unit.removesuffix("s")):
            if name in _CALENDAR_MONTHS:
                return Duration(months=count * _CALENDAR_MONTHS[name])
            if name in _FIXED_US:
                return Duration(us=count * _FIXED_US[name])
    raise InputError(
        f'{text[:60]!r} is not a length of time; write a number and a unit such as "30 s", "5 min", '
        '"2 hours", "14 days", "1 month" or "1 year"'
    )


def duration_us(text: str) -> int:
    """A fixed length of time in microseconds.

    Raises:
        InputError: not a length of time, or one in months, whose length depends on the date.
    """
    duration = parse_duration(text)
    if duration.months:
        raise InputError(f"{text[:60]!r} has no fixed length; write it in days or shorter units")
    return duration.us


def duration_months(text: str) -> int:
    """A calendar length of time in months.

    Raises:
        InputError: not a length of time, or one that is no whole number of months.
    """
    duration = parse_duration(text)
    if duration.us or not duration.months:
        raise InputError(f'{text[:60]!r} is no number of months; write for example "1 month" or "1 year"')
    return duration.months
