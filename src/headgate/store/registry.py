"""Customers, seats, keys, contracts and catalogs: rows ↔ model.

A `RegistryReader` reads, on its own or inside a transaction; a `RegistryWriter` is one open transaction.
Whoever decides on what it read before it writes does both through one writer: registry writers take turns. A
writer that changed anything raises `registry.generation`, which tells every process that what it remembers is
out of date.
"""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Protocol

from headgate.model.booking import new_counter
from headgate.model.catalog import Catalog
from headgate.model.catalog_json import catalog_from_json, catalog_to_json
from headgate.model.customer import Customer, Seat
from headgate.model.errors import NotFound
from headgate.model.hold import Counter, pending_micros
from headgate.model.keys import ApiKey, NewKey
from headgate.model.negotiated import Negotiated, negotiated_from_json, negotiated_to_json
from headgate.model.subscription import Price, Standing, Subscription, Terms
from headgate.store.driver import Driver, Row, Tx


@dataclass(frozen=True, slots=True)
class Publication:
    """A published catalog without its text."""

    version: int
    effective_us: int
    published_us: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class KeyOwner:
    """A stored key and whose it is: the seller's own ids of customer and seat."""

    key: ApiKey
    customer: str
    seat: str | None


class RowSource(Protocol):
    """What statements are read from: a driver, or an open transaction."""

    async def rows(self, name: str, params: Sequence[Any] = ()) -> list[Row]:
        """Run a named statement and return its rows."""
        ...


