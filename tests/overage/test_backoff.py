"""When a delivery is tried again: a table, and what holds for all numbers."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.overage.backoff import (
    MOST_ASKED_US,
    MOST_US,
    PAUSED_US,
    backoff_us,
    batch_limit,
    is_due,
    read_retry_after,
)
from tests.registries import us

S = 1_000_000
NOW = us("2026-11-02")


def least(n: int) -> int:
    return 0


def most(n: int) -> int:
    return n - 1


@pytest.mark.parametrize(
    ("failures", "asked_us", "low_us", "high_us"),
    [
        (1, None, S // 2, S),
        (2, None, S, 2 * S),
        (3, None, 2 * S, 4 * S),
        (9, None, 128 * S, 256 * S),
        (10, None, 150 * S, 300 * S),
        (10_000, None, 150 * S, 300 * S),
        (1, 0, S // 2, S),
        (1, 20 * S, 20 * S, 20 * S),
        (10, 20 * S, 150 * S, 300 * S),
        (1, 86_400 * S, 3600 * S, 3600 * S),
    ],
)
def test_the_pause_doubles_to_five_minutes_and_honours_what_is_asked(
    failures: int, asked_us: int | None, low_us: int, high_us: int
) -> None:
    assert backoff_us(failures, least, asked_us) == low_us
    assert backoff_us(failures, most, asked_us) == high_us


@given(st.integers(1, 500), st.integers(0, 10**9), st.none() | st.integers(0, 10**12))
def test_a_pause_is_bounded_and_always_due_after_it(failures: int, draw: int, asked: int | None) -> None:
    below: Callable[[int], int] = lambda n: draw % n  # noqa: E731
    wait = backoff_us(failures, below, asked)
    assert S // 2 <= wait <= max(MOST_US, MOST_ASKED_US)
    assert not is_due(NOW + wait, NOW)
    assert is_due(NOW + wait, NOW + wait)


@pytest.mark.parametrize(
    ("failures", "full", "limit"),
    [
        (0, 100, 100),
        (1, 100, 50),
        (2, 100, 25),
        (6, 100, 1),
        (7, 100, 1),
        (10**9, 100, 1),
        (0, 1, 1),
        (3, 1, 1),
    ],
)
def test_a_failing_batch_is_halved_to_one_row(failures: int, full: int, limit: int) -> None:
    assert batch_limit(failures, full) == limit


@pytest.mark.parametrize(
    ("retry_us", "due"),
    [
        (0, True),
        (NOW, True),
        (NOW + 1, False),
        (NOW + MOST_ASKED_US, False),
        (NOW + MOST_ASKED_US + 1, True),  # set by a clock that has been put back since
        (PAUSED_US, False),
    ],
)
def test_a_retry_is_due(retry_us: int, due: bool) -> None:
    assert is_due(retry_us, NOW) is due


@pytest.mark.parametrize(
    ("value", "after_us"),
    [
        ("120", 120 * S),
        (" 0 ", 0),
        ("99999999999999999999", MOST_ASKED_US),
        ("Mon, 02 Nov 2026 00:00:30 GMT", 30 * S),
        ("Sun, 01 Nov 2026 23:00:00 GMT", 0),
        ("-5", None),
        ("1.5", None),
        ("soon", None),
        ("²", None),
        ("", None),
        (None, None),
    ],
)
def test_retry_after_is_read(value: str | None, after_us: int | None) -> None:
    assert read_retry_after(value, NOW) == after_us


@given(st.text())
def test_no_retry_after_is_an_error(value: str) -> None:
    after = read_retry_after(value, NOW)
    assert after is None or 0 <= after <= MOST_ASKED_US
