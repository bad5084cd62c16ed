"""A ledger row as people and programs read it: the JSON object of contract §6.

What follows from the row alone is written by `shown_from_row`, a pure function, so that an export can be
checked offline against the `row` it carries. What a row only has a number for (action, customer, seat, rail)
is looked up by `Labels`; those texts may be edited or erased, the numbers and the row's hash stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headgate.model.calendar import format_month, format_us
from headgate.model.errors import InputError
from headgate.model.event import Channel, Event, Kind, event_id, request_id_text
from headgate.model.money import format_usd
from headgate.model.payment import payment_text
from headgate.model.public_ids import KEY, SUBSCRIPTION, write_id
from headgate.model.subscription import Subscription, terms_at
from headgate.store.registry import RegistryReader, RowSource

BYTES_FIELDS = frozenset({"request_id", "payer", "tx", "payment"})
_KEPT = 50_000
_FIELDS = (
    *("event_id", "kind", "v", "channel", "action", "route", "units", "written_off", "unit_price", "per"),
    *("prior", "catalog_version", "plan", "list_amount", "charged_amount", "currency"),
    *("customer", "subscription", "seat_id", "key_id"),
    *("payer", "pay_to", "network", "asset", "scheme", "authorized_amount", "transaction", "payment_id"),
    *("request_id", "occurred_at", "booked_at", "month", "late_for", "billing_period"),
    *("corrects", "reason", "slot", "seq", "prev_hash", "row_hash", "row"),
)


def canonical_row(event: Event) -> list[int | str | None]:
    """Every field that the row's hash covers, in order; bytes as hexadecimal digits."""
    return [value.hex() if isinstance(value, bytes) else value for value in tuple(event)[:-1]]


def shown_from_row(event: Event) -> dict[str, Any]:
    """The fields that follow from the row alone. `billing_period` is the instant the period began."""
    return {
        "event_id": event_id(event.booked_us, event.slot, event.seq),
        "kind": Kind(event.kind).name.lower(),
        "v": event.v,
        "channel": Channel(event.channel).name.lower(),
        "units": event.units,
        "written_off": event.written_off,
        "unit_price": format_usd(event.unit_micros),
        "per": event.per,
        "prior": event.prior,
        "catalog_version": event.catalog_version,
        "list_amount": format_usd(event.list_micros),
        "charged_amount": format_usd(event.charged_micros),
        "currency": "USD",
        "subscription": _id(SUBSCRIPTION, event.subscription),
        "key_id": _id(KEY, event.api_key),
        "payer": _hex(event.payer),
        "authorized_amount": None if event.authorized_micros is None else format_usd(event.authorized_micros),
        "transaction": _hex(event.tx),
        "payment_id": None if event.payment is None else payment_text(event.payment),
        "request_id": request_id_text(event.request_id),
        "occurred_at": format_us(event.occurred_us),
        "booked_at": format_us(event.booked_us),
        "month": format_month(event.month),
        "late_for": None if event.late_for is None else format_month(event.late_for),
        "billing_period": None if event.period_start_us is None else format_us(event.period_start_us),
        "reason": event.reason,
        "slot": event.slot,
        "seq": event.seq,
        "row_hash": event.row_hash.hex(),
        "row": canonical_row(event),
    }


def as_line(shown: Mapping[str, Any]) -> str:
    """An object as one line of JSON, without the line's end."""
    return msgspec.json.encode(shown).decode()


class Labels:
    """Looks up what rows have numbers for, from a driver or inside a snapshot; remembers a bounded number."""

    def __init__(self, source: RowSource, registry: RegistryReader) -> None:
        self._source = source
        self._registry = registry
        self._names: dict[tuple[str, int], str] = {}
        self._rails: dict[int, tuple[str, str, str, str]] = {}
        self._customers: dict[int, str] = {}
        self._seats: dict[int, str] = {}
        self._contracts: dict[int, Subscription | None] = {}

    async def action(self, number: int) -> str:
        """An action's name."""
        return await self._name("action_names", number)

    async def route(self, number: int | None) -> str | None:
        """A route as written in the catalog."""
        return None if number is None else await self._name("route_names", number)

    async def rail(self, number: int | None) -> tuple[str, str, str, str] | None:
        """(network, asset, pay_to, scheme)."""
        if number is None:
            return None
        if number not in self._rails:
            self._rails = {
                int(row[0]): (row[1], row[2], row[3], row[4]) for row in await self._all("rail_names")
            }
        return self._rails.get(number)

    async def customer(self, number: int | None) -> str | None:
        """The seller's own id of a customer."""
        return await self._ref(self._customers, "customer_ref_of", number)

    async def seat(self, number: int | None) -> str | None:
        """The seller's own id of a named user."""
        return await self._ref(self._seats, "seat_ref_of", number)

    async def contract(self, number: int | None) -> Subscription | None:
        """A contract with its terms."""
        if number is None:
            return None
        if number not in self._contracts:
            _bound(self._contracts)
            self._contracts[number] = await self._registry.subscription(number)
        return self._contracts[number]

    async def plan(self, event: Event) -> str | None:
        """The plan that was in force when a customer's use occurred."""
        contract = await self.contract(event.subscription)
        try:
            return None if contract is None else terms_at(contract, event.occurred_us).plan.name
        except InputError:
            return None

    async def corrects(self, event: Event) -> str | None:
        """The id of the row that this one corrects."""
        slot, seq = event.corrects_slot, event.corrects_seq
        if slot is None or seq is None:
            return None
        rows = await self._source.rows("event_at", (slot, seq))
        return event_id(Event._make(rows[0]).booked_us if rows else 0, slot, seq)

    async def shown(self, event: Event, previous_hash: bytes | None) -> dict[str, Any]:
        """The whole object of contract §6, in its order, with the row's place in the hash chain."""
        rail = await self.rail(event.rail) or (None, None, None, None)
        found = {
            **shown_from_row(event),
            "action": await self.action(event.action),
            "route": await self.route(event.route),
            "plan": await self.plan(event),
            "customer": await self.customer(event.customer),
            "seat_id": await self.seat(event.seat),
            "network": rail[0],
            "asset": rail[1],
            "pay_to": rail[2],
            "scheme": rail[3],
            "corrects": await self.corrects(event),
            "prev_hash": (previous_hash or bytes(32)).hex(),
        }
        return {field: found[field] for field in _FIELDS}

    async def _name(self, statement: str, number: int) -> str:
        if (statement, number) not in self._names:
            for row in await self._all(statement):
                self._names[statement, int(row[0])] = row[1]
        return self._names.get((statement, number), f"#{number}")

    async def _ref(self, known: dict[int, str], statement: str, number: int | None) -> str | None:
        if number is None:
            return None
        if number not in known:
            _bound(known)
            rows = await self._source.rows(statement, (number,))
            known[number] = rows[0][0] if rows else f"#{number}"
        return known[number]

    async def _all(self, statement: str) -> list[tuple[Any, ...]]:
        return await self._source.rows(statement)


def _bound(known: dict[int, Any]) -> None:
    if len(known) >= _KEPT:
        known.clear()


def _id(kind: str, number: int | None) -> str | None:
    return None if number is None else write_id(kind, number)


def _hex(value: bytes | None) -> str | None:
    return None if value is None else "0x" + value.hex()
