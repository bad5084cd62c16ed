"""One number for the auditor: why a row is what it is (contract §8, `explain`).

For each row: the decision in words, the amounts worked out again from the catalog of that version, what was
left of the allowance, the double entry, who was told (exports), the payment, corrections, and the row's place
in the hash chain, recomputed. The words are facts of the row; only the allowance is what the counter grants
now, which within a billing period may have grown.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headgate.model.bookings import Posting, postings
from headgate.model.calendar import format_us
from headgate.model.catalog import Action, Catalog
from headgate.model.errors import NotFound
from headgate.model.event import GENESIS, Channel, Event, Kind, chain_hash, event_id, place_of
from headgate.model.money import amount_micros, cumulative_micros, format_usd, standalone_micros
from headgate.model.payment import payment_text
from headgate.service.event_object import Labels
from headgate.service.events import read_request
from headgate.service.payments import PaymentView, is_payment_id, show_payment
from headgate.store.driver import Driver
from headgate.store.registry import RegistryReader


@dataclass(frozen=True, slots=True)
class Amount:
    """An amount worked out again: `working` line by line, and whether it `agrees` with the row's."""

    name: str
    stored: str
    working: tuple[str, ...]
    agrees: bool


@dataclass(frozen=True, slots=True)
class Allowance:
    """Units of the action in the billing period: granted (as of now), left before and after this row."""

    billing_period: str
    granted: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """Whether an export has passed this row."""

    export: str
    delivered: bool


@dataclass(frozen=True, slots=True)
class ChainPlace:
    """The row's place in the hash chain; `recomputed`: the hash follows from the row and the one before."""

    slot: int
    seq: int
    previous_hash: str
    row_hash: str
    recomputed: bool


@dataclass(frozen=True, slots=True)
class ExplainedEvent:
    """One row, explained. `event` is its JSON object; `same_request` are the other rows of the request."""

    event: dict[str, Any]
    decision: str
    catalog: str
    amounts: tuple[Amount, ...]
    allowance: Allowance | None
    books: tuple[Posting, ...]
    deliveries: tuple[Delivery, ...]
    payment: PaymentView | None
    same_request: tuple[str, ...]
    corrected_by: tuple[str, ...]
    chain: ChainPlace

    @property
    def sound(self) -> bool:
        """Whether all that can be worked out again agrees."""
        return self.chain.recomputed and all(amount.agrees for amount in self.amounts)


@dataclass(frozen=True, slots=True)
class Explanation:
    """What an id stands for: rows in the order they were booked, or a payment that has none (yet)."""

    subject: str
    events: tuple[ExplainedEvent, ...]
    payment: PaymentView | None = None


async def explain(driver: Driver, registry: RegistryReader, subject: str) -> Explanation:
    """Explain an event id, a request id (all its rows) or a payment id.

    Raises:
        NotFound: nothing in this store has that id.
        InputError: it is no id.
    """
    subject = subject.strip()
    if is_payment_id(subject):
        payment = await show_payment(driver, subject)
        place = None if payment.event_id is None else place_of(payment.event_id)
        found = [] if place is None else await _at(driver, *place)
        return Explanation(subject, await _explain_all(driver, registry, found), payment)
    found = await _find(driver, subject)
    if not found:
        raise NotFound(f"no event and no request here has the id {subject}; `headgate events` lists rows")
    return Explanation(subject, await _explain_all(driver, registry, found))


async def _find(driver: Driver, subject: str) -> list[Event]:
    """The row with an event id, else the rows of a request: both are UUIDs, so the store tells them apart."""
    place = place_of(subject)
    for event in await _at(driver, *place) if place else ():
        if event_id(event.booked_us, event.slot, event.seq) == subject.lower():
            return [event]
    return await _of_request(driver, read_request(subject))


async def _at(driver: Driver, slot: int, seq: int) -> list[Event]:
    return [Event._make(row) for row in await driver.rows_slow("event_at", (slot, seq))]


async def _of_request(driver: Driver, request_id: bytes) -> list[Event]:
    return [Event._make(row) for row in await driver.rows_slow("events_of_request", (request_id,))]


async def _explain_all(
    driver: Driver, registry: RegistryReader, events: list[Event]
) -> tuple[ExplainedEvent, ...]:
    labels = Labels(driver, registry)
    return tuple([await _explain(driver, registry, labels, event) for event in events])


async def _explain(driver: Driver, registry: RegistryReader, labels: Labels, event: Event) -> ExplainedEvent:
    before = await _at(driver, event.slot, event.seq - 1)
    previous_hash = before[0].row_hash if before else GENESIS
    shown = await labels.shown(event, previous_hash)
    catalog, action = await _catalog(registry, event.catalog_version, shown["action"])
    allowance = await _allowance(driver, event)
    corrections = await driver.rows_slow("events_correcting", (event.slot, event.seq))
    progress = await driver.rows_slow("export_progress", (event.slot,))
    payment = None if event.payment is None else await _payment(driver, event.payment)
    others = await _of_request(driver, event.request_id)
    return ExplainedEvent(
        event=shown,
        decision=_decision(event, shown, allowance),
        catalog=_catalog_text(shown, catalog, action),
        amounts=_amounts(event, action),
        allowance=allowance,
        books=postings(event),
        deliveries=tuple(Delivery(name, seq is not None and seq >= event.seq) for name, seq in progress),
        payment=payment,
        same_request=tuple(_id(other) for other in others if other[:2] != event[:2]),
        corrected_by=tuple(event_id(booked_us, slot, seq) for slot, seq, booked_us in corrections),
        chain=ChainPlace(
            event.slot,
            event.seq,
            previous_hash.hex(),
            event.row_hash.hex(),
            (event.seq == 1 or bool(before))
            and chain_hash(previous_hash, tuple(event)[:-1]) == event.row_hash,
        ),
    )


