"""Counting an allowance by hand: small counters, every answer written out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.hold import Counter, holdable_units, pending_micros, room_units, split, unused_units


def counter(
    granted: int, used: int, held: int = 0, *, overage: int = 0, price: int = 100, per: int = 1
) -> Counter:
    return Counter(granted, 0, used, held, 1, price, per, price, per, overage)


@pytest.mark.parametrize(
    ("granted", "used", "overage", "units", "expected"),
    [
        (10, 0, 0, 3, (3, 0)),
        (10, 8, 0, 3, (2, 1)),  # straddling
        (10, 10, 0, 3, (0, 3)),
        (10, 15, 5, 3, (0, 3)),
        (0, 0, 0, 3, (0, 3)),
        (10, 12, 0, 3, (0, 3)),  # imported with more use than is granted
        (10, 8, 5, 9, (7, 2)),  # seat rows reversed after others had become overage: their room is free again
        (20, 15, 5, 12, (10, 2)),  # seats were added after overage was booked: all that they bring is room
        (10, 5, 0, 0, (0, 0)),
    ],
)
def test_a_use_is_split_at_the_allowance(
    granted: int, used: int, overage: int, units: int, expected: tuple[int, int]
) -> None:
    assert split(counter(granted, used, overage=overage), units) == expected


@pytest.mark.parametrize(
    ("now", "at_least", "at_most", "money", "expected"),
    [
        # nothing beyond the allowance
        (counter(10, 4, 3), 1, 1, None, 1),
        (counter(10, 4, 6), 1, 1, None, 0),
        (counter(10, 4, 3), 1, 100, None, 3),
        (counter(10, 4, 3), 4, 4, None, 0),
        (counter(10, 4, 3), 3, 3, None, 3),
        # the cap's money buys more
        (counter(10, 4, 3), 4, 4, 100, 4),
        (counter(10, 4, 3), 5, 5, 100, 0),
        (counter(10, 4, 3), 1, 100, 250, 5),
        (counter(10, 10), 1, 1, 99, 0),
        (counter(10, 10), 1, 1, 100, 1),
        (counter(10, 10, 5), 1, 3, 200, 2),
        (counter(10, 10), 1, 7, 0, 0),
        # free overage needs no money
        (counter(10, 10, price=0), 1, 7, 0, 7),
    ],
)
def test_what_may_be_held(
    now: Counter, at_least: int, at_most: int, money: int | None, expected: int
) -> None:
    assert holdable_units(now, at_least, at_most, money) == expected


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (counter(10, 4, 6), 0),
        (counter(10, 4, 8), 200),
        (counter(10, 14, 2, overage=4), 200),
        (counter(10, 12, 3, overage=4), 100),  # two units of room, for three that are held
    ],
)
def test_what_held_units_may_still_cost(now: Counter, expected: int) -> None:
    assert pending_micros(now) == expected


counters = st.builds(
    counter,
    st.integers(0, 50),
    st.integers(0, 80),
    st.integers(0, 30),
    price=st.integers(0, 500),
    per=st.sampled_from([1, 3, 1000]),
)


@given(counters, st.integers(0, 40), st.integers(0, 40), st.one_of(st.none(), st.integers(0, 5000)))
def test_a_hold_fits_the_room_and_the_money_and_could_not_be_larger(
    now: Counter, at_least: int, more: int, money: int | None
) -> None:
    at_most = at_least + more
    units = holdable_units(now, at_least, at_most, money)
    assert units == 0 or at_least <= units <= at_most

    def fits(count: int) -> bool:
        cost = pending_micros(now._replace(held=now.held + count)) - pending_micros(now)
        return count <= room_units(now) or (money is not None and cost <= money)

    assert fits(units)
    if units < at_most:
        assert not fits(max(units + 1, at_least))


@given(counters, st.integers(0, 60))
def test_seat_and_overage_make_the_use(now: Counter, units: int) -> None:
    seat, overage = split(now, units)
    assert seat + overage == units
    assert min(seat, overage) >= 0
    assert overage == 0 or seat == unused_units(now)
