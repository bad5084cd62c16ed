"""Booking: what a batch of operations does to counters, caps, totals and the ledger's chain.

A `Books` is the working copy of one transaction: the store fills it with the counters and caps the batch
touches, the operations are applied in order (captures first, then holds, first come first served), and the
store writes what changed. Nothing here reads or writes anything.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from headgate.model.event import ROW_FORMAT, Channel, Event, Kind, seal
from headgate.model.hold import Cap, Counter, CounterKey, holdable_units, pending_micros, split
from headgate.model.money import cumulative_micros
from headgate.model.subscription import Standing

_USAGE = Kind.USAGE.value
SUMS = 7  # events, units, list, charged, adjusted, refunded, settled


class Use(NamedTuple):
    """A customer's use to be booked now.

    `held` units are given up with it. `record` is (id hash, content digest) where the use carries an id of
    the seller's; `must_fit` refuses a use that the plan has no room for (a recorded use under a hard limit).
    `lease` names the lease of the slot under which the hold was taken. `stream` says that the use is kept as
    a stream's row, which goes with the booking: without the row somebody else has booked it.
    """

    standing: Standing
    action: int
    route: int | None
    units: int
    written_off: int
    held: int
    seat: int | None
    api_key: int | None
    request_id: bytes
    occurred_us: int
    record: tuple[bytes, bytes] | None = None
    must_fit: bool = False
    lease: int = 0
    stream: bool = False


class Hold(NamedTuple):
    """Units to set aside: as many of `at_most` as fit, none when fewer than `at_least` do."""

    standing: Standing
    action: int
    at_least: int
    at_most: int


class Release(NamedTuple):
    """Held units given back unused; `lease` as in `Use`."""

    standing: Standing
    action: int
    units: int
    lease: int


class Billed(NamedTuple):
    """What of a use is charged, and what is written off: all beyond a ceiling, or, where it could not be
    measured and no `units` are charged, up to all of the ceiling.
    """

    units: int
    written_off: int


class PaidUse(NamedTuple):
    """A use that an x402 payment has settled. Amounts in micro-dollars; ids are bytes."""

    action: int
    route: int | None
    units: int
    written_off: int
    unit_micros: int
    per: int
    catalog_version: int
    list_micros: int
    charged_micros: int
    customer: int | None
    subscription: int | None
    seat: int | None
    api_key: int | None
    request_id: bytes
    occurred_us: int
    rail: int
    network: int
    payer: bytes
    authorized_micros: int
    tx: bytes | None
    payment: bytes


class Reverse(NamedTuple):
    """Take a booked row back with one that names it. Done once per row, however often it is asked."""

    event: Event
    reason: str
    network: int = 0


def counter_key(standing: Standing, action: int) -> CounterKey:
    """The counter that a use of this action under this contract belongs to."""
    return CounterKey(standing.customer, standing.subscription, action, standing.period.start_us)


def key_of(event: Event) -> CounterKey | None:
    """The counter that a customer's row was booked on; None for a payment's row, which has none."""
    if event.customer is None or event.period_start_us is None:
        return None
    return CounterKey(event.customer, event.subscription or 0, event.action, event.period_start_us)


def new_counter(standing: Standing) -> Counter:
    """The counter of a billing period's first use: granted and priced by the terms of that moment."""
    listed, over = standing.list_price, standing.overage_price
    return Counter(
        standing.granted, 0, 0, 0, standing.catalog_version, listed.micros, listed.per, over.micros, over.per
    )


