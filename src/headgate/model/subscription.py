"""Contracts: which terms a customer is on at an instant, its billing period, and its allowance.

Times are integer microseconds since the epoch, UTC. Periods are half-open `[start, end)`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from headgate.model.catalog import Beyond, Catalog, Plan
from headgate.model.errors import InputError, UnknownAction
from headgate.model.periods import Period, month_at, period_containing

__all__ = [
    "NO_CAP",
    "Period",
    "Price",
    "Standing",
    "StandingKind",
    "Subscription",
    "Terms",
    "contract_end_us",
    "effective_terms",
    "granted_units",
    "latest_terms",
    "period_at",
    "served_until_us",
    "standing",
    "terms_at",
]

NO_CAP = -1  # in `Terms.overage_cap_micros`: the plan's cap was negotiated away


@dataclass(frozen=True, slots=True)
class Price:
    """`micros` buys `per` units."""

    micros: int
    per: int


@dataclass(frozen=True, slots=True)
class Terms:
    """What was agreed from `from_us` on: a plan of a pinned catalog version, seats, and what was negotiated.

    `prices` are the pinned list prices of that catalog version's actions; `allowance` and `overage_price`
    replace the plan's per action; `overage_cap_micros` replaces the plan's (-1: explicitly no cap).
    """

    from_us: int
    catalog_version: int
    plan: Plan
    seats: int
    prices: Mapping[str, Price] = field(default_factory=dict)
    allowance: Mapping[str, int] = field(default_factory=dict)
    overage_price: Mapping[str, Price] = field(default_factory=dict)
    overage_cap_micros: int | None = None


@dataclass(frozen=True, slots=True)
class Subscription:
    """One customer on one plan. `terms` are ordered by `from_us`; the last at or before an instant holds."""

    id: int
    customer: int
    start_us: int
    end_us: int | None
    canceled_us: int | None
    time_zone: str
    anchor: str  # "anniversary" or "calendar"
    terms: tuple[Terms, ...]


class StandingKind(Enum):
    """Where a customer stands at an instant: under contract, never had one, or the contract is over."""

    COVERED = "covered"
    NEVER = "never"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Standing:
    """All that admission and booking need to know of one customer and one action at one instant.

    Valid for instants in `[…, valid_until_us)` as long as the registry's generation does not change.
    `subscription` is 0 where there is none; then the period is the seller's month, nothing is granted, and
    `beyond` says x402: whether a customer who never had a contract is let pass is the seller's setting.
    `catalog_version` is the version `list_price` comes from.
    """

    kind: StandingKind
    customer: int
    subscription: int
    plan: str
    catalog_version: int
    period: Period
    granted: int
    beyond: Beyond
    list_price: Price
    overage_price: Price
    cap_micros: int | None
    beyond_cap: Beyond
    valid_until_us: int


def terms_at(subscription: Subscription, at_us: int) -> Terms:
    """The terms in force at an instant: the last that begin at or before it.

    Raises:
        InputError: the subscription starts later.
    """
    found = None
    for terms in subscription.terms:
        if terms.from_us > at_us:
            break
        found = terms
    if found is None:
        raise InputError(f"subscription sub_{subscription.id} has not started at that time")
    return found


def latest_terms(subscription: Subscription) -> Terms:
    """The last terms agreed, be they in force already or not."""
    return subscription.terms[-1]


def effective_terms(terms: Sequence[Terms]) -> list[Terms]:
    """Terms without those that were replaced at the very instant they would have begun."""
    return [
        one
        for one, later in zip(terms, (*terms[1:], None), strict=True)
        if later is None or later.from_us != one.from_us
    ]


def period_at(subscription: Subscription, at_us: int) -> Period:
    """The billing period that contains an instant at or after the start (rules: `model/periods.py`).

    Periods tile time from the start on without end: neither the end of the contract nor its cancellation cuts
    one, so that renewal grace and a renewal signed late continue the same period. Only terms that change the
    *length* of periods do: there the running period ends and counting begins anew.

    Raises:
        InputError: the subscription starts later.
    """
    terms_at(subscription, at_us)
    agreed = effective_terms(subscription.terms)
    anchor_us, months, cut_us = subscription.start_us, agreed[0].plan.period_months, None
    for terms in agreed:
        if terms.plan.period_months == months:
            continue
        if terms.from_us > at_us:
            cut_us = terms.from_us
            break
        anchor_us, months = terms.from_us, terms.plan.period_months
    period = period_containing(
        anchor_us, at_us, months=months, zone=subscription.time_zone, anchor=subscription.anchor
    )
    if cut_us is not None and cut_us < period.end_us:
        return Period(period.start_us, cut_us)
    return period


def granted_units(
    subscription: Subscription, action: str, period: Period, *, known_until_us: int | None = None
) -> int:
    """Units of an action that a billing period includes, pooled over the customer.

    The rule (contract §1, failure case 45):

    1. The terms in force at the period's start grant their whole allowance: what was negotiated for the
       action, else the plan's flat + per seat × seats. A period cut short (the stub of a calendar anchor) is
       granted in full as well.
    2. Terms that begin within the period and grant more, be it by added seats, another plan or a negotiated
       allowance, add the difference × the share of the period that remains, rounded half up to a unit.
    3. Terms that grant less take effect with the next period: removed seats keep what they brought.
    4. "More" is measured against the most any terms granted in this period, so a seat that is removed and
       added again brings nothing twice. Of terms that begin at the same instant only the last count.

    The result therefore never falls within a period, and never exceeds the largest allowance agreed in it.
    `known_until_us` leaves out terms that begin after that instant (a change that is planned, not in force).
    """
    most = _allowance(terms_at(subscription, period.start_us), action)
    granted = most
    length_us = period.end_us - period.start_us
    for terms in effective_terms(subscription.terms):
        if not period.start_us < terms.from_us < period.end_us:
            continue
        if known_until_us is not None and terms.from_us > known_until_us:
            break
        more = _allowance(terms, action) - most
        if more > 0:
            remaining_us = period.end_us - terms.from_us
            granted += (2 * more * remaining_us + length_us) // (2 * length_us)
            most += more
    return granted


def contract_end_us(subscription: Subscription) -> int | None:
    """Where the contract itself ends, agreed or cancelled, whichever comes first (None: it does not)."""
    ends = [end for end in (subscription.end_us, subscription.canceled_us) if end is not None]
    return min(ends, default=None)


def served_until_us(subscription: Subscription, grace_us: int) -> int | None:
    """Until when the customer is served under it: grace follows an agreed end, and never a cancellation."""
    ends = []
    if subscription.end_us is not None:
        ends.append(subscription.end_us + grace_us)
    if subscription.canceled_us is not None:
        ends.append(subscription.canceled_us)
    return min(ends, default=None)


def standing(
    subscriptions: Sequence[Subscription],
    customer: int,
    action: str,
    at_us: int,
    *,
    catalog: Catalog,
    seller_zone: str,
    grace_us: int,
) -> Standing:
    """Where a customer stands at an instant, for one action (contract §3).

    Of the customer's subscriptions the one that started last decides: COVERED while it runs and during the
    renewal grace after its agreed end, ENDED afterwards and at once when cancelled. Without any that started,
    NEVER; one that is agreed for later, or was cancelled before it started, changes nothing. `catalog` is the
    current one: it prices customers without a contract, and actions the pinned catalog does not have yet
    (which therefore have no allowance unless one was negotiated).

    Raises:
        UnknownAction: neither the contract's catalog nor the current one has the action.
    """
    running = None
    next_start_us = None
    for subscription in subscriptions:
        if subscription.canceled_us is not None and subscription.canceled_us <= subscription.start_us:
            continue
        if subscription.start_us > at_us:
            next_start_us = _earliest(next_start_us, subscription.start_us)
        elif running is None or subscription.start_us > running.start_us:
            running = subscription
    if running is None:
        return _uncovered(StandingKind.NEVER, customer, action, at_us, next_start_us, catalog, seller_zone)
    until_us = served_until_us(running, grace_us)
    if until_us is not None and until_us <= at_us:
        return _uncovered(StandingKind.ENDED, customer, action, at_us, next_start_us, catalog, seller_zone)
    return _covered(running, customer, action, at_us, next_start_us, until_us, catalog)


def _covered(
    subscription: Subscription,
    customer: int,
    action: str,
    at_us: int,
    next_start_us: int | None,
    until_us: int | None,
    catalog: Catalog,
) -> Standing:
    terms = terms_at(subscription, at_us)
    period = period_at(subscription, at_us)
    price = terms.prices.get(action)
    version = terms.catalog_version
    if price is None:
        price, version = _list_price(catalog, action), catalog.version
    valid_until_us = period.end_us
    changes = (*(later.from_us for later in subscription.terms), subscription.end_us, until_us, next_start_us)
    for change_us in changes:
        if change_us is not None and at_us < change_us < valid_until_us:
            valid_until_us = change_us
    cap = terms.plan.overage_cap_micros if terms.overage_cap_micros is None else terms.overage_cap_micros
    return Standing(
        kind=StandingKind.COVERED,
        customer=customer,
        subscription=subscription.id,
        plan=terms.plan.name,
        catalog_version=version,
        period=period,
        granted=granted_units(subscription, action, period, known_until_us=at_us),
        beyond=terms.plan.beyond,
        list_price=price,
        overage_price=terms.overage_price.get(action, price),
        cap_micros=None if cap == NO_CAP else cap,
        beyond_cap=terms.plan.beyond_cap,
        valid_until_us=valid_until_us,
    )


def _uncovered(
    kind: StandingKind,
    customer: int,
    action: str,
    at_us: int,
    next_start_us: int | None,
    catalog: Catalog,
    seller_zone: str,
) -> Standing:
    month = month_at(at_us, seller_zone)
    price = _list_price(catalog, action)
    return Standing(
        kind=kind,
        customer=customer,
        subscription=0,
        plan="",
        catalog_version=catalog.version,
        period=month,
        granted=0,
        beyond=Beyond.X402,
        list_price=price,
        overage_price=price,
        cap_micros=None,
        beyond_cap=Beyond.BLOCK,
        valid_until_us=_earliest(next_start_us, month.end_us),
    )


def _allowance(terms: Terms, action: str) -> int:
    negotiated = terms.allowance.get(action)
    return terms.plan.allowance(action, terms.seats) if negotiated is None else negotiated


def _list_price(catalog: Catalog, action: str) -> Price:
    found = catalog.actions.get(action)
    if found is None:
        raise UnknownAction(f"the published catalog has no action {action!r}; publish one that has it")
    return Price(found.price_micros, found.per)


def _earliest(one_us: int | None, other_us: int) -> int:
    return other_us if one_us is None else min(one_us, other_us)
