"""Admitting a request: who is it, where does it stand, and may it be served now."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from headgate.model.admission import Decision, Who, admit, after_hold
from headgate.model.booking import Hold, Release, Reverse, Use
from headgate.model.caller import Identity
from headgate.model.catalog import Action, Route
from headgate.model.event import Event
from headgate.model.subscription import Standing
from headgate.service.directory import Directory
from headgate.service.ids import RequestIds
from headgate.service.stream import Streams
from headgate.store.ledger import Ledger
from headgate.store.names import Names

log = logging.getLogger("headgate.web")


class Presented(NamedTuple):
    """What a request carries: a Headgate key, an identity from the seller's auth, other credentials."""

    key: bytes | None
    identity: Identity | None
    credentials: bool


@dataclass(slots=True)
class Admitted:
    """A request for a priced action, admitted. Ids as stored; `held` units must be captured or released."""

    action: Action
    decision: Decision
    action_id: int
    route_id: int | None
    request_id: bytes
    occurred_us: int
    customer: int | None = None
    customer_ref: str | None = None
    seat: int | None = None
    seat_ref: str | None = None
    api_key: int | None = None
    standing: Standing | None = None
    held: int = 0
    lease: int = 0


class Desk:
    """Admits requests and books what they used, for one process."""

    def __init__(
        self,
        directory: Directory,
        ledger: Ledger,
        names: Names,
        now_us: Callable[[], int],
        ids: RequestIds,
        no_subscription: str,
    ) -> None:
        self.directory = directory
        self.ledger = ledger
        self.names = names
        self.now_us = now_us
        self.ids = ids
        self.streams = Streams(ledger, now_us)
        self._no_subscription = no_subscription
        self._numbers: dict[tuple[str, Route | str | None], tuple[int, int | None]] = {}

    async def admit(self, action: Action, route: Route | str | None, presented: Presented) -> Admitted:
        """Decide, and take the hold where the answer could be no."""
        now_us = self.now_us()
        numbers = self._numbers.get((action.name, route)) or await self._number(action, route)
        admitted = Admitted(action, Decision.UNAUTHORIZED, *numbers, self.ids.new(now_us), now_us)
        who = await self._identify(admitted, presented)
        if admitted.customer is not None:
            admitted.standing = await self.directory.standing(admitted.customer, action.name, now_us)
        admitted.decision = admit(
            who, admitted.standing, free=action.free, no_subscription=self._no_subscription
        )
        if admitted.decision is Decision.HOLD and admitted.standing is not None:
            most = 1 if action.max_units is None else action.max_units
            hold = Hold(admitted.standing, admitted.action_id, 1, most)
            admitted.held, admitted.lease = await self.ledger.hold(hold)
            admitted.decision = after_hold(admitted.standing, admitted.held, free=action.free)
        return admitted

    async def _number(self, action: Action, route: Route | str | None) -> tuple[int, int | None]:
        number = await self.names.action(action.name)
        numbers = (number, None if route is None else await self.names.route(str(route)))
        self._numbers[action.name, route] = numbers
        return numbers

    async def _identify(self, admitted: Admitted, presented: Presented) -> Who:
        if presented.key is not None:
            owner = await self.directory.key(presented.key, admitted.occurred_us)
            if owner is None:
                return Who.REJECTED
            key = owner.key
            admitted.customer, admitted.customer_ref = key.customer, owner.customer
            admitted.seat, admitted.seat_ref, admitted.api_key = key.seat or None, owner.seat, key.id
            return Who.CUSTOMER
        identity = presented.identity
        if identity is None:
            return Who.REJECTED if presented.credentials else Who.ANONYMOUS
        admitted.customer_ref, admitted.seat_ref = identity.customer, identity.seat
        admitted.customer = await self.directory.customer(identity.customer, admitted.occurred_us)
        if identity.seat is not None:
            admitted.seat = await self.directory.seat(admitted.customer, identity.seat)
        return Who.CUSTOMER

    async def capture(self, admitted: Admitted, units: int) -> tuple[Event, ...]:
        """Book what a customer's request used; what goes beyond its hold is written off."""
        use = self.use(admitted, units)
        if use is None:
            return ()
        admitted.held = 0
        events: tuple[Event, ...] = (await self.ledger.submit(use)).events
        return events

    def use(self, admitted: Admitted, units: int) -> Use | None:
        """A customer's use as it is booked; None: nobody's."""
        standing = admitted.standing
        if standing is None:
            return None
        billed = min(units, admitted.held) if admitted.decision is Decision.HELD else units
        if billed < units:
            log.warning(
                "%s: %d units beyond what was held are written off", admitted.action.name, units - billed
            )
        return Use(
            standing,
            admitted.action_id,
            admitted.route_id,
            billed,
            units - billed,
            admitted.held,
            admitted.seat,
            admitted.api_key,
            admitted.request_id,
            admitted.occurred_us,
            lease=admitted.lease,
        )

    async def release(self, admitted: Admitted) -> None:
        """Give the hold back: nothing is billed."""
        if admitted.held and admitted.standing is not None:
            held, admitted.held = admitted.held, 0
            await self.ledger.submit(Release(admitted.standing, admitted.action_id, held, admitted.lease))

    async def reverse(self, events: tuple[Event, ...], reason: str) -> None:
        """Take booked events back with rows that name them: the application failed after they were booked."""
        for reversal in [self.ledger.submit(Reverse(event, reason)) for event in events]:
            await reversal
