"""The seller's accounting calendar: which month and day an instant falls on in a time zone."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MINUTE_US = 60 * 1_000_000
_KEPT = 4096


class AccountingCalendar:
    """Maps instants (UTC microseconds) to `(month, day)` such as `(202611, 22)` in one time zone.

    Remembers the answer per minute, so that booking an event costs a dictionary look-up. That is exact: since
    February 1972 every change of an offset falls on a whole minute (not on a quarter of an hour: clocks in
    St. John's went back at 00:01).
    """

    __slots__ = ("_known", "_zone")

    def __init__(self, zone: str) -> None:
        self._zone = ZoneInfo(zone)
        self._known: dict[int, tuple[int, int]] = {}

    @property
    def zone(self) -> str:
        """The time zone's IANA name."""
        return self._zone.key

    def month_and_day(self, at_us: int) -> tuple[int, int]:
        minute = at_us // _MINUTE_US
        found = self._known.get(minute)
        if found is None:
            if len(self._known) >= _KEPT:
                self._known.clear()
            local = (_EPOCH + timedelta(microseconds=minute * _MINUTE_US)).astimezone(self._zone)
            found = self._known[minute] = (local.year * 100 + local.month, local.day)
        return found

    def month_bounds_us(self, month: int) -> tuple[int, int]:
        """The half-open span `[start_us, end_us)` of an accounting month such as 202611."""
        year, number = divmod(month, 100)
        following = (year + 1, 1) if number == 12 else (year, number + 1)
        return self._start_us(year, number), self._start_us(*following)

    def day_start_us(self, day: int) -> int:
        """When a day such as 20261122 begins in the zone; where midnight is skipped, when the clock jumps."""
        year, rest = divmod(day, 10_000)
        return self._start_us(year, rest // 100, rest % 100)

    def _start_us(self, year: int, number: int, day: int = 1) -> int:
        start = datetime(year, number, day, tzinfo=self._zone)
        return (start - _EPOCH) // timedelta(microseconds=1)


def format_month(month: int) -> str:
    """202611 → `2026-11`."""
    return f"{month // 100:04d}-{month % 100:02d}"


def format_us(at_us: int) -> str:
    """An instant as RFC 3339 text in UTC with microseconds."""
    return (_EPOCH + timedelta(microseconds=at_us)).isoformat(timespec="microseconds").replace("+00:00", "Z")