class RegistryReader:
    """Reads of the registry. Published catalogs never change, so each is read and parsed once."""

    def __init__(self, source: RowSource, catalogs: dict[int, Catalog]) -> None:
        self._source = source
        self._catalogs = catalogs

    @property
    def known_catalogs(self) -> dict[int, Catalog]:
        """What was read of the published catalogs, to be shared with a reader on another source."""
        return self._catalogs

    async def generation(self) -> int:
        """Grows with every change of the registry."""
        return int((await self._source.rows("registry_generation"))[0][0])

    # --- catalogs ---------------------------------------------------------------------------------

    async def publications(self) -> list[Publication]:
        """Every published catalog, oldest first."""
        rows = await self._source.rows("catalogs_published")
        return [Publication(int(row[0]), int(row[1]), int(row[2]), bytes(row[3])) for row in rows]

    async def catalog(self, version: int) -> Catalog:
        """A published catalog.

        Raises:
            NotFound: there is no such version.
        """
        found = self._catalogs.get(version)
        if found is None:
            rows = await self._source.rows("catalog_read", (version,))
            if not rows:
                raise NotFound(f"there is no catalog version {version}; `headgate catalog list` shows them")
            body, effective_us = rows[0]
            found = catalog_from_json(body, version=version, effective_us=int(effective_us))
            self._catalogs[version] = found
        return found

    async def catalog_at(self, at_us: int) -> Catalog:
        """The catalog in force at an instant; before the first one took effect, the first.

        Raises:
            NotFound: nothing was published yet.
        """
        published = await self.publications()
        if not published:
            raise NotFound("no catalog was published yet; `headgate publish` publishes the file's")
        in_force = [one for one in published if one.effective_us <= at_us]
        return await self.catalog((in_force or published[:1])[-1].version)

    async def next_catalog_us(self, at_us: int) -> int | None:
        """When the catalog that follows the one in force takes effect; None: none is published."""
        later = [one.effective_us for one in await self.publications() if one.effective_us > at_us]
        return min(later, default=None)

    # --- customers and seats ----------------------------------------------------------------------

    async def customer(self, ref: str) -> Customer | None:
        """A customer by the seller's own id, archived ones included."""
        return await self._customer(await self._source.rows("customer_by_ref", (ref,)))

    async def customer_by_id(self, number: int) -> Customer | None:
        """A customer by its stored number."""
        return await self._customer(await self._source.rows("customer_by_id", (number,)))

    async def customers(
        self, *, after: str = "", limit: int = 1_000_000, archived: bool = False
    ) -> list[Customer]:
        """Customers in the order of their ids, from the one after `after` on."""
        rows = await self._source.rows("customers_page", (after, int(archived), limit))
        references: dict[int, dict[str, str]] = {}
        for customer, system, value in await self._source.rows("references_all") if rows else ():
            references.setdefault(customer, {})[system] = value
        return [_customer(row, references.get(row[0], {})) for row in rows]

    async def _customer(self, rows: list[Row]) -> Customer | None:
        if not rows:
            return None
        references = await self._source.rows("references_of", (rows[0][0],))
        return _customer(rows[0], dict(references))

    async def reference_holders(self, system: str, value: str) -> list[int]:
        """Numbers of the customers that have this id in another system."""
        return [int(row[0]) for row in await self._source.rows("reference_holders", (system, value))]

    async def seat(self, customer: int, ref: str) -> Seat | None:
        """A customer's named user by the seller's own id."""
        rows = await self._source.rows("seat_by_ref", (customer, ref))
        return Seat(*rows[0]) if rows else None

    async def seats(self, customer: int | None = None) -> list[Seat]:
        """The named users of a customer, or of all."""
        if customer is None:
            rows = await self._source.rows("seats_all")
        else:
            rows = await self._source.rows("seats_of", (customer,))
        return [Seat(*row) for row in rows]

    # --- keys -------------------------------------------------------------------------------------

    async def key_by_digest(self, digest: bytes) -> KeyOwner | None:
        """The key with this SHA-256, in whatever state: see `ApiKey.state_at`."""
        rows = await self._source.rows("key_by_digest", (digest,))
        return _key(rows[0]) if rows else None

    async def key(self, number: int) -> KeyOwner | None:
        """A key by its stored number."""
        rows = await self._source.rows("key_by_id", (number,))
        return _key(rows[0]) if rows else None

    async def keys(self, customer: int | None = None) -> list[KeyOwner]:
        """The keys of a customer, or of all, oldest first."""
        if customer is None:
            rows = await self._source.rows("keys_all")
        else:
            rows = await self._source.rows("keys_of", (customer,))
        return [_key(row) for row in rows]

    async def key_successor(self, number: int) -> int | None:
        """The number of the key that replaced this one."""
        rows = await self._source.rows("key_successor", (number,))
        return int(rows[0][0]) if rows else None

    # --- contracts --------------------------------------------------------------------------------

    async def subscription(self, number: int) -> Subscription | None:
        """A contract by its stored number."""
        rows = await self._source.rows("subscription_by_id", (number,))
        if not rows:
            return None
        return (await self._with_terms(rows, await self._source.rows("terms_of", (number,))))[0]

    async def subscriptions(self, customer: int | None = None) -> tuple[Subscription, ...]:
        """The contracts of a customer, oldest first; or everybody's, by customer."""
        if customer is None:
            rows = await self._source.rows("subscriptions_all")
            agreed = await self._source.rows("terms_all") if rows else []
        else:
            rows = await self._source.rows("subscriptions_of", (customer,))
            agreed = await self._source.rows("terms_of_customer", (customer,)) if rows else []
        return await self._with_terms(rows, agreed)

    async def _with_terms(self, rows: Iterable[Row], agreed: Iterable[Row]) -> tuple[Subscription, ...]:
        terms: dict[int, list[Terms]] = {}
        for subscription, from_us, version, plan, seats, negotiated in agreed:
            catalog = await self.catalog(version)
            own = negotiated_from_json(negotiated)
            terms.setdefault(subscription, []).append(make_terms(catalog, plan, seats, own, from_us))
        return tuple(_subscription(row, terms[row[0]]) for row in rows)

    # --- what was used ----------------------------------------------------------------------------

    async def counters(self, customer: int, subscription: int, start_us: int) -> dict[str, Counter]:
        """Counters of one billing period by the action's name, as far as there are any."""
        rows = await self._source.rows("counters_of_period", (customer, subscription, start_us))
        names = {number: name for name, number in await self._source.rows("action_ids")} if rows else {}
        return {names[row[0]]: Counter(*row[1:]) for row in rows}

    async def openings(self, customer: int, subscription: int) -> dict[str, int]:
        """Units used before the import by the action's name, whatever period they were imported into."""
        rows = await self._source.rows("counter_openings", (customer, subscription))
        names = {number: name for name, number in await self._source.rows("action_ids")} if rows else {}
        return {names[action]: int(units) for action, units in rows}