async def _payment(driver: Driver, identifier: bytes) -> PaymentView | None:
    try:
        return await show_payment(driver, payment_text(identifier))
    except NotFound:
        return None


async def _catalog(
    registry: RegistryReader, version: int, action: str
) -> tuple[Catalog | None, Action | None]:
    try:
        catalog = await registry.catalog(version)
    except NotFound:
        return None, None
    return catalog, catalog.actions.get(action)


async def _allowance(driver: Driver, event: Event) -> Allowance | None:
    """What the counter of a customer's use grants, and what was left around it; corrections have none."""
    if event.kind != Kind.USAGE or not event.subscription or event.period_start_us is None:
        return None
    key = (event.customer or 0, event.subscription, event.action, event.period_start_us)
    rows = await driver.rows_slow("counter_read", key)
    if not rows:
        return None
    granted, units = int(rows[0][0]), event.units
    inside = event.channel == Channel.SEAT  # an overage row is booked when nothing of the allowance is left
    before = max(units, granted - event.prior) if inside else 0
    return Allowance(
        billing_period=format_us(event.period_start_us),
        granted=granted,
        before=before,
        after=before - units if inside else 0,
    )


# --- words -----------------------------------------------------------------------------------------------


def _decision(event: Event, shown: dict[str, Any], allowance: Allowance | None) -> str:
    if event.kind != Kind.USAGE:
        return f"A {shown['kind']} of {shown['corrects']}: {event.reason or 'no reason given'}."
    who = "A caller without an account" if shown["customer"] is None else f"Customer {shown['customer']!r}"
    use = f"{event.units} unit{'' if event.units == 1 else 's'} of {shown['action']}"
    if event.channel == Channel.X402:
        paid = f"paid {shown['charged_amount']} USD from {shown['payer']} on {shown['network']}"
        why = "whose contract left no room for it" if event.customer is not None else "who must pay per use"
        return f"{who}, {why}, {paid} for {use}."
    if event.subscription is None:
        return f"{who} had no contract and the seller let it pass: {use}, recorded, charged 0."
    plan = f"plan {shown['plan']!r} ({shown['subscription']})"
    granted = "" if allowance is None else f" of {allowance.granted} granted"
    before = f"{who} on {plan} had used {event.prior} units{granted} in the billing period that began "
    before += f"{shown['billing_period']}: this use ({use}) is"
    if event.channel == Channel.SEAT:
        return f"{before} inside the allowance, charged 0."
    return f"{before} beyond the allowance, which the plan sells as overage."


def _catalog_text(shown: dict[str, Any], catalog: Catalog | None, action: Action | None) -> str:
    if catalog is None:
        return f"Catalog version {shown['catalog_version']} is not in this store."
    text = f"Catalog version {catalog.version}, in force from {format_us(catalog.effective_us)}"
    if action is None:
        return f"{text}: it has no action {shown['action']!r}."
    units = f"{action.per} {action.unit}s" if action.per != 1 else f"1 {action.unit}"
    text += f": {action.name} ({action.title}) costs {format_usd(action.price_micros)} USD for {units}"
    if shown["plan"] in catalog.plans:
        plan = catalog.plans[shown["plan"]]
        flat, per_seat = plan.included.get(action.name, 0), plan.included_per_seat.get(action.name, 0)
        text += f"; plan {plan.name} ({plan.title}) includes {flat} for the customer and {per_seat} per seat"
        text += f", beyond it: {plan.beyond.value}"
    return text + "."


# --- amounts ---------------------------------------------------------------------------------------------


def _amounts(event: Event, action: Action | None) -> tuple[Amount, ...]:
    """List amount at the catalog's price, and what was charged at the row's."""
    found = []
    if action is not None:
        found.append(_amount("list_amount", event, event.list_micros, action.price_micros, action.per))
    if event.channel == Channel.SEAT:
        working = ("inside the allowance or unassigned: nothing is charged",)
        found.append(
            Amount("charged_amount", format_usd(event.charged_micros), working, event.charged_micros == 0)
        )
    else:
        found.append(_amount("charged_amount", event, event.charged_micros, event.unit_micros, event.per))
    return tuple(found)


def _amount(name: str, event: Event, stored: int, price: int, per: int) -> Amount:
    """Customers' rows are cumulative, payments stand alone, a reversal is the negative of its row."""
    if event.kind in (Kind.ADJUSTMENT, Kind.REFUND):
        return Amount(name, format_usd(stored), ("as the correction states",), agrees=True)
    sign = -1 if event.kind == Kind.REVERSAL else 1
    units, prior = sign * event.units, event.prior
    unit_text = f"{format_usd(price)} ÷ {per}"
    if event.channel == Channel.X402:
        expected = standalone_micros(units, price, per)
        working = [f"{units} × {unit_text}, rounded half up, at least 0.000001 = {format_usd(expected)}"]
    else:
        expected = cumulative_micros(prior, units, price, per)
        after = prior + units
        working = [
            f"A({count}) = {count} × {unit_text} = {format_usd(amount_micros(count, price, per))}"
            for count in (after, prior)
        ]
        working.append(f"A({after}) − A({prior}) = {format_usd(expected)}")
    if sign < 0:
        working.append(f"taken back: {format_usd(-expected)}")
    return Amount(name, format_usd(stored), tuple(working), agrees=sign * expected == stored)


def _id(event: Event) -> str:
    return event_id(event.booked_us, event.slot, event.seq)
