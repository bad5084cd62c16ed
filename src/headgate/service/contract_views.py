"""Contracts as shown, in a table row or as JSON: public ids, times as RFC 3339 in UTC, money as USD text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headgate.model.calendar import format_us
from headgate.model.hold import Counter, unused_units
from headgate.model.money import format_usd
from headgate.model.public_ids import SUBSCRIPTION, write_id
from headgate.model.subscription import (
    NO_CAP,
    Price,
    Subscription,
    Terms,
    effective_terms,
    granted_units,
    period_at,
    served_until_us,
    terms_at,
)


@dataclass(frozen=True, slots=True)
class AllowanceView:
    """One action in the running billing period. `used` includes `opening`: used before the import."""

    action: str
    granted: int
    used: int
    opening: int
    held: int
    left: int
    unit_price: str
    per: int
    overage_price: str
    overage_per: int


@dataclass(frozen=True, slots=True)
class PlannedView:
    """Terms agreed for later."""

    from_at: str
    plan: str
    catalog_version: int
    seats: int


@dataclass(frozen=True, slots=True)
class SubscriptionView:
    """A contract. `status`: scheduled, active, grace, ended or canceled; `overage_cap` None: no cap.

    `allowances` is filled where one contract is shown, and empty in lists and before the start.
    """

    subscription: str
    customer: str
    plan: str
    catalog_version: int
    seats: int
    status: str
    start_at: str
    end_at: str | None
    canceled_at: str | None
    time_zone: str
    anchor: str
    period_start_at: str | None
    period_end_at: str | None
    seat_fee: str
    beyond: str
    overage_cap: str | None
    planned: tuple[PlannedView, ...]
    allowances: tuple[AllowanceView, ...]


def view_contract(
    contract: Subscription,
    customer: str,
    counters: Mapping[str, Counter],
    *,
    now_us: int,
    grace_us: int,
    detail: bool,
) -> SubscriptionView:
    """A contract at an instant; `counters` are those of its running billing period."""
    terms = terms_at(contract, max(now_us, contract.start_us))
    period = period_at(contract, now_us) if contract.start_us <= now_us else None
    cap = terms.plan.overage_cap_micros if terms.overage_cap_micros is None else terms.overage_cap_micros
    return SubscriptionView(
        subscription=write_id(SUBSCRIPTION, contract.id),
        customer=customer,
        plan=terms.plan.name,
        catalog_version=terms.catalog_version,
        seats=terms.seats,
        status=status_at(contract, now_us, grace_us),
        start_at=format_us(contract.start_us),
        end_at=_time(contract.end_us),
        canceled_at=_time(contract.canceled_us),
        time_zone=contract.time_zone,
        anchor=contract.anchor,
        period_start_at=_time(period.start_us if period else None),
        period_end_at=_time(period.end_us if period else None),
        seat_fee=format_usd(terms.plan.price_per_seat_micros * terms.seats),
        beyond=terms.plan.beyond.value,
        overage_cap=None if cap is None or cap == NO_CAP else format_usd(cap),
        planned=tuple(
            PlannedView(format_us(one.from_us), one.plan.name, one.catalog_version, one.seats)
            for one in effective_terms(contract.terms)
            if one.from_us > max(now_us, contract.start_us)
        ),
        allowances=_allowances(contract, terms, counters, now_us) if detail and period else (),
    )


def status_at(contract: Subscription, at_us: int, grace_us: int) -> str:
    """One word for where a contract stands; a cancellation wins, so that the list tells what was done."""
    if contract.canceled_us is not None and contract.canceled_us <= at_us:
        return "canceled"
    if at_us < contract.start_us:
        return "scheduled"
    if contract.end_us is None or at_us < contract.end_us:
        return "active"
    until_us = served_until_us(contract, grace_us)
    return "grace" if until_us is not None and at_us < until_us else "ended"


def _allowances(
    contract: Subscription, terms: Terms, counters: Mapping[str, Counter], now_us: int
) -> tuple[AllowanceView, ...]:
    """Actions that have an allowance or were used: as counted, or as the first use would count them."""
    period = period_at(contract, now_us)
    found = []
    for action in sorted({*terms.prices, *terms.allowance, *counters}):
        counter = counters.get(action)
        if counter is None:
            granted = granted_units(contract, action, period, known_until_us=now_us)
            listed = terms.prices.get(action, Price(0, 1))
            over = terms.overage_price.get(action, listed)
            counter = Counter(
                granted, 0, 0, 0, terms.catalog_version, listed.micros, listed.per, over.micros, over.per
            )
        if counter.granted or counter.used or counter.held:
            found.append(_allowance(action, counter))
    return tuple(found)


def _allowance(action: str, counter: Counter) -> AllowanceView:
    return AllowanceView(
        action=action,
        granted=counter.granted,
        used=counter.used,
        opening=counter.opening,
        held=counter.held,
        left=unused_units(counter),
        unit_price=format_usd(counter.list_micros),
        per=counter.list_per,
        overage_price=format_usd(counter.over_micros),
        overage_per=counter.over_per,
    )


def _time(at_us: int | None) -> str | None:
    return None if at_us is None else format_us(at_us)
