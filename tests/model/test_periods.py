"""Months in local time: no drift, no gap, no overlap (failure case 43)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import InputError
from headgate.model.periods import (
    ANCHORS,
    Period,
    boundary,
    instant_of,
    local_of,
    month_at,
    month_name,
    period_containing,
    shift_months,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ZONES = (
    "UTC", "Europe/Berlin", "America/New_York", "America/Sao_Paulo", "America/Havana", "Asia/Kolkata",
    "Australia/Lord_Howe", "America/St_Johns", "Pacific/Apia", "Asia/Beirut", "Africa/Casablanca",
)  # fmt: skip


def us(text: str, zone: str = "UTC", fold: int = 0) -> int:
    local = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return (local - EPOCH) // timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("start", "months", "expected"),
    [
        ("2026-01-31T10:00", 1, "2026-02-28T10:00"),
        ("2028-01-31T10:00", 1, "2028-02-29T10:00"),
        ("2026-01-31T10:00", 2, "2026-03-31T10:00"),
        ("2026-01-31T10:00", 3, "2026-04-30T10:00"),
        ("2026-01-31T10:00", 13, "2027-02-28T10:00"),
        ("2028-02-29T00:00", 12, "2029-02-28T00:00"),
        ("2028-02-29T00:00", 48, "2032-02-29T00:00"),
        ("2026-11-15T00:00", 2, "2027-01-15T00:00"),
        ("2026-05-05T05:05:05.000005", 0, "2026-05-05T05:05:05.000005"),
        ("2099-12-31T00:00", 2, "2100-02-28T00:00"),
        ("1999-12-31T00:00", 2, "2000-02-29T00:00"),
    ],
)
def test_months_are_counted_from_the_anchor(start: str, months: int, expected: str) -> None:
    assert shift_months(us(start), months, "UTC") == us(expected)


@pytest.mark.parametrize(
    ("zone", "start", "months", "expected_utc"),
    [
        # The wall clock stays: 09:00 in Berlin is 08:00 UTC in winter and 07:00 UTC in summer.
        ("Europe/Berlin", "2026-01-10T09:00", 0, "2026-01-10T08:00"),
        ("Europe/Berlin", "2026-01-10T09:00", 6, "2026-07-10T07:00"),
        # 02:30 is skipped on 29 March 2026: read with the offset before, it is 03:30 summer time.
        ("Europe/Berlin", "2026-01-29T02:30", 2, "2026-03-29T01:30"),
        # 02:30 happens twice on 25 October 2026: the first one, still summer time.
        ("Europe/Berlin", "2026-01-25T02:30", 9, "2026-10-25T00:30"),
        # Samoa skipped 30 December 2011 altogether.
        ("Pacific/Apia", "2011-11-30T00:00", 1, "2011-12-30T10:00"),
    ],
)
def test_wall_clock_and_clock_changes(zone: str, start: str, months: int, expected_utc: str) -> None:
    assert shift_months(us(start, zone), months, zone) == us(expected_utc)


def test_a_start_in_the_second_of_two_equal_hours_is_kept_exactly() -> None:
    start = us("2026-10-25T02:30", "Europe/Berlin", fold=1)
    assert start == us("2026-10-25T01:30")
    period = period_containing(start, start, months=1, zone="Europe/Berlin", anchor="anniversary")
    assert period == Period(start, us("2026-11-25T02:30", "Europe/Berlin"))
    with pytest.raises(InputError):
        period_containing(start, start - 1, months=1, zone="Europe/Berlin", anchor="anniversary")


@pytest.mark.parametrize(
    ("start", "months", "bounds"),
    [
        ("2026-01-15T12:00", 1, ["2026-01-15T12:00", "2026-02-01", "2026-03-01", "2026-04-01"]),
        ("2026-02-01T00:00", 1, ["2026-02-01", "2026-03-01", "2026-04-01"]),
        ("2026-02-01T00:00:00.000001", 1, ["2026-02-01T00:00:00.000001", "2026-03-01", "2026-04-01"]),
        ("2026-11-30T00:00", 3, ["2026-11-30", "2026-12-01", "2027-03-01", "2027-06-01"]),
        ("2026-12-31T23:59", 12, ["2026-12-31T23:59", "2027-01-01", "2028-01-01"]),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_calendar_anchor_has_a_stub_and_then_whole_months(
    zone: str, start: str, months: int, bounds: list[str]
) -> None:
    anchor_us = us(start, zone)
    found = [boundary(anchor_us, n, months=months, zone=zone, anchor="calendar") for n in range(len(bounds))]
    assert found == [us(text, zone) for text in bounds]


def test_a_month_whose_first_midnight_is_skipped_begins_at_its_first_instant() -> None:
    zone = "America/Asuncion"  # clocks went from 23:59:59 on 30 September 2023 to 01:00
    month = month_at(us("2023-10-15T00:00", zone), zone)
    assert local_of(month.start_us, zone).isoformat() == "2023-10-01T01:00:00"
    assert local_of(month.start_us - 1, zone).isoformat() == "2023-09-30T23:59:59.999999"


def test_an_hour_repeated_across_the_end_of_a_month_belongs_to_the_new_one() -> None:
    zone = "America/St_Johns"  # at 00:01 on 1 November 2009 clocks went back to 23:01 on 31 October
    again = us("2009-10-31T23:30", zone, fold=1)
    assert local_of(again, zone).isoformat() == "2009-10-31T23:30:00"
    assert month_at(again, zone) == Period(us("2009-11-01", zone), us("2009-12-01", zone))
    assert month_name(again, zone) == "2009-11"


def test_the_month_of_the_sellers_zone() -> None:
    at = us("2026-11-30T23:30")
    assert month_name(at, "UTC") == "2026-11"
    assert month_name(at, "Europe/Berlin") == "2026-12"
    assert month_at(at, "Europe/Berlin") == Period(us("2026-11-30T23:00"), us("2026-12-31T23:00"))


@pytest.mark.parametrize("zone", ["Mars/Olympus", "", "../etc/passwd", "Europe", "Europe/Berlin\x00"])
def test_an_unknown_zone_is_named(zone: str) -> None:
    with pytest.raises(InputError, match="is not a time zone"):
        local_of(0, zone)


@pytest.mark.parametrize("at_us", [10**18, -(10**18), 2**63])
def test_times_out_of_range_are_refused(at_us: int) -> None:
    with pytest.raises(InputError, match="out of range"):
        shift_months(at_us, 1, "UTC")


INSTANTS = st.integers(us("1971-01-01"), us("2080-01-01"))
ENDS_OF_MONTH = st.builds(
    lambda year, month, minute: (us(f"{year}-{month:02d}-01") - minute * 60_000_000),
    st.integers(1971, 2080), st.integers(1, 12), st.integers(0, 4 * 24 * 60),
)  # fmt: skip


@given(
    anchor_us=INSTANTS | ENDS_OF_MONTH,
    number=st.integers(0, 60),
    months=st.sampled_from([1, 2, 3, 12]),
    zone=st.sampled_from(ZONES),
    anchor=st.sampled_from(ANCHORS),
)
def test_periods_tile_time(anchor_us: int, number: int, months: int, zone: str, anchor: str) -> None:
    """Every instant of period n, its first and last included, belongs to period n and to no other."""
    start = boundary(anchor_us, number, months=months, zone=zone, anchor=anchor)
    end = boundary(anchor_us, number + 1, months=months, zone=zone, anchor=anchor)
    assert start < end
    for at_us in (start, (start + end) // 2, end - 1):
        found = period_containing(anchor_us, at_us, months=months, zone=zone, anchor=anchor)
        assert found == Period(start, end)
    after = period_containing(anchor_us, end, months=months, zone=zone, anchor=anchor)
    assert after.start_us == end


@given(anchor_us=INSTANTS | ENDS_OF_MONTH, number=st.integers(1, 60), zone=st.sampled_from(ZONES))
def test_anniversaries_keep_day_and_wall_clock_where_they_exist(
    anchor_us: int, number: int, zone: str
) -> None:
    first, then = local_of(anchor_us, zone), local_of(shift_months(anchor_us, number, zone), zone)
    expected_month = (first.year * 12 + first.month - 1 + number) % 12 + 1
    wanted = first.replace(tzinfo=None)
    if then.month == expected_month and then.time() == wanted.time():
        last_day = (then.replace(day=1) + timedelta(days=31)).replace(day=1) - timedelta(days=1)
        assert then.day == min(first.day, last_day.day)
    else:  # the wall clock never showed that time: what it showed lies behind, by the clock change
        assert instant_of(then, zone) == shift_months(anchor_us, number, zone)
        assert timedelta(0) < then - _wanted(first, number) <= timedelta(hours=24)


def _wanted(first: datetime, number: int) -> datetime:
    index = first.year * 12 + first.month - 1 + number
    day = first.day
    while True:
        try:
            return first.replace(year=index // 12, month=index % 12 + 1, day=day)
        except ValueError:
            day -= 1


@given(at_us=INSTANTS, zone=st.sampled_from(ZONES))
def test_months_contain_their_instant_and_meet(at_us: int, zone: str) -> None:
    month = month_at(at_us, zone)
    assert month.start_us <= at_us < month.end_us
    assert month_at(month.end_us, zone).start_us == month.end_us
    assert month_at(month.start_us - 1, zone).end_us == month.start_us
    assert month_name(month.start_us, zone) == month_name(month.end_us - 1, zone) == month_name(at_us, zone)
