"""Verification: the hash chains walked row by row, and everything kept beside the rows compared with them.

It works on a living store: one snapshot is taken of what is kept (slots, totals, counters, holds), each
slot's rows are walked up to where the snapshot saw it, and compared. Every difference is reported with its
place, and the walk goes on. `headgate.service.verify_export` does the same offline for an export's lines.

What they cannot see: someone who rewrites all rows of a slot from one place on, with its head and everything
kept beside it. For that the heads are compared with those noted elsewhere (reports carry `ledger_head`).
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from headgate.model.calendar import AccountingCalendar
from headgate.model.event import GENESIS, Channel, Event, Kind, chain_hash, event_id
from headgate.model.payment import payment_text
from headgate.model.report import Sums, ledger_head, sums_of
from headgate.store.driver import Driver, Row

_PAGE = 5000
_BEFORE_ALL = -(1 << 62)
# What each field may hold: SQLite would keep anything in any column.
_BYTES = frozenset({"request_id", "payer", "tx", "payment", "row_hash"})
_TYPES = tuple(
    (bytes if field in _BYTES else str if field == "reason" else int, type(None)) for field in Event._fields
)

TotalsKey = tuple[int, int, int, int, int, int]
PartyKey = tuple[int, bytes, int, int, int, int, int]
CounterPlace = tuple[int, int, int, int]
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that is not as it must be: `where` is a row, a kept number or a payment; `what` says how."""

    where: str
    what: str


