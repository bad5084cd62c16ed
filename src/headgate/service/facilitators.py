"""Who settles payments and who can tell what became of them: a facilitator and perhaps a chain per network.

A `Witness` is a chain asked about payments in our terms. It exists where `rpc_url` is configured, and for the
embedded facilitator, whose chain is in this process. Before it is believed it must show that it is the chain
it is taken for: of a payment, a node on another chain would say "never made".
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from headgate.config import Config
from headgate.model.assets import Asset
from headgate.model.errors import ChainError, PaymentError
from headgate.model.payment import PaymentRow, payment_text
from headgate.x402 import wire
from headgate.x402.chain import Chain, Fate
from headgate.x402.facilitator import Facilitator, FacilitatorClient, GuardedFacilitator, InProcessFacilitator
from headgate.x402.rpc import HttpNode, InProcessNode

log = logging.getLogger("headgate.facilitator")
CLOCK_SKEW_S = 30
"""How far a chain's clock may be behind ours."""
ANSWER_WITHIN_S = 20
REMEMBERED = 100_000
SWEEP_BLOCKS = 500
"""Blocks that are read at once, at most: nodes bound what they answer, so fewer where one does not."""


@dataclass(slots=True)
class Sweep:
    """How far one network's final blocks were read for transfers to the seller, and what was found in them.

    `found` has how many transfers there are of a key (`transfer_key`), `claimed` which payments stand by
    them. Both are bounded: the oldest are forgotten first.
    """

    next_block: int | None = None
    span: int = SWEEP_BLOCKS
    final_s: int = 0
    found: dict[bytes, int] = field(default_factory=dict)
    claimed: dict[bytes, tuple[bytes, ...]] = field(default_factory=dict)

    def add(self, transfers: Sequence[bytes]) -> None:
        """Remember those of blocks that were read to their end."""
        for key in transfers:
            self.found[key] = self.found.get(key, 0) + 1
        while len(self.found) > REMEMBERED:
            oldest = next(iter(self.found))
            del self.found[oldest]
            self.claimed.pop(oldest, None)

    def claim(self, payment: bytes, key: bytes) -> tuple[bytes, ...]:
        """The payments that stand by a transfer, this one among them; none if there is no such transfer.

        More than there are transfers: each of them is to be asked about by itself.
        """
        if key not in self.found:
            return ()
        claimed = self.claimed.get(key, ())
        if payment not in claimed:
            claimed = self.claimed[key] = (*claimed, payment)
        return claimed


