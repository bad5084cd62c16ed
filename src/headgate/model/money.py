"""Money: integer micro-dollars (1 USD = 1,000,000; USDC has the same six decimals, valued 1:1).

Rounding is said once, here: half up, on the exact rational `units × price ÷ per` (contract §1).
"""

from __future__ import annotations

import re

from headgate.model.errors import InputError

MICROS = 1_000_000
MAX_UNITS = 10**12  # of one use: far beyond any, and its amounts still fit the ledger's 64-bit columns
_USD = re.compile(r"(?P<sign>-?)(?P<whole>[0-9]{1,12})(?:\.(?P<part>[0-9]{1,6}))?")


def parse_usd(text: str) -> int:
    """Read a decimal string of US dollars as micro-dollars, exactly.

    >>> parse_usd("0.10")
    100000

    Raises:
        InputError: not a plain decimal, or more than six places (which could not be charged exactly).
    """
    found = _USD.fullmatch(text.strip())
    if found is None:
        raise InputError(f'{text!r} is not an amount in USD; write it like "0.10", with at most six places')
    micros = int(found["whole"]) * MICROS + int((found["part"] or "").ljust(6, "0"))
    return -micros if found["sign"] else micros


def format_usd(micros: int) -> str:
    """Write micro-dollars as the decimal string of every JSON, CSV and API.

    >>> format_usd(-100_000)
    '-0.100000'
    """
    sign = "-" if micros < 0 else ""
    whole, part = divmod(abs(micros), MICROS)
    return f"{sign}{whole}.{part:06d}"


def whole_units(value: object) -> int:
    """Units as somebody stated them, if they can be units: a whole number of at least 0.

    Raises:
        InputError: anything else; a bool is no number, and 1.0 is not whole.
    """
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MAX_UNITS:
        return value
    raise InputError(f"units must be a whole number from 0 to {MAX_UNITS}, not {value!r:.80}")


def amount_micros(units: int, price_micros: int, per: int) -> int:
    """A(units): the price of that many units, rounded half up once."""
    return (2 * units * price_micros + per) // (2 * per)


def cumulative_micros(prior_units: int, units: int, price_micros: int, per: int) -> int:
    """A customer's amount for `units` booked after `prior_units`: A(prior + units) − A(prior).

    Rows booked one after the other sum exactly to A(total), whatever the order or size (contract §1).
    """
    return amount_micros(prior_units + units, price_micros, per) - amount_micros(
        prior_units, price_micros, per
    )


def standalone_micros(units: int, price_micros: int, per: int) -> int:
    """An x402 payment's amount: rounded half up, at least one micro-dollar for a non-zero use."""
    if units == 0 or price_micros == 0:
        return 0
    return max(1, amount_micros(units, price_micros, per))


def affordable_units(prior_units: int, money_micros: int, price_micros: int, per: int) -> int:
    """The most units whose cumulative amount after `prior_units` does not exceed `money_micros`.

    A(p+n) ≤ A(p) + m  ⟺  2(p+n)·price + per < 2·per·(A(p) + m + 1), solved for the largest n.
    `price_micros` must be positive.
    """
    if money_micros < 0:
        return 0
    bound = 2 * per * (amount_micros(prior_units, price_micros, per) + money_micros + 1) - per - 1
    return max(0, bound // (2 * price_micros) - prior_units)
