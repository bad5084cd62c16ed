"""Contracts: which terms hold, what a period grants, where a customer stands (contract §1, §3)."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate.model.catalog import Action, Beyond, Catalog, Plan
from headgate.model.errors import InputError, UnknownAction
from headgate.model.subscription import (
    NO_CAP,
    Period,
    Price,
    Standing,
    StandingKind,
    Subscription,
    Terms,
    contract_end_us,
    granted_units,
    latest_terms,
    period_at,
    standing,
    terms_at,
)

DAY = 86_400_000_000
PLAN = Plan(
    "team", "Team", 12, 1, 0, {"doc": 500}, {"doc": 20, "token": 1_000_000}, Beyond.OVERAGE, 7, Beyond.X402
)
PRICES = {"doc": Price(100_000, 1), "token": Price(2_000, 1000)}
CATALOG = Catalog(
    actions={
        "doc": Action("doc", "Document", "document", 150_000),
        "token": Action("token", "Token", "token", 2_500, 1000),
        "new": Action("new", "New", "piece", 40, 3),
    },
    plans={"team": PLAN},
    version=4,
)


def us(text: str) -> int:
    return (datetime.fromisoformat(text).replace(tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(
        microseconds=1
    )


START = us("2026-04-01")  # April has 30 days


def terms(seats: int = 1, days: int = 0, **changes: object) -> Terms:
    base = Terms(START + days * DAY, 2, PLAN, seats, PRICES)
    return replace(base, **changes)  # type: ignore[arg-type]


def subscription(*agreed: Terms, **changes: object) -> Subscription:
    base = Subscription(7, 3, START, None, None, "UTC", "anniversary", agreed or (terms(),))
    return replace(base, **changes)  # type: ignore[arg-type]


def granted(*agreed: Terms, action: str = "doc", at_days: int = 29) -> int:
    contract = subscription(*agreed)
    return granted_units(contract, action, period_at(contract, START + at_days * DAY))


# --- terms and periods


def test_the_last_terms_at_or_before_an_instant_hold() -> None:
    contract = subscription(terms(1), terms(2, 10), terms(3, 10), terms(4, 20))
    found = [terms_at(contract, START + day * DAY).seats for day in (0, 9, 10, 19, 20, 500)]
    assert found == [1, 1, 3, 3, 4, 4]
    assert latest_terms(contract).seats == 4
    with pytest.raises(InputError, match="sub_7 has not started"):
        terms_at(contract, START - 1)
    with pytest.raises(InputError, match="sub_7 has not started"):
        period_at(contract, START - 1)


def test_neither_end_nor_cancellation_cuts_a_period() -> None:
    contract = subscription(end_us=START + 10 * DAY, canceled_us=START + 5 * DAY)
    assert period_at(contract, START + 20 * DAY) == Period(START, START + 30 * DAY)
    assert contract_end_us(contract) == START + 5 * DAY
    assert contract_end_us(subscription()) is None


def test_a_plan_with_another_period_length_begins_counting_anew() -> None:
    yearly = replace(PLAN, period_months=12)
    contract = subscription(terms(), terms(1, 40, plan=yearly), terms(1, 100, plan=PLAN))
    bounds = [
        (0, us("2026-04-01"), us("2026-05-01")),
        (39, us("2026-05-01"), us("2026-05-11")),
        (40, us("2026-05-11"), us("2026-07-10")),
        (99, us("2026-05-11"), us("2026-07-10")),
        (100, us("2026-07-10"), us("2026-08-10")),
    ]
    for day, start, end in bounds:
        assert period_at(contract, START + day * DAY) == Period(start, end), day


# --- allowance


@pytest.mark.parametrize(
    ("agreed", "expected"),
    [
        # flat 20 + 500 a seat
        ([terms(1)], 520),
        ([terms(0)], 20),
        ([terms(10)], 5020),
        # a seat more after 15 of 30 days brings half of its 500
        ([terms(1), terms(2, 15)], 520 + 250),
        # 500 × 20/30 = 333.33…, 500 × 10/30 = 166.67
        ([terms(1), terms(2, 10)], 520 + 333),
        ([terms(1), terms(2, 20)], 520 + 167),
        # removed seats keep theirs; adding them again brings nothing
        ([terms(3), terms(1, 5)], 1520),
        ([terms(3), terms(1, 5), terms(3, 15)], 1520),
        ([terms(3), terms(1, 5), terms(4, 15)], 1520 + 250),
        # of changes at one instant only the last counts
        ([terms(1), terms(99, 15), terms(2, 15)], 520 + 250),
        ([terms(99), terms(1, 0)], 520),
        # what was negotiated replaces flat and per seat
        ([terms(5, allowance={"doc": 77})], 77),
        ([terms(5, allowance={"doc": 0})], 0),
        ([terms(5, allowance={"token": 1})], 2520),
        ([terms(1), terms(1, 15, allowance={"doc": 720})], 520 + 100),
        ([terms(1), terms(1, 15, allowance={"doc": 100})], 520),
        # another plan, by the same rule: 10 flat + 1000 a seat is 490 more, half of it from the middle on
        (
            [
                terms(1),
                terms(1, 15, plan=replace(PLAN, included_per_seat={"doc": 1000}, included={"doc": 10})),
            ],
            765,
        ),
        # a change at the first instant of the period is not mid-period
        ([terms(1), terms(2, 30)], 520),
    ],
)
def test_what_a_period_grants(agreed: list[Terms], expected: int) -> None:
    assert granted(*agreed) == expected


def test_rounding_is_half_up() -> None:
    one = replace(PLAN, included_per_seat={"doc": 1}, included={})
    assert granted(terms(0, plan=one), terms(1, 15, plan=one)) == 1
    just_less = terms(1, plan=one, from_us=START + 15 * DAY + 1)
    assert granted(terms(0, plan=one), just_less) == 0


def test_the_next_period_grants_the_new_terms_in_full() -> None:
    assert granted(terms(3), terms(1, 5), at_days=30) == 520
    assert granted(terms(1), terms(2, 15), at_days=30) == 1020


def test_the_stub_of_a_calendar_anchor_is_granted_in_full() -> None:
    start = START + 20 * DAY
    contract = subscription(terms(2, 20), terms(3, 25), start_us=start, anchor="calendar")
    period = period_at(contract, start)
    assert period == Period(start, us("2026-05-01"))
    assert granted_units(contract, "doc", period) == 1020 + 250


def test_an_action_the_plan_does_not_include_has_no_allowance() -> None:
    assert granted(action="new") == 0
    assert granted(terms(1), terms(5, 3), action="token") == 1_000_000


CHANGES = st.lists(st.tuples(st.integers(0, 30 * DAY - 1), st.integers(0, 9)), max_size=6)


@given(first=st.integers(0, 9), changes=CHANGES, per_seat=st.integers(0, 7), asked=st.integers(0, 30 * DAY))
def test_an_allowance_never_falls_and_never_exceeds_the_most_agreed(
    first: int, changes: list[tuple[int, int]], per_seat: int, asked: int
) -> None:
    plan = replace(PLAN, included_per_seat={"doc": per_seat}, included={"doc": 3})
    agreed = [terms(first, plan=plan)]
    agreed += [terms(seats, plan=plan, from_us=START + at) for at, seats in sorted(changes)]
    contract = subscription(*agreed)
    period = period_at(contract, START)
    known = [granted_units(contract, "doc", period, known_until_us=at) for at in (START, START + asked)]
    final = granted_units(contract, "doc", period)
    most = 3 + per_seat * max(one.seats for one in agreed)
    in_force = 3 + per_seat * terms_at(contract, START).seats
    assert in_force == known[0] <= known[1] <= final <= most


# --- standing


def stand(*contracts: Subscription, day: int = 0, action: str = "doc", at: int | None = None) -> Standing:
    return standing(
        contracts,
        3,
        action,
        START + day * DAY if at is None else at,
        catalog=CATALOG,
        seller_zone="America/New_York",
        grace_us=7 * DAY,
    )


def test_a_covered_customer() -> None:
    assert stand(subscription(), day=3) == Standing(
        kind=StandingKind.COVERED,
        customer=3,
        subscription=7,
        plan="team",
        catalog_version=2,
        period=Period(START, START + 30 * DAY),
        granted=520,
        beyond=Beyond.OVERAGE,
        list_price=Price(100_000, 1),
        overage_price=Price(100_000, 1),
        cap_micros=7,
        beyond_cap=Beyond.X402,
        valid_until_us=START + 30 * DAY,
    )


def test_a_customer_without_a_contract_is_counted_in_the_sellers_month() -> None:
    found = stand()
    assert found.kind is StandingKind.NEVER
    assert (found.subscription, found.granted, found.plan, found.catalog_version) == (0, 0, "", 4)
    assert found.list_price == found.overage_price == Price(150_000, 1)
    assert found.period == Period(us("2026-03-01T05:00"), us("2026-04-01T04:00"))
    assert found.valid_until_us == found.period.end_us


@pytest.mark.parametrize(
    ("contract", "day", "kind", "valid_until_day"),
    [
        (subscription(end_us=START + 20 * DAY), 0, StandingKind.COVERED, 20),
        (subscription(end_us=START + 20 * DAY), 20, StandingKind.COVERED, 27),
        (subscription(end_us=START + 20 * DAY), 26, StandingKind.COVERED, 27),
        (subscription(end_us=START + 20 * DAY), 27, StandingKind.ENDED, None),
        (subscription(end_us=START + 28 * DAY), 29, StandingKind.COVERED, 30),  # the period rolls in grace
        (subscription(end_us=START + 28 * DAY), 30, StandingKind.COVERED, 35),
        (subscription(canceled_us=START + 20 * DAY), 19, StandingKind.COVERED, 20),
        (subscription(canceled_us=START + 20 * DAY), 20, StandingKind.ENDED, None),  # no grace
        (subscription(end_us=START + 20 * DAY, canceled_us=START + 22 * DAY), 21, StandingKind.COVERED, 22),
        (subscription(end_us=START + 20 * DAY, canceled_us=START + 22 * DAY), 22, StandingKind.ENDED, None),
        (subscription(end_us=START + 20 * DAY, canceled_us=START + 20 * DAY), 20, StandingKind.ENDED, None),
        (subscription(), -1, StandingKind.NEVER, 0),  # a contract for later
        (subscription(canceled_us=START), 5, StandingKind.NEVER, None),  # cancelled before it began
        (subscription(terms(), terms(2, 12)), 3, StandingKind.COVERED, 12),
        (subscription(terms(), terms(2, 12)), 12, StandingKind.COVERED, 30),
    ],
)
def test_kind_and_validity(
    contract: Subscription, day: int, kind: StandingKind, valid_until_day: int | None
) -> None:
    found = stand(contract, day=day)
    assert found.kind is kind
    expected = found.period.end_us if valid_until_day is None else START + valid_until_day * DAY
    assert found.valid_until_us == expected


def test_the_contract_that_started_last_decides() -> None:
    first = subscription(end_us=START + 20 * DAY)
    later = START + 20 * DAY
    second = subscription(terms(4, 20), id=8, start_us=later)
    assert stand(first, second, day=19).subscription == 7
    assert stand(first, second, day=19).valid_until_us == later
    assert stand(second, first, day=20).subscription == 8
    cancelled = replace(second, canceled_us=later + DAY)
    assert stand(first, cancelled, day=21).kind is StandingKind.ENDED  # the first one's grace does not revive


def test_a_planned_change_is_not_granted_before_it_holds() -> None:
    contract = subscription(terms(1), terms(2, 15))
    assert stand(contract, day=14).granted == 520
    assert stand(contract, day=15).granted == 770


def test_an_action_newer_than_the_pinned_catalog_has_todays_price_and_no_allowance() -> None:
    found = stand(subscription(), action="new")
    assert (found.granted, found.list_price, found.catalog_version) == (0, Price(40, 3), 4)
    assert found.plan == "team"
    with pytest.raises(UnknownAction, match="'gone'"):
        stand(subscription(), action="gone")
    with pytest.raises(UnknownAction, match="'gone'"):
        stand(action="gone")


def test_what_was_negotiated() -> None:
    own = terms(overage_price={"doc": Price(80_000, 1)}, overage_cap_micros=5_000_000)
    found = stand(subscription(own))
    assert (found.list_price, found.overage_price) == (Price(100_000, 1), Price(80_000, 1))
    assert found.cap_micros == 5_000_000
    assert stand(subscription(terms(overage_cap_micros=NO_CAP))).cap_micros is None
    assert stand(subscription(terms(overage_cap_micros=0))).cap_micros == 0


@given(
    end=st.none() | st.integers(1, 90 * DAY),
    canceled=st.none() | st.integers(0, 90 * DAY),
    change=st.integers(1, 90 * DAY),
    at=st.integers(-10 * DAY, 120 * DAY),
)
def test_a_standing_is_the_same_until_it_says_it_may_change(
    end: int | None, canceled: int | None, change: int, at: int
) -> None:
    contract = subscription(
        terms(1),
        terms(2, from_us=START + change),
        end_us=None if end is None else START + end,
        canceled_us=None if canceled is None else START + canceled,
    )
    found = stand(contract, at=START + at)
    assert found.valid_until_us > START + at
    assert found.period.start_us <= START + at < found.period.end_us
    last = stand(contract, at=found.valid_until_us - 1)
    assert last == found
