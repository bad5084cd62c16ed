"""The accounting calendar, against the zone database asked directly."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.calendar import AccountingCalendar, format_month, format_us
from tests.registries import us

ZONES = [
    "UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu", "Australia/Lord_Howe", "Asia/Beirut",
    "America/St_Johns", "Antarctica/Casey", "America/Havana", "Pacific/Apia", "Africa/Casablanca",
]  # fmt: skip
CALENDARS = {zone: AccountingCalendar(zone) for zone in ZONES}
instants = st.integers(us("1973-01-01"), us("2045-01-01"))


def told(zone: str, at_us: int) -> tuple[int, int]:
    local = (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=at_us)).astimezone(ZoneInfo(zone))
    return local.year * 100 + local.month, local.day


@given(st.sampled_from(ZONES), instants)
def test_month_and_day_are_the_zones_own(zone: str, at_us: int) -> None:
    assert CALENDARS[zone].month_and_day(at_us) == told(zone, at_us)


@pytest.mark.parametrize(
    ("zone", "around"),
    [
        ("America/St_Johns", "2009-11-01T02:31"),  # 00:01 in November, and back to 23:01 in October
        ("Antarctica/Casey", "2020-10-03T16:01"),
        ("Europe/Berlin", "2026-03-29T01:00"),
        ("Pacific/Apia", "2011-12-30T10:00"),  # a day that never was
    ],
)
def test_every_minute_around_a_change_of_the_clocks(zone: str, around: str) -> None:
    calendar = AccountingCalendar(zone)
    for minute in range(-180, 180):
        for within in (0, 59_999_999):
            at_us = us(around) + minute * 60_000_000 + within
            assert calendar.month_and_day(at_us) == told(zone, at_us), minute


@given(st.sampled_from(ZONES), st.integers(1975, 2040), st.integers(1, 12))
def test_a_month_begins_where_the_one_before_it_ends(zone: str, year: int, number: int) -> None:
    calendar, month = CALENDARS[zone], year * 100 + number
    start_us, end_us = calendar.month_bounds_us(month)
    assert calendar.month_and_day(start_us)[0] == month
    assert calendar.month_and_day(end_us - 1)[0] == month
    if zone != "America/St_Johns":  # there October came back for 59 minutes
        assert calendar.month_and_day(start_us - 1)[0] != month
        assert calendar.month_and_day(end_us)[0] != month
    following = month + 1 if number < 12 else month + 89
    assert calendar.month_bounds_us(following)[0] == end_us


def test_a_day_begins_when_the_clock_jumps_over_midnight() -> None:
    calendar = AccountingCalendar("Asia/Beirut")
    start_us = calendar.day_start_us(20260329)
    assert calendar.month_and_day(start_us) == (202603, 29)
    assert calendar.month_and_day(start_us - 1) == (202603, 28)


def test_memory_is_bounded() -> None:
    calendar = AccountingCalendar("UTC")
    for minute in range(10_000):
        calendar.month_and_day(minute * 60_000_000)
    assert len(calendar._known) <= 4096


def test_texts() -> None:
    assert format_month(202601) == "2026-01"
    assert format_us(us("2026-11-22T01:02:03.000004")) == "2026-11-22T01:02:03.000004Z"
    assert format_us(0) == "1970-01-01T00:00:00.000000Z"
