"""Where payments are taken: what each network's facilitator supports, and what was offered there before.

`/supported` is asked in the background and kept; a facilitator that is not ready delays the offers that
need it and nothing else (failure case 14). What was offered is kept in the store, so that a buyer who was
quoted the old `pay_to` before a restart can still pay it while the quote lives (contract §4, step 2).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import NamedTuple

import msgspec

from headgate.config import X402Config
from headgate.model.catalog import Catalog
from headgate.model.errors import FacilitatorUnreachable
from headgate.model.offer import NetworkOffer, Scheme
from headgate.store.driver import Driver
from headgate.x402.facilitator import GuardedFacilitator
from headgate.x402.offer import EIP2612_GAS_SPONSORING, sells_fixed_prices

log = logging.getLogger("headgate.facilitator")
FACT = "offered_networks"
ASK_EVERY_US = 300_000_000
ASK_AGAIN_US = 5_000_000

Offered = tuple[NetworkOffer, ...]


class _Kept(NamedTuple):
    """One network as it was offered from `since_us` on."""

    since_us: int
    network: str
    pay_to: str
    max_timeout_seconds: int
    facilitator_address: str | None
    gas_sponsored: bool = False
    takes_exact: bool = True


class Networks:
    """The networks of one process, with the offers' recent history; `history` is oldest first.

    `catalog` tells what is sold at an instant: what a facilitator does not settle matters only to that.
    """

    def __init__(
        self,
        settings: X402Config,
        facilitators: Mapping[str, GuardedFacilitator],
        driver: Driver,
        now_us: Callable[[], int],
        catalog: Callable[[int], Catalog],
    ) -> None:
        self._settings = settings
        self._facilitators = facilitators
        self._driver = driver
        self._now_us = now_us
        self._catalog = catalog
        self._next_us = 0
        self._addresses: dict[str, str | None] = {}
        self._sponsored: dict[str, bool] = {}
        self._without_exact: set[str] = set()  # whose facilitator says that it does not settle it there
        self.history: list[tuple[int, Offered]] = []

    async def open(self) -> None:
        """Read what was offered before this start, and put today's offers behind it."""
        assets = {network.caip2: network.asset for network in self._settings.networks}
        kept: dict[int, list[NetworkOffer]] = {}
        for (text,) in await self._driver.rows("meta_read", (FACT,)):
            for one in msgspec.json.decode(text, type=list[_Kept]):
                if one.network in assets:
                    offer = NetworkOffer(
                        *(assets[one.network], one.pay_to, one.max_timeout_seconds),
                        *(one.facilitator_address, one.gas_sponsored, one.takes_exact),
                    )
                    kept.setdefault(one.since_us, []).append(offer)
                    self._addresses[one.network] = one.facilitator_address
                    self._sponsored[one.network] = one.gas_sponsored
                    (self._without_exact.discard if one.takes_exact else self._without_exact.add)(one.network)
        self.history = [(since_us, tuple(offers)) for since_us, offers in sorted(kept.items())]
        await self._offer_now()

    async def refresh(self) -> bool:
        """Ask the facilitators, when it is time to; whether the offers changed."""
        now_us = self._now_us()
        if now_us < self._next_us:
            return False
        self._next_us = now_us + ASK_AGAIN_US  # unless all goes well, whatever goes wrong
        all_known = True
        answers = await asyncio.gather(  # at once: those that hang do not add up
            *(facilitator.supported() for facilitator in self._facilitators.values()), return_exceptions=True
        )
        for network, supported in zip(self._facilitators, answers, strict=True):
            if isinstance(supported, FacilitatorUnreachable):
                log.warning("what the facilitator for %s supports is not known: %s", network, supported)
                all_known = False
                continue
            if isinstance(supported, BaseException):
                raise supported
            if supported.takes(Scheme.EXACT, network):
                self._without_exact.discard(network)
            else:
                self._without_exact.add(network)
                if sells_fixed_prices(self._catalog(now_us), network):
                    log.error(
                        "the facilitator for %s does not settle `exact` there: fixed prices are not offered",
                        network,
                    )
                    all_known = False
            self._addresses[network] = supported.upto_address(network)
            self._sponsored[network] = EIP2612_GAS_SPONSORING in supported.extensions
        if all_known:
            self._next_us = now_us + ASK_EVERY_US
        return await self._offer_now()

    async def _offer_now(self) -> bool:
        """Put today's offers into the history, if they are other than the last."""
        now_us = self._now_us()
        today = tuple(
            replace(
                offer,
                facilitator_address=self._addresses.get(offer.asset.network),
                gas_sponsored=self._sponsored.get(offer.asset.network, False),
                takes_exact=offer.asset.network not in self._without_exact,
            )
            for offer in self._settings.offers()
        )
        if self.history and self.history[-1][1] == today:
            return False
        alive_us = now_us - self._settings.quote_ttl_us
        ended = [later for later, _ in self.history[1:]] + [now_us]
        self.history = [
            entry for entry, end_us in zip(self.history, ended, strict=False) if end_us > alive_us
        ]
        self.history.append((now_us, today))
        kept = [
            _Kept(
                *(since_us, each.asset.network, each.pay_to, each.max_timeout_seconds),
                *(each.facilitator_address, each.gas_sponsored, each.takes_exact),
            )
            for since_us, offers in self.history
            for each in offers
        ]
        async with self._driver.write() as tx:
            await tx.run("meta_set", (FACT, msgspec.json.encode(kept).decode()))
        return True