class Witness:
    """One network's chain. `since_us`: it knows nothing of what was settled before (0: it knows all).

    `private`: a chain of this process alone, which knows nothing of what others settled.
    """

    def __init__(self, chain: Chain, asset: Asset, *, since_us: int = 0, private: bool = False) -> None:
        self._chain = chain
        self._asset = asset
        self._known = False
        self.since_us = since_us
        self.private = private

    async def fate(self, row: PaymentRow, now_us: int) -> Fate:
        """What became of a payment whose settlement was intended; `now_us` by the clock that claimed it.

        Raises:
            ChainError: it cannot be told now.
        """
        if row.authorization_json is None:
            raise ChainError(f"nothing of payment {payment_text(row.id)} was ever to be settled")
        try:
            signed = wire.parse_kept(row.authorization_json)
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._introduce()
                # Only what was transferred since it was claimed here: an authorization is public once it is
                # on chain, and whoever shows it again has paid somebody else's request with it.
                return await self._chain.fate(
                    signed,
                    row.occurred_us // 1_000_000 - CLOCK_SKEW_S,
                    now_s=now_us // 1_000_000,
                    ours=None if row.tx is None else "0x" + row.tx.hex(),
                )
        except TimeoutError as error:
            raise ChainError(f"the node for {row.network} takes too long to answer") from error
        except PaymentError as error:
            raise ChainError(f"payment {payment_text(row.id)} cannot be read back: {error}") from error

    async def confirmed(self, sweep: Sweep, recipients: Sequence[bytes], since_s: int) -> None:
        """Read on to the chain's final block which transfers paid the recipients, made from `since_s` on.

        One question for hundreds of blocks; for fewer as long as the node does not answer, because nodes
        bound the logs of one answer (10,000 are common).

        Raises:
            ChainError: it cannot be told now; `sweep` stands where it got to.
        """
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._introduce()
                head = await self._chain.head()
                first = sweep.next_block
                if first is None:
                    first = sweep.next_block = await self._chain.block_before(since_s, head.latest)
                final = head.final.number
                while first <= final:
                    last = min(first + sweep.span - 1, final)
                    try:
                        asked = self._chain.transfers_to(self._asset, recipients, first, last)
                        transfers = [each async for each in asked]
                    except ChainError:
                        if first == last:
                            raise
                        sweep.span = max(1, (last - first + 1) // 4)
                    else:
                        sweep.add(transfers)
                        sweep.next_block = first = last + 1
                        sweep.span = min(SWEEP_BLOCKS, 2 * sweep.span)
        except TimeoutError as error:
            sweep.span = max(1, sweep.span // 4)
            raise ChainError(f"the node for {self._asset.network} takes too long to answer") from error
        sweep.next_block = max(first, final + 1)
        sweep.final_s = head.final.time_s

    async def _introduce(self) -> None:
        if not self._known:
            misfit = await self._chain.misfits(self._asset)
            if misfit is not None:
                raise ChainError(f"{misfit}; correct rpc_url")
            self._known = True

    async def close(self) -> None:
        """Let go of the node."""
        await self._chain.close()


class Takers(NamedTuple):
    """Facilitators and witnesses by network; not every network has a witness."""

    facilitators: Mapping[str, GuardedFacilitator]
    chains: Mapping[str, Witness]


def make_takers(
    config: Config, now_us: Callable[[], int], given: Mapping[str, Facilitator] | None = None
) -> Takers:
    """Whoever the configuration names, or is given in its stead; networks of one share its guard."""
    made: dict[str, GuardedFacilitator] = {}
    chains = make_chains(config)
    if given is not None:
        guards = {each: _guarded(each, now_us) for each in given.values()}
        return Takers({network: guards[each] for network, each in given.items()}, chains)
    embedded: tuple[GuardedFacilitator, Chain] | None = None
    by_url: dict[tuple[str, tuple[tuple[str, str], ...]], GuardedFacilitator] = {}
    for network in () if config.x402 is None else config.x402.networks:
        if network.embedded:
            embedded = embedded or _embedded(now_us)
            made[network.caip2], chain = embedded
            chains[network.caip2] = Witness(chain, network.asset, since_us=now_us(), private=True)
            continue
        which = (network.facilitator_url, tuple(sorted(network.facilitator_headers.items())))
        if which not in by_url:
            client = FacilitatorClient(network.facilitator_url, headers=network.facilitator_headers)
            by_url[which] = GuardedFacilitator(client, now_us)
        made[network.caip2] = by_url[which]
    return Takers(made, chains)


def _guarded(facilitator: Facilitator, now_us: Callable[[], int]) -> GuardedFacilitator:
    if isinstance(facilitator, GuardedFacilitator):
        return facilitator
    return GuardedFacilitator(facilitator, now_us)


def make_chains(config: Config) -> dict[str, Witness]:
    """A witness for each network with an `rpc_url`."""
    networks = () if config.x402 is None else config.x402.networks
    return {
        network.caip2: Witness(Chain(HttpNode(network.rpc_url)), network.asset)
        for network in networks
        if network.rpc_url is not None
    }


def _embedded(now_us: Callable[[], int]) -> tuple[GuardedFacilitator, Chain]:
    from headgate.devnet import EmbeddedFacilitator  # noqa: PLC0415  needs the `demo` extra
    from headgate.devnet.rpc import Rpc  # noqa: PLC0415

    log.warning("the embedded facilitator takes play money: nothing it settles is worth anything")
    running: Any = EmbeddedFacilitator()
    guarded = GuardedFacilitator(InProcessFacilitator(running, owned=True), now_us)
    return guarded, Chain(InProcessNode(Rpc(running.chain).answer))