class RegistryWriter(RegistryReader):
    """One open transaction over the registry: reads see its own writes."""

    def __init__(self, tx: Tx, catalogs: dict[int, Catalog]) -> None:
        super().__init__(tx, catalogs)
        self._tx = tx
        self.changed = False

    async def _create(self, name: str, params: Sequence[Any]) -> int:
        self.changed = True
        return int((await self._tx.rows(name, params))[0][0])

    async def _change(self, name: str, params: Sequence[Any]) -> int:
        self.changed = True
        return await self._tx.run(name, params)

    async def publish(self, catalog: Catalog, *, effective_us: int, now_us: int) -> Publication:
        """Store a catalog as the next version. That it may be published is the caller's to check."""
        version = max((one.version for one in await self.publications()), default=0) + 1
        body = catalog_to_json(catalog)
        row = (version, effective_us, now_us, body, catalog_digest(catalog))
        await self._change("catalog_create", row)
        return Publication(version, effective_us, now_us, row[4])

    async def action_number(self, name: str) -> int:
        """The short number of an action, given to it when it is first needed."""
        known: dict[str, int] = dict(await self._tx.rows("action_ids"))
        found = known.get(name)
        return int((await self._tx.rows("action_create", (name,)))[0][0]) if found is None else int(found)

    async def create_customer(self, ref: str, name: str | None, email: str | None, now_us: int) -> int:
        """A new customer's number."""
        return await self._create("customer_create", (ref, name, email, now_us))

    async def update_customer(self, number: int, name: str | None, email: str | None) -> None:
        """Edit or erase (None) what may be."""
        await self._change("customer_update", (name, email, number))

    async def archive_customer(self, number: int, now_us: int) -> None:
        """Take a customer out of the lists and end its keys."""
        await self._change("customer_archive", (now_us, number))
        await self._change("keys_revoke_all", (now_us, number))

    async def set_reference(self, customer: int, system: str, value: str) -> None:
        """A customer's id in another system; empty: forget it."""
        if value:
            await self._change("reference_set", (customer, system, value))
        else:
            await self._change("reference_remove", (customer, system))

    async def ensure_seat(self, customer: int, ref: str, name: str | None = None) -> Seat:
        """A customer's named user, created if new, renamed if a name is given."""
        found = await self.seat(customer, ref)
        if found is None:
            return Seat(await self._create("seat_create", (customer, ref, name)), customer, ref, name)
        if name is None or name == found.name:
            return found
        await self._change("seat_rename", (name or None, found.id))
        return replace(found, name=name or None)

    async def create_key(
        self,
        customer: int,
        seat: int | None,
        key: NewKey,
        *,
        now_us: int,
        expires_us: int | None,
        replaces: int | None = None,
    ) -> int:
        """Store a key's hash; its number."""
        row = (customer, seat, key.digest, key.hint, now_us, expires_us, replaces)
        return await self._create("key_create", row)

    async def expire_key(self, number: int, expires_us: int) -> None:
        """Let a key end at a time."""
        await self._change("key_expire", (expires_us, number))

    async def revoke_key(self, number: int, now_us: int) -> bool:
        """End a key now; False if it was revoked before."""
        return bool(await self._change("key_revoke", (now_us, number)))

    async def create_subscription(
        self,
        customer: int,
        *,
        start_us: int,
        end_us: int | None,
        time_zone: str,
        anchor: str,
        now_us: int,
    ) -> int:
        """A new contract's number; its first terms are added in the same transaction."""
        row = (customer, start_us, end_us, time_zone, anchor, now_us)
        return await self._create("subscription_create", row)

    async def end_subscription(self, number: int, end_us: int | None) -> None:
        """A contract's new end after a renewal."""
        await self._change("subscription_end", (end_us, number))

    async def cancel_subscription(self, number: int, at_us: int) -> None:
        """A contract stops at a time."""
        await self._change("subscription_cancel", (at_us, number))

    async def add_terms(
        self,
        subscription: int,
        *,
        from_us: int,
        catalog_version: int,
        plan: str,
        seats: int,
        negotiated: Negotiated,
    ) -> None:
        """One more agreement. Of several for the same instant the one added last holds."""
        own = negotiated_to_json(negotiated)
        row = (subscription, from_us, catalog_version, plan, seats, own, subscription)
        await self._change("terms_add", row)

    async def open_counter(self, standing: Standing, action: str, opening: int) -> None:
        """Count units used before the import, in a billing period that has no counter for the action yet."""
        counter = new_counter(standing)._replace(opening=opening, used=opening)
        await self._write_counter(standing, action, counter)

    async def grant(self, standing: Standing, action: str) -> None:
        """Set what the running billing period grants, after the contract changed; what was used stays."""
        await self._write_counter(standing, action, new_counter(standing))

    async def _write_counter(self, standing: Standing, action: str, counter: Counter) -> None:
        number = await self.action_number(action)
        key = (standing.customer, standing.subscription, number, standing.period.start_us)
        await self._change("counter_grant", (*key, *counter[:-1]))  # nothing is overage yet
        period = (standing.customer, standing.subscription, standing.period.start_us)
        rows = await self._tx.rows("counters_of_period", period)
        held_micros = sum(pending_micros(Counter(*row[1:])) for row in rows)
        await self._change("cap_held", (held_micros, *period))


