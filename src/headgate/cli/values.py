"""What people type: instants and lengths of time, money, NAME=VALUE. Wrong ones are told with the option."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from headgate.model.errors import InputError

T = TypeVar("T")


def instant(text: str | None, zone: str, option: str) -> int | None:
    """A date or time in `zone` as UTC microseconds; a date alone is the start of that day.

    Raises:
        InputError: it is neither.
    """
    from headgate.model.periods import parse_instant

    return None if text is None else named(option, lambda: parse_instant(text, zone))


def later(text: str | None, now_us: int, zone: str, option: str) -> int | None:
    """A date or time, or a length of time from now (`90 days`, `1 year`), as UTC microseconds.

    Raises:
        InputError: it is neither.
    """
    from headgate.model.duration import parse_duration
    from headgate.model.periods import parse_instant, shift_months

    if text is None:
        return None
    try:
        length = parse_duration(text)
    except InputError:
        try:
            return parse_instant(text, zone)
        except InputError as error:
            raise InputError(f'{option}: {error}, or a length of time such as "90 days"') from None
    return shift_months(now_us + length.us, length.months, zone)


def length(text: str, option: str) -> int:
    """A fixed length of time in microseconds.

    Raises:
        InputError: it is none.
    """
    from headgate.model.duration import duration_us

    return named(option, lambda: duration_us(text))


def money(text: str, option: str) -> int:
    """An amount in USD as micro-dollars.

    Raises:
        InputError: not an amount, or negative.
    """
    from headgate.model.money import parse_usd

    micros = named(option, lambda: parse_usd(text))
    if micros < 0:
        raise InputError(f"{option}: {text!r} is negative; write an amount of at least 0")
    return micros


def units(text: str, option: str) -> int:
    """A whole number of units.

    Raises:
        InputError: it is none.
    """
    plain = text.replace("_", "")
    if not (plain.isascii() and plain.isdigit() and len(plain) <= 15):
        raise InputError(f"{option}: {text!r} is not a whole number of units; write it in digits, like 500")
    return int(plain)


def pairs(texts: Sequence[str] | None, option: str) -> dict[str, str]:
    """NAME=VALUE options as a mapping; an empty value is one.

    Raises:
        InputError: without a name or `=`, or a name given twice.
    """
    found: dict[str, str] = {}
    for text in texts or ():
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise InputError(f"{option}: {text!r} has no value; write it as NAME=VALUE")
        if name.strip() in found:
            raise InputError(f"{option}: {name.strip()!r} is given twice; give it once")
        found[name.strip()] = value.strip()
    return found


def named(option: str, read: Callable[[], T]) -> T:
    """Read a value; what is wrong with it is told with the option's name."""
    try:
        return read()
    except InputError as error:
        raise InputError(f"{option}: {error}") from None
