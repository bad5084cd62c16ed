"""Money: what is read, written and rounded, against exact fractions."""

from __future__ import annotations

from fractions import Fraction
from math import floor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.errors import InputError
from headgate.model.money import (
    MAX_UNITS,
    affordable_units,
    amount_micros,
    cumulative_micros,
    format_usd,
    parse_usd,
    standalone_micros,
    whole_units,
)

units = st.integers(0, 10**7)
prices = st.integers(0, 10**7)
positive_prices = st.integers(1, 10**7)
pers = st.sampled_from([1, 2, 3, 7, 10, 1000, 1_000_000])


@pytest.mark.parametrize(
    ("text", "micros"),
    [
        ("0.10", 100_000),
        ("49.00", 49_000_000),
        ("0.000001", 1),
        ("-0.5", -500_000),
        ("1000", 1_000_000_000),
        ("999999999999.999999", 999_999_999_999_999_999),
    ],
)
def test_dollars_are_read_exactly(text: str, micros: int) -> None:
    assert parse_usd(text) == micros


@pytest.mark.parametrize(
    "text",
    ["", "-", ".5", "1.", "1e3", "0.0000001", "1,5", "1 000", "٣", "NaN", "0x1", "$1", "1000000000000"],
)
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InputError):
        parse_usd(text)


@given(st.integers(-(10**17), 10**17))
def test_writing_and_reading_dollars_are_inverse(micros: int) -> None:
    text = format_usd(micros)
    assert parse_usd(text) == micros
    assert len(text.partition(".")[2]) == 6


@given(units, prices, pers)
def test_an_amount_is_the_exact_fraction_rounded_half_up(count: int, price: int, per: int) -> None:
    assert amount_micros(count, price, per) == floor(Fraction(count * price, per) + Fraction(1, 2))


@given(st.lists(units, max_size=20), units, prices, pers)
def test_cumulative_amounts_telescope(uses: list[int], opening: int, price: int, per: int) -> None:
    """Whatever the order and size of the rows, they sum to the statement."""
    prior, total = opening, 0
    for use in uses:
        row = cumulative_micros(prior, use, price, per)
        assert row >= 0
        prior, total = prior + use, total + row
    assert total == amount_micros(prior, price, per) - amount_micros(opening, price, per)


@given(units, prices, pers)
def test_a_payment_stands_alone_and_never_rounds_to_nothing(count: int, price: int, per: int) -> None:
    amount = standalone_micros(count, price, per)
    if count == 0 or price == 0:
        assert amount == 0
    else:
        assert amount == max(1, amount_micros(count, price, per))


@given(units, st.integers(0, 10**9), positive_prices, pers)
def test_affordable_units_are_the_most_that_fit(prior: int, money: int, price: int, per: int) -> None:
    most = affordable_units(prior, money, price, per)
    assert cumulative_micros(prior, most, price, per) <= money
    assert cumulative_micros(prior, most + 1, price, per) > money


def test_no_money_buys_no_unit_that_costs_any() -> None:
    assert affordable_units(0, -1, 100, 1) == 0
    assert affordable_units(0, 0, 100, 1) == 0
    assert affordable_units(0, 0, 1, 1000) == 499  # that many round to nothing


@pytest.mark.parametrize("value", [0, 1, MAX_UNITS])
def test_whole_units_are_units(value: int) -> None:
    assert whole_units(value) == value


@pytest.mark.parametrize("value", [-1, 1.0, True, "1", None, float("nan"), MAX_UNITS + 1, 2**70])
def test_anything_else_is_no_number_of_units(value: object) -> None:
    with pytest.raises(InputError):
        whole_units(value)
