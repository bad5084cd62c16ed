"""Booking: whatever is held, captured, released, reversed and recorded, in any order, the books are exact.

`Bookkeeping` drives one `Books` with random operations of several actions under one contract, and judges it
by a model that knows nothing of counters or caps: it keeps every row that is booked and every hold that is
out, and adds them up anew after each step.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from itertools import count

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from headgate.model.booking import (
    SUMS,
    Books,
    Hold,
    PaidUse,
    Release,
    Reverse,
    Use,
    counter_key,
    key_of,
    new_counter,
)
from headgate.model.catalog import Beyond
from headgate.model.event import GENESIS, Channel, Event, Kind, first_broken
from headgate.model.hold import Cap, pending_micros
from headgate.model.money import amount_micros
from headgate.model.subscription import Price, Standing, StandingKind
from headgate.testing import DAY_US, NOVEMBER, START_US, make_standing, make_use

NOW = START_US + DAY_US
CAP_KEY = (1, 1, NOVEMBER.start_us)


def month_and_day(at_us: int) -> tuple[int, int]:
    """Months of 30 days, from 202611 on."""
    days = (at_us - START_US) // DAY_US
    return 202611 + days // 30, days % 30 + 1


def open_books(*standings: tuple[Standing, int], closed: Iterable[int] = (), now_us: int = NOW) -> Books:
    books = Books(1, 0, GENESIS, now_us, month_and_day, frozenset(closed))
    for standing, action in standings:
        books.counters[counter_key(standing, action)] = new_counter(standing)
        if standing.cap_micros is not None:
            books.caps[standing.customer, standing.subscription, standing.period.start_us] = Cap(0, 0)
    return books


def channels(events: Iterable[Event]) -> list[tuple[str, int, int]]:
    return [(Channel(event.channel).name, event.units, event.charged_micros) for event in events]


# --- by hand


def test_a_straddling_use_is_two_rows_of_one_request() -> None:
    """Ten are granted, eight used; three more are two of the seat and one beyond, at the contract's price."""
    standing = make_standing(granted=10, overage_price=Price(80_000, 1))
    books = open_books((standing, 1))
    books.book(make_use(standing, 8))
    seat, overage = books.book(make_use(standing, 3, request_id=b"r" * 16))
    assert channels([seat, overage]) == [("SEAT", 2, 0), ("OVERAGE", 1, 80_000)]
    assert (seat.list_micros, overage.list_micros) == (200_000, 100_000)
    assert (seat.prior, overage.prior) == (8, 10)
    assert (seat.unit_micros, overage.unit_micros) == (100_000, 80_000)
    assert seat.request_id == overage.request_id == b"r" * 16
    assert {seat.subscription, overage.subscription} == {1}


def test_a_use_of_nothing_is_one_row() -> None:
    standing = make_standing(granted=0)
    assert channels(open_books((standing, 1)).book(make_use(standing, 0))) == [("SEAT", 0, 0)]


def test_who_never_had_a_contract_is_booked_as_unassigned_and_owes_nothing() -> None:
    standing = make_standing(kind=StandingKind.NEVER, subscription=0, granted=0)
    (event,) = open_books((standing, 1)).book(make_use(standing, 7))
    assert channels([event]) == [("SEAT", 7, 0)]
    assert (event.list_micros, event.subscription, event.customer) == (700_000, None, 1)


def test_what_is_written_off_stands_on_one_row() -> None:
    standing = make_standing(granted=1)
    books = open_books((standing, 1))
    assert [row.written_off for row in books.book(make_use(standing, 3)._replace(written_off=5))] == [5, 0]
    assert [row.written_off for row in books.book(make_use(standing, 3)._replace(written_off=5))] == [5]


def test_a_reversal_frees_the_allowance_although_others_became_overage() -> None:
    """Two granted: a, b in it, c beyond. When a is taken back, d is in it again; nobody pays for room."""
    standing = make_standing(granted=2)
    books = open_books((standing, 1))
    (a,), (_b,), (c,) = (books.book(make_use(standing)) for _ in range(3))
    assert channels([a, c]) == [("SEAT", 1, 0), ("OVERAGE", 1, 100_000)]
    back = books.reverse(Reverse(a, "the application failed"))
    assert (back.units, back.list_micros, back.charged_micros) == (-1, -100_000, 0)
    assert (back.corrects_slot, back.corrects_seq, back.kind) == (a.slot, a.seq, Kind.REVERSAL)
    assert channels(books.book(make_use(standing))) == [("SEAT", 1, 0)]
    assert channels(books.book(make_use(standing))) == [("OVERAGE", 1, 100_000)]


def test_added_seats_bring_all_that_they_grant() -> None:
    standing = make_standing(granted=2)
    books = open_books((standing, 1))
    books.book(make_use(standing, 5))
    books.grant(counter_key(standing, 1), 4)
    assert channels(books.book(make_use(standing, 3))) == [("SEAT", 2, 0), ("OVERAGE", 1, 100_000)]
    books.grant(counter_key(standing, 1), 1)  # what is granted never falls within a period
    assert books.counters[counter_key(standing, 1)].granted == 4


