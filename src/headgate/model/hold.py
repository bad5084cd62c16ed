"""Counting an allowance: what is granted, used and held, and how a booked use is split.

A `Counter` is one action of one contract in one billing period, with the prices of that period. The rules
(contract §3 and §6, promise 2):

- booking: `seat = min(units, max(0, granted − used of it))`, the rest is overage, in booking order. Units
  booked as overage use nothing of the allowance: what a reversal or added seats free is all room again;
- holding (only where the answer could be no): a hold is a number of units; it may take the room that neither
  use nor holds have taken, and beyond it, under a cap, as many units as the cap's money still buys;
- holds are pooled: whose hold took allowance and whose took cap money is not kept, because requests may be
  booked in another order than they were held. `pending_micros` is what the cap must keep free for all of
  them, reckoned from the counter alone, so that every order ends at or under the cap.
"""

from __future__ import annotations

from typing import NamedTuple

from headgate.model.money import affordable_units, amount_micros


class CounterKey(NamedTuple):
    """Where a counter stands: surrogate ids, and the start of its billing period (UTC microseconds)."""

    customer: int
    subscription: int
    action: int
    start_us: int


class Counter(NamedTuple):
    """Units of one action in one billing period, and the prices pinned for it (`micros` per `per` units).

    `used` includes `opening` units, used before the customer was imported, and `overage` units, booked beyond
    the allowance.
    """

    granted: int
    opening: int
    used: int
    held: int
    catalog_version: int
    list_micros: int
    list_per: int
    over_micros: int
    over_per: int
    overage: int = 0


class Cap(NamedTuple):
    """Overage money of one contract in one billing period: booked, and what running holds may still cost."""

    spent_micros: int
    held_micros: int


def unused_units(counter: Counter) -> int:
    """Units of the allowance that no row has used; holds may have taken them."""
    return max(0, counter.granted - (counter.used - counter.overage))


def split(counter: Counter, units: int) -> tuple[int, int]:
    """(seat, overage) units of a use booked now."""
    seat = min(units, unused_units(counter))
    return seat, units - seat


def room_units(counter: Counter) -> int:
    """Units of the allowance neither used nor held."""
    return max(0, unused_units(counter) - counter.held)


def pending_micros(counter: Counter) -> int:
    """What the held units would cost beyond the allowance if all of them were booked after `used`."""
    start = counter.used + unused_units(counter)
    after = counter.used + counter.held
    if after <= start:
        return 0
    price, per = counter.over_micros, counter.over_per
    return amount_micros(after, price, per) - amount_micros(start, price, per)


def holdable_units(counter: Counter, at_least: int, at_most: int, money_micros: int | None) -> int:
    """Units that may be held now: as many of `at_most` as fit, or 0 when fewer than `at_least` do.

    `money_micros` is what the cap leaves free (None: no units beyond the allowance at all).
    """
    room = room_units(counter)
    if room >= at_most or money_micros is None:
        return min(room, at_most) if room >= at_least else 0
    if counter.over_micros == 0:
        return at_most
    start = max(counter.used + counter.held, counter.used + unused_units(counter))
    units = room + affordable_units(start, money_micros, counter.over_micros, counter.over_per)
    return min(units, at_most) if units >= at_least else 0