class Registry(RegistryReader):
    """The registry of one store."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver, {})
        self._driver = driver

    @asynccontextmanager
    async def write(self, *, dry_run: bool = False) -> AsyncIterator[RegistryWriter]:
        """A transaction: committed on leaving the block, undone if it raises or is a dry run."""
        try:
            async with self._driver.write() as tx:
                await tx.run("registry_lock")
                writer = RegistryWriter(tx, dict(self._catalogs))
                yield writer
                if dry_run:
                    raise _DryRun
                if writer.changed:
                    await tx.run("registry_bump")
        except _DryRun:
            return

    async def ensure_catalog(self, catalog: Catalog, now_us: int) -> Catalog:
        """The catalog in force; a store without any publishes this one as version 1 first."""
        if not await self.publications():
            async with self.write() as writer:
                if not await writer.publications():
                    await writer.publish(catalog, effective_us=now_us, now_us=now_us)
        return await self.catalog_at(now_us)

    async def ensure_seat(self, customer: int, ref: str) -> Seat:
        """A customer's named user, created when the seller's auth first names it."""
        found = await self.seat(customer, ref)
        if found is not None:
            return found
        async with self.write() as writer:
            return await writer.ensure_seat(customer, ref)


class _DryRun(Exception):
    """Leaves a transaction without committing it."""


def catalog_digest(catalog: Catalog) -> bytes:
    """SHA-256 of a catalog's canonical JSON: equal exactly where nothing that matters differs."""
    return hashlib.sha256(catalog_to_json(catalog).encode("utf-8", "surrogatepass")).digest()


def make_terms(catalog: Catalog, plan: str, seats: int, negotiated: Negotiated, from_us: int) -> Terms:
    """Terms as a catalog version prices them."""
    return Terms(
        from_us=from_us,
        catalog_version=catalog.version,
        plan=catalog.plans[plan],
        seats=seats,
        prices={name: Price(action.price_micros, action.per) for name, action in catalog.actions.items()},
        allowance=negotiated.allowance,
        overage_price=negotiated.overage_price,
        overage_cap_micros=negotiated.overage_cap_micros,
    )


def _customer(row: Row, references: Mapping[str, str]) -> Customer:
    number, ref, name, email, created_us, archived_us = row
    return Customer(number, ref, name, email, created_us, archived_us, references)


def _subscription(row: Row, terms: Sequence[Terms]) -> Subscription:
    number, customer, start_us, end_us, canceled_us, time_zone, anchor = row
    return Subscription(number, customer, start_us, end_us, canceled_us, time_zone, anchor, tuple(terms))


def _key(row: Row) -> KeyOwner:
    number, customer, seat, hint, created_us, expires_us, revoked_us, replaces, customer_ref, seat_ref = row
    key = ApiKey(number, customer, seat or 0, hint, created_us, expires_us, revoked_us, replaces or 0)
    return KeyOwner(key, customer_ref, seat_ref)