def test_a_larger_grant_frees_the_caps_money() -> None:
    standing = make_standing(granted=0, cap_micros=1_000_000)
    books = open_books((standing, 1))
    assert books.hold(Hold(standing, 1, 5, 5)) == 5
    assert books.caps[CAP_KEY] == Cap(0, 500_000)
    books.grant(counter_key(standing, 1), 3)
    assert books.caps[CAP_KEY] == Cap(0, 200_000)
    books.release(Release(standing, 1, 5, 0))
    assert books.caps[CAP_KEY] == Cap(0, 0)


@pytest.mark.parametrize(
    ("occurred_day", "now_day", "closed", "month", "day", "late_for"),
    [
        (3, 33, [], 202611, 4, None),
        (3, 33, [202611], 202612, 4, 202611),
        (3, 29, [202611], 202612, 1, 202611),  # a clock behind the one that closed the month
        (3, 3, [202611, 202612], 202701, 1, 202611),
        (33, 33, [202611], 202612, 4, None),
    ],
)
def test_a_closed_month_takes_no_row(
    occurred_day: int, now_day: int, closed: list[int], month: int, day: int, late_for: int | None
) -> None:
    standing = make_standing()
    books = open_books((standing, 1), closed=closed, now_us=START_US + now_day * DAY_US)
    use = make_use(standing, occurred_us=START_US + occurred_day * DAY_US)
    (event,) = books.book(use)
    back = books.reverse(Reverse(event._replace(month=202611, late_for=None), "r"))
    assert (event.month, event.late_for) == (back.month, back.late_for) == (month, late_for)
    assert {key[:2] for key in books.totals} == {(month, day)}


def test_a_paid_use_touches_no_allowance() -> None:
    standing = make_standing(granted=5)
    books = open_books((standing, 1))
    paid = PaidUse(
        *(1, 2, 3, 0, 100_000, 1, 1, 300_000, 300_000, 1, 1, None, None, b"r" * 16, NOW, 4, 84532),
        *(b"p" * 20, 300_000, b"t" * 32, b"i" * 16),
    )
    event = books.book_paid(paid)
    assert channels([event]) == [("X402", 3, 300_000)]
    assert key_of(event) is None
    assert books.counters[counter_key(standing, 1)] == new_counter(standing)
    assert books.totals == {(202611, 2, 3, 1, 84532): [1, 3, 300_000, 300_000, 0, 0, 300_000]}
    books.reverse(Reverse(event, "reorganised", 84532))
    assert books.totals == {(202611, 2, 3, 1, 84532): [2, 0, 0, 300_000, -300_000, 0, 0]}
    assert books.parties[1, b"p" * 20, 202611, 3, 1, 84532] == [2, 0, 0, 300_000, -300_000, 0, 0]


def test_every_order_of_captures_ends_under_the_cap() -> None:
    """Rows are booked in another order than they were held: the sum is the same and the cap holds."""
    standing = make_standing(granted=3, cap_micros=350, overage_price=Price(100, 1))
    for order in ([1, 2, 3], [3, 2, 1], [2, 3, 1]):
        books = open_books((standing, 1))
        held = {size: books.hold(Hold(standing, 1, size, size)) for size in (1, 2, 3)}
        assert held == {1: 1, 2: 2, 3: 3}
        assert books.hold(Hold(standing, 1, 1, 1)) == 0
        for size in order:
            books.book(make_use(standing, size, held=size))
        assert books.caps[CAP_KEY] == Cap(300, 0)


# --- whatever happens


