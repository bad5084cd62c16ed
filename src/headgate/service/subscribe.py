"""Contracts: create, list, show, update, renew, cancel.

Plan and prices are pinned to the catalog of the day the contract was made, whenever it starts, until renewal.
Seats change at once, and a running billing period's allowance with them, in the same transaction; the rule
is `model.subscription.granted_units`. Own allowances, prices and caps change with the next billing period.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from headgate.model.calendar import format_us
from headgate.model.catalog import Catalog
from headgate.model.customer import Customer
from headgate.model.errors import InputError, NotFound
from headgate.model.negotiated import NOTHING_NEGOTIATED, Negotiated
from headgate.model.periods import ANCHORS, ANNIVERSARY, local_of
from headgate.model.public_ids import SUBSCRIPTION, read_id, write_id
from headgate.model.renewal import first_end_us, overlaps, renewal_us, renewed_end_us
from headgate.model.subscription import (
    StandingKind,
    Subscription,
    Terms,
    contract_end_us,
    effective_terms,
    granted_units,
    latest_terms,
    period_at,
    standing,
    terms_at,
)
from headgate.service.contract_views import SubscriptionView, view_contract
from headgate.service.customers import find_customer
from headgate.store.registry import Registry, RegistryReader, RegistryWriter, make_terms

MAX_SEATS = 10_000_000


@dataclass(frozen=True, slots=True)
class Agreement:
    """What a new contract says; `start_us` None: now; `end_us` None: after the plan's term."""

    plan: str
    seats: int = 1
    start_us: int | None = None
    end_us: int | None = None
    time_zone: str = "UTC"
    anchor: str = ANNIVERSARY
    negotiated: Negotiated = NOTHING_NEGOTIATED


async def create_subscription(
    registry: Registry, customer: str, agreement: Agreement, *, now_us: int, grace_us: int
) -> SubscriptionView:
    """Put a customer under contract.

    A start so long ago that the plan's term is over means that the contract was renewed since: it ends with
    the first whole term after now.

    Raises:
        NotFound: no such customer.
        InputError: no such plan, a value out of range, or another contract of the customer overlaps.
    """
    async with registry.write() as writer:
        owner = await find_customer(writer, customer)
        made = await add_subscription(writer, owner, agreement, now_us=now_us)
    return await show_subscription(
        registry, write_id(SUBSCRIPTION, made.id), now_us=now_us, grace_us=grace_us
    )


async def add_subscription(
    writer: RegistryWriter, owner: Customer, agreement: Agreement, *, now_us: int
) -> Subscription:
    """Inside a transaction: check an agreement and write it down."""
    catalog = await writer.catalog_at(now_us)
    start_us = now_us if agreement.start_us is None else agreement.start_us
    end_us = _checked(agreement, catalog, start_us, now_us)
    for other in await writer.subscriptions(owner.id):
        if overlaps(other, start_us, end_us):
            other_end_us = contract_end_us(other)
            until = "without end" if other_end_us is None else f"to {format_us(other_end_us)}"
            raise InputError(
                f"customer {owner.ref!r} is under contract {write_id(SUBSCRIPTION, other.id)} from "
                f"{format_us(other.start_us)} {until}; cancel that one, or start later"
            )
    number = await writer.create_subscription(
        owner.id,
        start_us=start_us,
        end_us=end_us,
        time_zone=agreement.time_zone,
        anchor=agreement.anchor,
        now_us=now_us,
    )
    await writer.add_terms(
        number,
        from_us=start_us,
        catalog_version=catalog.version,
        plan=agreement.plan,
        seats=agreement.seats,
        negotiated=agreement.negotiated,
    )
    return await find_subscription(writer, write_id(SUBSCRIPTION, number))


def _checked(agreement: Agreement, catalog: Catalog, start_us: int, now_us: int) -> int | None:
    """The end of an agreement that can be made."""
    _check_plan(agreement.plan, catalog)
    _check_seats(agreement.seats)
    agreement.negotiated.check(catalog)
    if agreement.anchor not in ANCHORS:
        raise InputError(f"{agreement.anchor!r} is not an anchor; use {' or '.join(ANCHORS)}")
    local_of(start_us, agreement.time_zone)
    if agreement.end_us is None:
        term = catalog.plans[agreement.plan].term_months
        return first_end_us(start_us, term, agreement.time_zone, now_us=now_us)
    if agreement.end_us <= start_us:
        raise InputError("the contract would end before it starts")
    return agreement.end_us