@dataclass(frozen=True, slots=True)
class Verification:
    """What was found. `ledger_head` is reckoned from the rows, as far as the chains hold."""

    events: int
    slots: int
    differences: tuple[Difference, ...]
    ledger_head: str

    @property
    def verified(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


class Chain:
    """One slot's chain as it is walked: what comes next, and what does not fit."""

    __slots__ = ("differences", "head", "seq", "slot")

    def __init__(self, slot: int) -> None:
        self.slot = slot
        self.seq = 0
        self.head: bytes | None = GENESIS
        self.differences: list[Difference] = []

    def take(self, event: Event) -> None:
        """The next row. After a gap its link to the row before is not checked: the gap is reported once."""
        if event.seq != self.seq + 1:
            self._gap(event.seq)
        if self.head is not None and chain_hash(self.head, tuple(event)[:-1]) != event.row_hash:
            what = (
                "the row's hash does not follow from its content and the row before it: changed or inserted"
            )
            self.differences.append(Difference(_place(event), what))
        self.seq = event.seq
        row_hash: object = event.row_hash
        self.head = row_hash if isinstance(row_hash, bytes) else b""

    def end(self, seq: int, head: bytes) -> None:
        """After the last row: where the slot says that its chain ends."""
        if self.seq < seq:
            self._missing(self.seq + 1, seq)
        elif self.head != head:
            what = f"the slot's head is {head.hex()}, its last row's hash {(self.head or b'').hex()}"
            self.differences.append(Difference(f"slot {self.slot}, seq {seq}", what))

    def _gap(self, seq: int) -> None:
        if seq > self.seq + 1:
            self._missing(self.seq + 1, seq - 1)
        else:
            what = "a row stands here that its slot never numbered: inserted"
            self.differences.append(Difference(f"slot {self.slot}, seq {seq}", what))
        self.head = None

    def _missing(self, first: int, last: int) -> None:
        where = f"slot {self.slot}, seq {first}" + (f" to {last}" if last > first else "")
        what = "the row is missing" if first == last else f"{last - first + 1} rows are missing"
        self.differences.append(Difference(where, what))


class Recount:
    """Everything kept beside the rows, counted again from them."""

    def __init__(self, calendar: AccountingCalendar, networks: dict[int, int]) -> None:
        self._calendar = calendar
        self._networks = networks
        self.events = 0
        self.totals: defaultdict[TotalsKey, Sums] = defaultdict(Sums)
        self.parties: defaultdict[PartyKey, Sums] = defaultdict(Sums)
        self.used: defaultdict[CounterPlace, int] = defaultdict(int)
        self.seat_units: defaultdict[CounterPlace, int] = defaultdict(int)
        self.overage_units: defaultdict[CounterPlace, int] = defaultdict(int)
        self.reversed: set[tuple[int, int]] = set()
        self.unreadable: list[Difference] = []

    def take(self, event: Event) -> None:
        """Add one row. One whose fields hold what no field can is only counted: its hash tells on it."""
        self.events += 1
        try:
            self._add(event)
        except (ValueError, TypeError, OverflowError):
            what = "a field holds what Headgate never writes there"
            self.unreadable.append(Difference(f"slot {event.slot}, seq {event.seq}", what))

    def _add(self, event: Event) -> None:
        if not all(map(isinstance, event, _TYPES)):
            raise TypeError
        counts_at_us = event.occurred_us if event.late_for is None else event.booked_us
        month, day = self._calendar.month_and_day(counts_at_us)
        if month != event.month and event.late_for is not None:
            day = 1  # booked by a clock that was still in a closed month: the next open one took it
        network = 0 if event.rail is None else self._networks.get(event.rail, -1)
        sums = sums_of(event)
        by_day = (event.month, day, event.channel, event.action, network, event.slot)
        party = (event.customer or 0, event.payer or b"", event.month, event.channel, event.action, network)
        self.totals[by_day] = self.totals[by_day].plus(sums)
        self.parties[*party, event.slot] = self.parties[*party, event.slot].plus(sums)
        if event.customer is not None and event.period_start_us is not None:
            place = (event.customer, event.subscription or 0, event.action, event.period_start_us)
            self.used[place] += event.units
            if event.channel == Channel.SEAT:
                self.seat_units[place] += event.units
            elif event.channel == Channel.OVERAGE:
                self.overage_units[place] += event.units
        if event.kind == Kind.REVERSAL and event.corrects_slot is not None and event.corrects_seq is not None:
            self.reversed.add((event.corrects_slot, event.corrects_seq))


@dataclass(frozen=True, slots=True)
class _Kept:
    """What the store keeps beside the rows, all of one moment."""

    slots: dict[int, tuple[int, bytes]]
    networks: dict[int, int]
    totals: list[Row]
    parties: list[Row]
    counters: list[Row]
    held: dict[CounterPlace, int]
    strays: tuple[Difference, ...]


async def verify(
    driver: Driver, *, calendar: AccountingCalendar, progress: Progress | None = None
) -> Verification:
    """Walk the whole ledger. `progress` is called with (rows walked, rows there are) now and then.

    `calendar` is the seller's, in which the kept totals count days.
    """
    kept = await _read_kept(driver)
    recount = Recount(calendar, kept.networks)
    total = sum(seq for seq, _ in kept.slots.values())
    differences: list[Difference] = list(kept.strays)
    unpaid: list[tuple[int, int]] = []
    heads = []
    for slot, (last, head) in sorted(kept.slots.items()):
        chain = Chain(slot)
        after = _BEFORE_ALL
        while rows := await driver.rows_slow("events_after", (slot, after, last, _PAGE)):
            events = [Event._make(row) for row in rows]
            await asyncio.to_thread(_take_all, chain, recount, events)
            until = events[-1].seq
            missing = await driver.rows_slow("verify_unpaid_events", (slot, after, until))
            unpaid += [(slot, int(seq)) for (seq,) in missing]
            after = until
            if progress is not None:
                progress(recount.events, total)
        chain.end(last, head)
        differences += chain.differences
        heads.append((slot, chain.seq, chain.head or head))
    differences += recount.unreadable
    differences += compare_totals(recount, kept.totals, kept.parties)
    differences += compare_counters(recount, kept.counters, kept.held)
    differences += _unpaid(unpaid, recount)
    differences += await _payments(driver, kept.slots)
    return Verification(recount.events, len(kept.slots), tuple(differences), ledger_head(heads))


def _take_all(chain: Chain, recount: Recount, events: Sequence[Event]) -> None:
    for event in events:
        chain.take(event)
        recount.take(event)


async def _read_kept(driver: Driver) -> _Kept:
    async with driver.snapshot() as snapshot:
        slots = {int(row[0]): (int(row[2]), bytes(row[3])) for row in await snapshot.rows("slots_all")}
        strays: list[Difference] = []
        slot = -1
        while (row := (await snapshot.rows("event_slot_after", (slot,)))[0])[0] is not None:
            slot = int(row[0])
            last = int((await snapshot.rows("event_last_seq", (slot,)))[0][0])
            if slot not in slots:
                strays.append(Difference(f"slot {slot}", "rows of a slot that does not exist: inserted"))
            elif last > slots[slot][0]:
                where = f"slot {slot}, seq {slots[slot][0] + 1} to {last}"
                strays.append(Difference(where, "rows after the end of the slot's chain: inserted"))
        rails = await snapshot.rows("rail_names")
        return _Kept(
            slots=slots,
            networks={int(row[0]): int(row[1].rpartition(":")[2]) for row in rails},
            totals=await snapshot.rows("verify_totals"),
            parties=await snapshot.rows("verify_party_totals"),
            counters=await snapshot.rows("verify_counters"),
            held={
                (int(row[0]), int(row[1]), int(row[2]), int(row[3])): int(row[4])
                for row in await snapshot.rows("verify_held")
            },
            strays=tuple(strays),
        )


# --- what is kept beside the rows ------------------------------------------------------------------------


def compare_totals(recount: Recount, totals: list[Row], parties: list[Row]) -> list[Difference]:
    """Kept totals against the rows'."""
    kept: dict[TotalsKey, Sums] = {
        (int(a), int(b), int(c), int(d), int(e), int(f)): Sums(*map(int, sums))
        for a, b, c, d, e, f, *sums in totals
    }
    kept_parties: dict[PartyKey, Sums] = {
        (int(a), bytes(b), int(c), int(d), int(e), int(f), int(g)): Sums(*map(int, sums))
        for a, b, c, d, e, f, g, *sums in parties
    }
    found = []
    for key in sorted({*kept, *recount.totals}):
        month, day, channel, action, network, slot = key
        where = (
            f"totals of month {month}, day {day}, {_channel(channel)}, action #{action}, network {network}, "
            f"slot {slot}"
        )
        found += _compare_sums(where, kept.get(key, Sums()), recount.totals.get(key, Sums()))
    for party in sorted({*kept_parties, *recount.parties}):
        customer, payer, month, channel, action, network, slot = party
        whose = f"customer #{customer}" if customer else f"payer 0x{payer.hex()}"
        where = (
            f"totals of {whose}, month {month}, {_channel(channel)}, action #{action}, network {network}, "
            f"slot {slot}"
        )
        found += _compare_sums(where, kept_parties.get(party, Sums()), recount.parties.get(party, Sums()))
    return found


def _compare_sums(where: str, kept: Sums, counted: Sums) -> list[Difference]:
    wrong = [
        f"{name} kept {one}, rows {other}"
        for name, one, other in zip(Sums._fields, kept, counted, strict=True)
        if one != other
    ]
    return [Difference(where, "; ".join(wrong))] if wrong else []


def compare_counters(
    recount: Recount, counters: list[Row], held: dict[CounterPlace, int]
) -> list[Difference]:
    """Counters against the rows and the holds: used = opening + Σ units; Σ seat units ≤ what was granted."""
    found = []
    seen = set()
    for customer, subscription, action, start_us, granted, opening, used, holding, overage in counters:
        place = (int(customer), int(subscription), int(action), int(start_us))
        seen.add(place)
        where = _counter(place)
        counted = opening + recount.used.get(place, 0)
        if counted != used:
            found.append(Difference(where, f"used is kept as {used}, opening and rows make {counted}"))
        if recount.overage_units.get(place, 0) != overage:
            what = f"overage is kept as {overage}, rows make {recount.overage_units.get(place, 0)}"
            found.append(Difference(where, what))
        if held.get(place, 0) != holding:
            what = f"held is kept as {holding}, the slots hold {held.get(place, 0)}"
            found.append(Difference(where, what))
        seat = recount.seat_units.get(place, 0)
        if subscription and seat > max(0, granted - opening):
            what = f"{seat} seat units are booked, {granted} granted with {opening} used before"
            found.append(Difference(where, what))
    lost = sorted({*recount.used, *(place for place, units in held.items() if units)} - seen)
    found += [Difference(_counter(place), "rows or holds without a counter") for place in lost]
    return found


# --- payments --------------------------------------------------------------------------------------------


def _unpaid(places: list[tuple[int, int]], recount: Recount) -> list[Difference]:
    """Use rows without a settled payment that names them, unless they were reversed."""
    return [
        Difference(f"slot {slot}, seq {seq}", "an x402 row whose payment is not settled by this row")
        for slot, seq in places
        if (slot, seq) not in recount.reversed
    ]


async def _payments(driver: Driver, slots: dict[int, tuple[int, bytes]]) -> list[Difference]:
    """Settled payments without their row, or with another amount; those settled after the snapshot wait."""
    found = []
    last = b""
    while rows := await driver.rows_slow("verify_settled_payments", (last, _PAGE)):
        for identifier, slot, seq, charged, booked in rows:
            if slot in slots and seq is not None and seq > slots[slot][0]:
                continue
            if booked is None:
                what = f"settled, but slot {slot}, seq {seq} is not its use"
                found.append(Difference(payment_text(identifier), what))
            elif booked != charged:
                what = f"settled {charged} micro-dollars, its row at slot {slot}, seq {seq} says {booked}"
                found.append(Difference(payment_text(identifier), what))
        last = bytes(rows[-1][0])
    return found


# --- texts -----------------------------------------------------------------------------------------------


def _place(event: Event) -> str:
    try:
        name = f" (event {event_id(event.booked_us, event.slot, event.seq)})"
    except (ValueError, TypeError):
        name = ""
    return f"slot {event.slot}, seq {event.seq}{name}"


def _counter(place: CounterPlace) -> str:
    customer, subscription, action, start_us = place
    return f"counter of customer #{customer}, sub_{subscription}, action #{action}, period from {start_us} µs"


def _channel(number: int) -> str:
    return Channel(number).name.lower() if number in set(Channel) else f"channel #{number}"