class Books:
    """The working copy of one transaction."""

    __slots__ = (
        "_closed",
        "_head",
        "_month_and_day",
        "_now_us",
        "_seq",
        "_slot",
        "caps",
        "counters",
        "events",
        "held",
        "parties",
        "totals",
    )

    def __init__(
        self,
        slot: int,
        seq: int,
        head: bytes,
        now_us: int,
        month_and_day: Callable[[int], tuple[int, int]],
        closed: frozenset[int],
    ) -> None:
        self._slot, self._seq, self._head, self._now_us = slot, seq, head, now_us
        self._month_and_day = month_and_day
        self._closed = closed
        self.counters: dict[CounterKey, Counter] = {}
        self.caps: dict[tuple[int, int, int], Cap] = {}
        self.held: defaultdict[CounterKey, int] = defaultdict(int)
        self.events: list[Event] = []
        self.totals: dict[tuple[int, int, int, int, int], list[int]] = {}
        self.parties: dict[tuple[int, bytes, int, int, int, int], list[int]] = {}

    @property
    def chain(self) -> tuple[int, bytes]:
        """(seq, head) after the events booked so far."""
        return self._seq, self._head

    # --- operations -------------------------------------------------------------------------------

    def grant(self, key: CounterKey, granted: int) -> None:
        """What a period grants never falls within it; a change agreed beforehand takes effect here."""
        counter = self.counters[key]
        if counter.granted < granted:
            self._change(key, counter._replace(granted=granted), 0)

    def hold(self, hold: Hold) -> int:
        """Set units aside; how many (0: it does not fit)."""
        standing = hold.standing
        key = counter_key(standing, hold.action)
        counter = self.counters[key]
        units = holdable_units(counter, hold.at_least, hold.at_most, self._free_money(standing))
        if units:
            self._change(key, counter._replace(held=counter.held + units), units)
        return units

    def release(self, release: Release) -> None:
        """Give held units back."""
        key = counter_key(release.standing, release.action)
        counter = self.counters[key]
        self._change(key, counter._replace(held=counter.held - release.units), -release.units)

    def fits(self, use: Use) -> bool:
        """Whether a use that holds nothing fits the plan as it stands."""
        counter = self.counters[counter_key(use.standing, use.action)]
        return holdable_units(counter, use.units, use.units, self._free_money(use.standing)) >= use.units

    def book(self, use: Use) -> list[Event]:
        """Book a customer's use: a `seat` row, an `overage` row, or both (straddling the boundary)."""
        standing = use.standing
        key = counter_key(standing, use.action)
        counter = self.counters[key]
        prior, listed, list_per = counter.used, counter.list_micros, counter.list_per
        seat, overage = split(counter, use.units) if standing.subscription else (use.units, 0)
        booked = []
        if seat or not overage:
            amount = cumulative_micros(prior, seat, listed, list_per)
            booked.append(
                self._customer_row(use, counter, Channel.SEAT, seat, prior, listed, list_per, amount, 0)
            )
        if overage:
            over, over_per = counter.over_micros, counter.over_per
            amount = cumulative_micros(prior + seat, overage, listed, list_per)
            charged = cumulative_micros(prior + seat, overage, over, over_per)
            booked.append(
                self._customer_row(
                    use, counter, Channel.OVERAGE, overage, prior + seat, over, over_per, amount, charged
                )
            )
            self._spend(key, charged)
        after = counter._replace(
            used=prior + use.units, held=counter.held - use.held, overage=counter.overage + overage
        )
        self._change(key, after, -use.held)
        return booked

    def book_paid(self, paid: PaidUse) -> Event:
        """Book a settled x402 use."""
        month, day, late_for = self._accounting(paid.occurred_us)
        event = self._append(
            (
                *(
                    Kind.USAGE.value,
                    Channel.X402.value,
                    paid.action,
                    paid.route,
                    paid.units,
                    paid.written_off,
                ),
                *(paid.unit_micros, paid.per, 0, paid.catalog_version, paid.list_micros, paid.charged_micros),
                *(paid.customer, paid.subscription, paid.seat, paid.api_key, None, paid.request_id),
                *(paid.occurred_us, self._now_us, month, late_for, paid.rail, paid.payer),
                *(paid.authorized_micros, paid.tx, paid.payment, None, None, None),
            )
        )
        self._count(event, day, paid.network, paid.customer or 0, paid.payer, paid.charged_micros)
        return event

    def reverse(self, reverse: Reverse) -> Event:
        """Append the row that takes another back: the same facts, negative; its allowance is free again."""
        gone = reverse.event
        month, day, late_for = self._accounting(gone.occurred_us)
        event = self._append(
            (
                *(Kind.REVERSAL.value, gone.channel, gone.action, gone.route, -gone.units, 0),
                *(gone.unit_micros, gone.per, gone.prior, gone.catalog_version, -gone.list_micros),
                *(-gone.charged_micros, gone.customer, gone.subscription, gone.seat, gone.api_key),
                *(gone.period_start_us, gone.request_id, gone.occurred_us, self._now_us, month, late_for),
                *(gone.rail, gone.payer, gone.authorized_micros, gone.tx, gone.payment),
                *(gone.slot, gone.seq, reverse.reason),
            )
        )
        key = key_of(gone)
        if key is not None:
            counter = self.counters[key]
            self._spend(key, -gone.charged_micros)
            overage = gone.units if gone.channel == Channel.OVERAGE else 0
            after = counter._replace(used=counter.used - gone.units, overage=counter.overage - overage)
            self._change(key, after, 0)
        settled = -gone.charged_micros if gone.tx is not None else 0
        self._count(event, day, reverse.network, gone.customer or 0, gone.payer or b"", settled)
        return event

    # --- parts ------------------------------------------------------------------------------------

    def _free_money(self, standing: Standing) -> int | None:
        """What the cap leaves; beyond any hold where there is none; None where nothing comes beyond."""
        if standing.beyond.value != "overage":
            return None
        if standing.cap_micros is None:
            return 1 << 62
        cap = self.caps[standing.customer, standing.subscription, standing.period.start_us]
        return max(0, standing.cap_micros - cap.spent_micros - cap.held_micros)

    def _spend(self, key: CounterKey, charged_micros: int) -> None:
        cap_key = (key.customer, key.subscription, key.start_us)
        cap = self.caps.get(cap_key)
        if cap is not None:
            self.caps[cap_key] = cap._replace(spent_micros=cap.spent_micros + charged_micros)

    def _change(self, key: CounterKey, after: Counter, held: int) -> None:
        """Put a counter's new state in place, with what it means for the cap and for this slot's holds."""
        cap_key = (key.customer, key.subscription, key.start_us)
        cap = self.caps.get(cap_key)
        if cap is not None:
            change = pending_micros(after) - pending_micros(self.counters[key])
            if change:
                self.caps[cap_key] = cap._replace(held_micros=cap.held_micros + change)
        if held:
            self.held[key] += held
        self.counters[key] = after

    def _customer_row(
        self,
        use: Use,
        counter: Counter,
        channel: Channel,
        units: int,
        prior: int,
        price_micros: int,
        per: int,
        list_micros: int,
        charged_micros: int,
    ) -> Event:
        standing = use.standing
        month, day, late_for = self._accounting(use.occurred_us)
        written_off = use.written_off if channel is Channel.SEAT or units == use.units else 0
        self._seq += 1
        row = (
            self._slot, self._seq, ROW_FORMAT, _USAGE, channel.value, use.action, use.route, units,
            written_off, price_micros, per, prior, counter.catalog_version, list_micros, charged_micros,
            standing.customer, standing.subscription or None, use.seat, use.api_key, standing.period.start_us,
            use.request_id, use.occurred_us, self._now_us, month, late_for,
            None, None, None, None, None, None, None, None,
        )  # fmt: skip
        event = seal(self._head, row)
        self._head = event.row_hash
        self.events.append(event)
        self._count(event, day, 0, standing.customer, b"", 0)
        return event

    def _accounting(self, occurred_us: int) -> tuple[int, int, int | None]:
        """(month, day, late_for): the month it occurred in, or the present one where that is closed.

        A clock behind the one that closed may still be in a closed month; then the next open one takes it.
        """
        month, day = self._month_and_day(occurred_us)
        if month not in self._closed:
            return month, day, None
        open_month, open_day = self._month_and_day(self._now_us)
        while open_month in self._closed:
            open_month, open_day = open_month + (1 if open_month % 100 < 12 else 89), 1
        return open_month, open_day, month

    def _append(self, body: tuple[object, ...]) -> Event:
        self._seq += 1
        event = seal(self._head, (self._slot, self._seq, ROW_FORMAT, *body))
        self._head = event.row_hash
        self.events.append(event)
        return event

    def _count(self, event: Event, day: int, network: int, customer: int, payer: bytes, settled: int) -> None:
        """Add a row to the kept totals, by day and by party; a correction's money counts as adjusted."""
        charged, adjusted = event.charged_micros, 0
        if event.kind != Kind.USAGE:
            charged, adjusted = 0, charged
        units, listed = event.units, event.list_micros
        month, channel, action = event.month, event.channel, event.action
        by_day = (month, day, channel, action, network)
        sums = self.totals.get(by_day)
        if sums is None:
            sums = self.totals[by_day] = [0] * SUMS
        by_party = (customer, payer, month, channel, action, network)
        party = self.parties.get(by_party)
        if party is None:
            party = self.parties[by_party] = [0] * SUMS
        for place in (sums, party):
            place[0] += 1
            place[1] += units
            place[2] += listed
            place[3] += charged
            if adjusted or settled:
                place[4] += adjusted
                place[6] += settled