def _check_plan(plan: str, catalog: Catalog) -> None:
    if plan not in catalog.plans:
        known = ", ".join(sorted(catalog.plans)) or "none at all"
        raise InputError(f"catalog {catalog.version} has no plan {plan!r}; it has {known}")


def _check_seats(seats: int) -> None:
    if not 0 <= seats <= MAX_SEATS:
        raise InputError(f"{seats} is no number of seats; use 0 to {MAX_SEATS}")


async def find_subscription(registry: RegistryReader, subscription_id: str) -> Subscription:
    """A contract by its public id.

    Raises:
        NotFound: no such contract.
    """
    found = await registry.subscription(read_id(SUBSCRIPTION, subscription_id))
    if found is None:
        raise NotFound(
            f"there is no subscription {subscription_id}; `headgate subscriptions list` shows them"
        )
    return found


@dataclass(frozen=True, slots=True)
class Change:
    """What to change of a contract; None: leave it.

    Without `renew` and `at_renewal`: seats from now on, what was negotiated from the next billing period on
    (prices and caps hold for whole periods); a plan cannot change. With either of them everything holds from
    the renewal on, at the plan and prices of today's catalog. `renew` also extends the contract by a term.
    Renewal is at the contract's end, now if that is past, and for open-ended ones the next billing period.
    """

    seats: int | None = None
    plan: str | None = None
    negotiated: Negotiated | None = None
    at_renewal: bool = False
    renew: bool = False


async def update_subscription(
    registry: Registry, subscription_id: str, change: Change, *, now_us: int, grace_us: int
) -> SubscriptionView:
    """Change a contract. A change that is in place already writes nothing, so that it may be repeated.

    Raises:
        NotFound: no such contract.
        InputError: it is over or cancelled, the plan would change before renewal, or a value is out of range.
    """
    async with registry.write() as writer:
        before = await find_subscription(writer, subscription_id)
        catalog = await writer.catalog_at(now_us)
        _check_change(before, change, now_us)
        if change.renew or change.at_renewal:
            await _renew(writer, before, change, catalog, now_us)
        else:
            await _amend_running(writer, before, change, now_us)
        await _regrant(writer, before, catalog, now_us=now_us, grace_us=grace_us)
    return await show_subscription(registry, subscription_id, now_us=now_us, grace_us=grace_us)


def _check_change(contract: Subscription, change: Change, now_us: int) -> None:
    text = write_id(SUBSCRIPTION, contract.id)
    if contract.canceled_us is not None:
        raise InputError(f"{text} is cancelled at {format_us(contract.canceled_us)}; make a new contract")
    if contract.end_us is not None and contract.end_us <= now_us and not change.renew:
        raise InputError(f"{text} ended at {format_us(contract.end_us)}; renew it")
    if change.seats is not None:
        _check_seats(change.seats)
    if change.plan is not None and not (change.renew or change.at_renewal):
        raise InputError(
            f"the plan and prices of {text} are pinned until its renewal; change it at renewal, or renew"
        )


async def _renew(
    writer: RegistryWriter, contract: Subscription, change: Change, catalog: Catalog, now_us: int
) -> None:
    latest = latest_terms(contract)
    plan = latest.plan.name if change.plan is None else change.plan
    _check_plan(plan, catalog)
    own = negotiated_of(latest) if change.negotiated is None else change.negotiated
    own.check(catalog)

    def renewed(terms: Terms) -> Terms:
        seats = terms.seats if change.seats is None else change.seats
        return make_terms(catalog, plan, seats, own, terms.from_us)

    await _amend(writer, contract, renewal_us(contract, now_us), renewed)
    if change.renew:
        end_us = renewed_end_us(contract, catalog.plans[plan].term_months, now_us)
        await writer.end_subscription(contract.id, end_us)


async def _amend_running(writer: RegistryWriter, contract: Subscription, change: Change, now_us: int) -> None:
    started = contract.start_us <= now_us
    if change.negotiated is not None:
        own = change.negotiated
        next_us = period_at(contract, now_us).end_us if started else contract.start_us
        own.check(await writer.catalog(terms_at(contract, next_us).catalog_version))
        await _amend(
            writer,
            contract,
            next_us,
            lambda terms: replace(
                terms,
                allowance=own.allowance,
                overage_price=own.overage_price,
                overage_cap_micros=own.overage_cap_micros,
            ),
        )
    if change.seats is not None:
        seats = change.seats
        contract = await find_subscription(writer, write_id(SUBSCRIPTION, contract.id))
        from_us = now_us if started else contract.start_us
        await _amend(writer, contract, from_us, lambda terms: replace(terms, seats=seats))