class Bookkeeping(RuleBasedStateMachine):
    """One contract, three actions at different prices, one cap (or none, or nothing beyond)."""

    def __init__(self) -> None:
        super().__init__()
        self.out: list[tuple[int, int]] = []  # holds: (action, units)
        self.standing_events: list[Event] = []  # rows that may still be taken back
        self.reversals: set[int] = set()
        self.request = count(1)

    @initialize(
        granted=st.lists(st.integers(0, 12), min_size=3, max_size=3),
        prices=st.lists(st.tuples(st.integers(0, 90), st.sampled_from([1, 3, 7])), min_size=3, max_size=3),
        plan=st.one_of(st.sampled_from([Beyond.BLOCK, Beyond.X402]), st.integers(0, 900)),
    )
    def sign(self, granted: list[int], prices: list[tuple[int, int]], plan: Beyond | int) -> None:
        self.cap = plan if isinstance(plan, int) else None
        self.standings = {
            action: make_standing(
                granted=granted[action],
                beyond=Beyond.OVERAGE if isinstance(plan, int) else plan,
                cap_micros=self.cap,
                overage_price=Price(*prices[action]),
            )
            for action in range(3)
        }
        self.granted = dict(enumerate(granted))
        self.books = open_books(*((standing, action) for action, standing in self.standings.items()))

    # --- what may happen

    @rule(action=st.integers(0, 2), at_least=st.integers(1, 6), more=st.integers(0, 9))
    def hold(self, action: int, at_least: int, more: int) -> None:
        units = self.books.hold(Hold(self.standings[action], action, at_least, at_least + more))
        assert units == 0 or at_least <= units <= at_least + more
        if units:
            self.out.append((action, units))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def capture(self, data: st.DataObject) -> None:
        action, held = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.book(make_use(self.standings[action], data.draw(st.integers(0, held)), action=action, held=held))

    @precondition(lambda self: self.out)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        action, held = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        self.books.release(Release(self.standings[action], action, held, 0))

    @rule(action=st.integers(0, 2), units=st.integers(0, 8))
    def record(self, action: int, units: int) -> None:
        use = make_use(self.standings[action], units, action=action, must_fit=True)
        if self.books.fits(use):
            self.book(use)

    @precondition(lambda self: self.standing_events)
    @rule(data=st.data())
    def reverse(self, data: st.DataObject) -> None:
        gone = self.standing_events.pop(data.draw(st.integers(0, len(self.standing_events) - 1)))
        self.books.reverse(Reverse(gone, "taken back"))

    @rule(action=st.integers(0, 2), more=st.integers(0, 5))
    def add_seats(self, action: int, more: int) -> None:
        self.granted[action] += more
        self.books.grant(counter_key(self.standings[action], action), self.granted[action])

    def book(self, use: Use) -> None:
        room = self.granted[use.action] - self.seat_units(use.action)
        rows = self.books.book(use)
        by_channel = {Channel(row.channel): row.units for row in rows}
        assert by_channel.get(Channel.SEAT, 0) == min(use.units, room)
        assert by_channel.get(Channel.OVERAGE, 0) == use.units - min(use.units, room)
        self.standing_events.extend(rows)

    # --- what must hold after each step

    def seat_units(self, action: int) -> int:
        return sum(
            event.units
            for event in self.books.events
            if event.action == action and event.channel == Channel.SEAT
        )

    @invariant()
    def counters_are_the_sum_of_the_rows_and_the_holds(self) -> None:
        for action in self.standings if hasattr(self, "standings") else ():
            counter = self.books.counters[counter_key(self.standings[action], action)]
            rows = [event for event in self.books.events if event.action == action]
            overage = sum(row.units for row in rows if row.channel == Channel.OVERAGE)
            assert counter.used == sum(row.units for row in rows)
            assert counter.overage == overage
            assert counter.held == sum(units for held, units in self.out if held == action)
            assert 0 <= self.seat_units(action) <= self.granted[action] == counter.granted
            assert self.books.held[counter_key(self.standings[action], action)] == counter.held
            if self.cap is None:
                assert overage == 0
                assert counter.used + counter.held <= counter.granted

    @invariant()
    def the_cap_holds(self) -> None:
        if getattr(self, "cap", None) is None:
            return
        cap = self.books.caps[CAP_KEY]
        assert cap.spent_micros == sum(event.charged_micros for event in self.books.events)
        assert cap.held_micros == sum(map(pending_micros, self.books.counters.values()))
        reversed_rows = sum(event.kind == Kind.REVERSAL for event in self.books.events)
        # A row taken back from the middle leaves the rows after it rounded where they were: one micro-dollar.
        assert cap.spent_micros + cap.held_micros <= (self.cap or 0) + reversed_rows

    @invariant()
    def amounts_telescope(self) -> None:
        """As long as nothing was taken back, the rows of an action sum to A(used) at the list price."""
        if not hasattr(self, "books") or any(event.kind != Kind.USAGE for event in self.books.events):
            return
        for action, standing in self.standings.items():
            listed = sum(event.list_micros for event in self.books.events if event.action == action)
            used = self.books.counters[counter_key(standing, action)].used
            assert listed == amount_micros(used, standing.list_price.micros, standing.list_price.per)

    @invariant()
    def totals_are_the_sum_of_the_rows(self) -> None:
        if not hasattr(self, "books"):
            return
        totals: dict[tuple[int, int], list[int]] = defaultdict(lambda: [0] * SUMS)
        for event in self.books.events:
            charged = event.charged_micros if event.kind == Kind.USAGE else 0
            amounts = (1, event.units, event.list_micros, charged, event.charged_micros - charged, 0, 0)
            row = totals[event.channel, event.action]
            totals[event.channel, event.action] = [a + b for a, b in zip(row, amounts, strict=True)]
        assert {(key[2], key[3]): sums for key, sums in self.books.totals.items()} == totals
        assert {(key[3], key[4]): sums for key, sums in self.books.parties.items()} == totals

    def teardown(self) -> None:
        if hasattr(self, "books"):
            assert first_broken(self.books.events) is None
            assert self.books.chain[0] == len(self.books.events)


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=120, stateful_step_count=40, deadline=None)
