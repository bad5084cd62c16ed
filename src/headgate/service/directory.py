"""What a process remembers of customers, keys, contracts and the catalog, for as long as it holds.

Everything remembered belongs to one generation of the registry. Before a priced request is admitted the
generation is read again, once for all requests of the same round of the event loop: a key revoked anywhere is
refused by the next request everywhere (failure case 36), for the price of one small read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

from headgate.model.catalog import Catalog
from headgate.model.customer import checked_ref
from headgate.model.keys import KeyState, read_key
from headgate.model.subscription import Standing, Subscription, standing
from headgate.store.registry import KeyOwner, Registry

log = logging.getLogger("headgate.directory")
_KEPT = 100_000
K = TypeVar("K")
V = TypeVar("V")


class Directory:
    """Answers who a key belongs to and where a customer stands, from memory where memory holds."""

    def __init__(self, registry: Registry, *, mode: str, zone: str, grace_us: int) -> None:
        self._registry = registry
        self._mode = mode
        self._zone = zone
        self._grace_us = grace_us
        self._generation = -1
        self._fresh = False
        self._catalogs: tuple[Catalog, ...] = ()
        self._keys: dict[bytes, KeyOwner | None] = {}
        self._customers: dict[str, int] = {}
        self._seats: dict[tuple[int, str], int] = {}
        self._contracts: dict[int, tuple[Subscription, ...]] = {}
        self._standings: dict[tuple[int, str], tuple[int, Standing]] = {}  # known from, until it says
        self.on_catalog: Callable[[Sequence[Catalog]], None] = lambda _catalogs: None

    async def refresh(self) -> None:
        """Forget what a newer generation has changed. At most one read per round of the event loop."""
        if self._fresh:
            return
        generation = await self._registry.generation()
        self._fresh = True
        asyncio.get_running_loop().call_soon(self._expire)
        if generation != self._generation:
            await self._start_over(generation)

    def _expire(self) -> None:
        self._fresh = False

    async def _start_over(self, generation: int) -> None:
        for known in (self._keys, self._customers, self._seats, self._contracts, self._standings):
            known.clear()
        published = await self._registry.publications()
        catalogs = tuple([await self._registry.catalog(one.version) for one in published])
        self._generation = generation
        if catalogs != self._catalogs:
            self._catalogs = catalogs
            self.on_catalog(catalogs)

    def catalog(self, at_us: int) -> Catalog:
        """The published catalog in force at an instant."""
        for catalog in reversed(self._catalogs):
            if catalog.effective_us <= at_us:
                return catalog
        return self._catalogs[0]

    @property
    def catalogs(self) -> tuple[Catalog, ...]:
        """Every published version, oldest first."""
        return self._catalogs

    async def key(self, text: bytes, at_us: int) -> KeyOwner | None:
        """The API key a caller presented, if it is one of this store's and works now."""
        digest = sha256(text).digest()
        if digest in self._keys:
            owner = self._keys[digest]
        else:
            found = read_key(text.decode("latin-1"))
            owner = None
            if found is not None and found.mode == self._mode:
                owner = await self._registry.key_by_digest(found.digest)
            _bound(self._keys)[digest] = owner
        return owner if owner is not None and owner.key.state_at(at_us) is KeyState.ACTIVE else None

    async def customer(self, ref: str, at_us: int) -> int:
        """A customer's number by the seller's id. One never seen is written down, and the operator told.

        Raises:
            InputError: the text cannot be an id.
        """
        found = self._customers.get(ref)
        if found is None:
            known = await self._registry.customer(ref)
            found = await self._first_seen(ref, at_us) if known is None else known.id
            _bound(self._customers)[ref] = found
        return found

    async def _first_seen(self, ref: str, at_us: int) -> int:
        checked_ref(ref, "customer")
        log.warning(
            "customer %r was never seen before and has no subscription: create it "
            "(`headgate customers create`), or correct what `identify` returns",
            ref,
        )
        async with self._registry.write() as writer:
            known = await writer.customer(ref)
            return known.id if known else await writer.create_customer(ref, None, None, at_us)

    async def seat(self, customer: int, ref: str) -> int:
        """The number of a customer's named user; written down when it is new."""
        found = self._seats.get((customer, ref))
        if found is None:
            checked_ref(ref, "seat")
            found = (await self._registry.ensure_seat(customer, ref)).id
            _bound(self._seats)[customer, ref] = found
        return found

    async def standing(self, customer: int, action: str, at_us: int) -> Standing:
        """Where a customer stands for one action at an instant."""
        known = self._standings.get((customer, action))
        if known is not None and known[0] <= at_us < known[1].valid_until_us:
            return known[1]
        contracts = self._contracts.get(customer)
        if contracts is None:
            contracts = tuple(await self._registry.subscriptions(customer))
            _bound(self._contracts)[customer] = contracts
        found = standing(
            contracts,
            customer,
            action,
            at_us,
            catalog=self.catalog(at_us),
            seller_zone=self._zone,
            grace_us=self._grace_us,
        )
        following_us = next((one.effective_us for one in self._catalogs if one.effective_us > at_us), None)
        if following_us is not None and following_us < found.valid_until_us:
            found = replace(found, valid_until_us=following_us)  # prices without a contract change with it
        _bound(self._standings)[customer, action] = at_us, found
        return found


def _bound(known: dict[K, V]) -> dict[K, V]:
    """Keep a memory from growing without end: over the limit it starts again."""
    if len(known) >= _KEPT:
        known.clear()
    return known