async def _amend(
    writer: RegistryWriter, contract: Subscription, from_us: int, change: Callable[[Terms], Terms]
) -> None:
    """Agree on changed terms from an instant on; terms agreed for later are changed in the same way."""
    current = terms_at(contract, from_us)
    later = [terms for terms in effective_terms(contract.terms) if terms.from_us > from_us]
    changed_current = change(replace(current, from_us=from_us))
    pairs = [(replace(current, from_us=from_us), changed_current)]
    pairs += [(terms, change(terms)) for terms in later]
    for before, after in pairs:
        if before != after:
            await writer.add_terms(
                contract.id,
                from_us=after.from_us,
                catalog_version=after.catalog_version,
                plan=after.plan.name,
                seats=after.seats,
                negotiated=negotiated_of(after),
            )


async def _regrant(
    writer: RegistryWriter, before: Subscription, catalog: Catalog, *, now_us: int, grace_us: int
) -> None:
    """Bring the running billing period's counters in line with the changed contract."""
    after = await find_subscription(writer, write_id(SUBSCRIPTION, before.id))
    if after.terms == before.terms or now_us < after.start_us:
        return
    terms = terms_at(after, now_us)
    period = period_at(after, now_us)
    for action in sorted({*terms.prices, *terms.allowance}):
        now = standing(
            (after,), after.customer, action, now_us, catalog=catalog, seller_zone="UTC", grace_us=grace_us
        )
        old_units = granted_units(before, action, period_at(before, now_us), known_until_us=now_us)
        if now.kind is StandingKind.COVERED and (now.period != period or now.granted != old_units):
            await writer.grant(now, action)


async def cancel_subscription(
    registry: Registry, subscription_id: str, *, now_us: int, grace_us: int, at_us: int | None = None
) -> SubscriptionView:
    """Stop a contract at a time, by default now; no grace follows. Cancelling again can only move it.

    Raises:
        NotFound: no such contract.
        InputError: the time is past, or the contract is over by then.
    """
    async with registry.write() as writer:
        contract = await find_subscription(writer, subscription_id)
        when_us = now_us if at_us is None else at_us
        end_us = contract_end_us(contract)
        if contract.canceled_us is not None and contract.canceled_us <= now_us:
            raise InputError(f"{subscription_id} was cancelled at {format_us(contract.canceled_us)}")
        if when_us < now_us:
            raise InputError("a contract cannot be cancelled in the past: what was used under it stays")
        if contract.end_us is not None and end_us is not None and contract.end_us + grace_us <= when_us:
            raise InputError(f"{subscription_id} is over by then: it ends at {format_us(end_us)}")
        local_of(when_us, contract.time_zone)
        await writer.cancel_subscription(contract.id, when_us)
    return await show_subscription(registry, subscription_id, now_us=now_us, grace_us=grace_us)


async def show_subscription(
    registry: RegistryReader, subscription_id: str, *, now_us: int, grace_us: int
) -> SubscriptionView:
    """One contract, with what the running billing period grants and what was used of it.

    Raises:
        NotFound: no such contract.
    """
    contract = await find_subscription(registry, subscription_id)
    owner = await registry.customer_by_id(contract.customer)
    if owner is None:
        raise NotFound(f"{subscription_id} names a customer that is not in this store")
    counters = {}
    if contract.start_us <= now_us:
        start_us = period_at(contract, now_us).start_us
        counters = await registry.counters(contract.customer, contract.id, start_us)
    return view_contract(contract, owner.ref, counters, now_us=now_us, grace_us=grace_us, detail=True)


async def list_subscriptions(
    registry: RegistryReader, *, now_us: int, grace_us: int, customer: str | None = None
) -> list[SubscriptionView]:
    """The contracts of a customer, oldest first, or of all, by customer (without what was used).

    Raises:
        NotFound: no such customer.
    """
    if customer is None:
        refs = {one.id: one.ref for one in await registry.customers(archived=True)}
        found = await registry.subscriptions()
    else:
        owner = await find_customer(registry, customer, archived=True)
        refs, found = {owner.id: owner.ref}, await registry.subscriptions(owner.id)
    return [
        view_contract(one, refs[one.customer], {}, now_us=now_us, grace_us=grace_us, detail=False)
        for one in sorted(found, key=lambda one: (refs[one.customer], one.start_us, one.id))
    ]


def negotiated_of(terms: Terms) -> Negotiated:
    """What terms say apart from their plan."""
    return Negotiated(terms.allowance, terms.overage_price, terms.overage_cap_micros)
