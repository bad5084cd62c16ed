"""Watching the chain after a payment was closed: a transfer may vanish, and a refused one may appear.

Settled payments are looked at until their transfer is final: a chain that reorganises it away takes the
event with it (a reversal) and the payment is open again, for `headgate.service.recover` to resolve anew.
Failed ones are looked at until the chain's final time has passed their validity: whoever settles one of them
meanwhile has paid the seller, and that is booked (contract §4; failure case 10).

Settled payments are not looked up one by one: the logs of final blocks tell which transactions paid the
seller, hundreds at a time, and only what should be among them and is not is asked about by itself.

A node may lag behind the facilitator's, so "unused" undoes nothing until the node has seen blocks that make
it certain. Of several processes one watches, whichever asked first; chains that are private to a process
are watched by that process alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from headgate.model.errors import ChainError
from headgate.model.offer import address_bytes
from headgate.model.payment import PaymentRow, State, payment_text
from headgate.service.facilitators import CLOCK_SKEW_S, Sweep, Witness
from headgate.service.pay import Cashier
from headgate.service.recover import why_not
from headgate.store.operations import UndoSettlement
from headgate.x402.chain import Paid, Unused
from headgate.x402.check import chain_id

log = logging.getLogger("headgate.payments")
WATCHED_US = {
    State.SETTLED: 3_600_000_000,
    State.REOPENED: 3_600_000_000,
    State.FAILED: 86_400_000_000,
}
"""For how long after its last change a payment is watched, at most: chains are final sooner."""
FIRST_LOOK_US = 15_000_000
LONGEST_PAUSE_US = 300_000_000
VANISHED_AFTER_S = 120
"""Chain time after which a node that knows of no transfer is believed, where it calls nothing final."""
LOOKS_PER_PASS = 32
RESOLVE_EVERY_S = 2
LEADER = "watcher"
"""The fact in the store that names who watches: a slot and its epoch."""
_OVERLAP_US = 30_000_000  # commits of other processes may become visible a little late


@dataclass(slots=True)
class _Watched:
    """One payment that is looked at again; `changed_us` is when its row last changed."""

    changed_us: int
    next_us: int
    pause_us: int
    state: State
    network: str
    pay_to: bytes
    transaction: str
    owner: tuple[int, int]
    closed: bool = False


class Watcher:
    """Looks at closed payments again, for one process. Does nothing where no chain can be asked."""

    def __init__(self, cashier: Cashier, now_us: Callable[[], int]) -> None:
        self._cashier = cashier
        self._now_us = now_us
        self._watched: dict[bytes, _Watched] = {}
        self._read_to: dict[State, int] = {}
        self._sweeps: dict[str, Sweep] = {}

    async def run_once(self) -> int:
        """Look at what is due; how many payments were undone or found to be paid."""
        if not self._cashier.chains:
            return 0
        leads = await self._leads()
        await self._learn()
        now_us = self._now_us()
        due = {
            identifier: one
            for identifier, one in self._watched.items()
            if one.next_us <= now_us and not one.closed and self._may_ask(one, leads)
        }
        settled = {name: one for name, one in due.items() if one.state is not State.FAILED}
        to_ask: list[bytes] = []
        for network in {one.network for one in settled.values()}:
            to_ask += await self._confirm(
                network, {name: one for name, one in settled.items() if one.network == network}
            )
        # What was served and may be paid no more comes first: failed ones can be many, and cost nothing yet.
        failed = list(due.keys() - settled.keys())
        to_ask = to_ask[: LOOKS_PER_PASS - min(len(failed), LOOKS_PER_PASS // 4)] + failed
        looks = (self._look(each, self._watched[each]) for each in to_ask[:LOOKS_PER_PASS])
        return sum(await asyncio.gather(*looks))

    async def _confirm(self, network: str, settled: dict[bytes, _Watched]) -> list[bytes]:
        """Close the settled payments whose transfers are final; those that should be by now and are not.

        Where the logs cannot be had, those that are late are looked at one by one.
        """
        sweep = self._sweeps.setdefault(network, Sweep())
        # For all that are open, also where they are not due: blocks are read once, and after a failure only
        # new ones may be due.
        still_open = [
            one
            for one in self._watched.values()
            if one.network == network and one.state is not State.FAILED and not one.closed
        ]
        recipients = sorted({one.pay_to for one in still_open})
        since_s = min(one.changed_us for one in still_open) // 1_000_000 - CLOCK_SKEW_S
        try:
            await self._cashier.chains[network].confirmed(sweep, recipients, since_s)
        except ChainError as error:
            log.warning("whether payments on %s are final is not known: %s", network, error)
            late = [identifier for identifier, one in settled.items() if self._is_late(one)]
            for identifier in settled.keys() - set(late):
                settled[identifier].next_us = self._now_us() + FIRST_LOOK_US
            return late
        missing = []
        for identifier, one in settled.items():
            settled_s = one.changed_us // 1_000_000
            if one.transaction in sweep.transactions:
                one.closed = True
            elif sweep.final_s > settled_s + CLOCK_SKEW_S or self._is_late(one):
                missing.append(identifier)
            else:
                one.next_us = self._now_us() + FIRST_LOOK_US
        return missing

    def _is_late(self, one: _Watched) -> bool:
        """Whether it is looked at without waiting for finality: some chains call nothing final for long."""
        return self._now_us() - one.changed_us > 2 * VANISHED_AFTER_S * 1_000_000

    async def _leads(self) -> bool:
        """Whether this process is the one that watches: the first that asked, as long as it lives."""
        ledger = self._cashier.ledger
        mine = f"{ledger.slot} {ledger.epoch}"
        if await self._leader() == mine:
            return True
        async with ledger.driver.write() as tx:
            for (text,) in await tx.rows("meta_read", (LEADER,)):
                slot, epoch = map(int, str(text).split())
                state = await tx.rows("slot_state", (slot,))
                with ledger.driver.dead_slot(slot) as dead:
                    if slot != ledger.slot and not dead and state and state[0][0] == epoch:
                        return False
            await tx.run("meta_set", (LEADER, mine))
        return True

    async def _leader(self) -> str:
        rows = await self._cashier.ledger.driver.rows("meta_read", (LEADER,))
        return str(rows[0][0]) if rows else ""

    async def _learn(self) -> None:
        """Payments that were closed since the last pass; those that need no more looking are forgotten."""
        now_us = self._now_us()
        for state, watched_us in WATCHED_US.items():
            since_us = max(now_us - watched_us, self._read_to.get(state, 0) - _OVERLAP_US)
            rows = await self._cashier.ledger.driver.rows("payments_to_watch", (state.value, since_us))
            for identifier, changed_us, network, pay_to, tx, *owner in rows:
                known = self._watched.get(identifier)
                if known is None or known.changed_us < changed_us:
                    self._watched[bytes(identifier)] = _Watched(
                        *(changed_us, changed_us + FIRST_LOOK_US, FIRST_LOOK_US, state, network),
                        address_bytes(pay_to),
                        "" if tx is None else "0x" + tx.hex(),
                        (int(owner[0]), int(owner[1])),
                    )
                self._read_to[state] = max(self._read_to.get(state, 0), changed_us)
        oldest_us = now_us - max(WATCHED_US.values())
        kept_us = min(self._read_to.values(), default=0) - 2 * _OVERLAP_US
        self._watched = {
            identifier: one
            for identifier, one in self._watched.items()
            if one.changed_us > oldest_us and not (one.closed and one.changed_us < kept_us)
        }

    async def _look(self, identifier: bytes, one: _Watched) -> bool:
        cashier = self._cashier
        row = PaymentRow._make((await cashier.ledger.driver.rows("payment_read", (identifier,)))[0])
        witness = cashier.chains[row.network]
        if row.state not in WATCHED_US:
            one.closed = True
            return False
        one.pause_us = min(LONGEST_PAUSE_US, 2 * one.pause_us)
        one.next_us = self._now_us() + one.pause_us
        if self._now_us() - row.updated_us > WATCHED_US[State(row.state)]:
            one.closed = True
        try:
            if row.state == State.FAILED:
                return await self._look_at_failed(row, witness, one)
            return await self._look_at_settled(row, witness, one)
        except ChainError as error:
            log.warning("payment %s: the chain does not tell: %s", payment_text(row.id), error)
            return False

    def _may_ask(self, one: _Watched, leads: bool) -> bool:
        """Whether this process looks at it. What it does not look at now it may have to later."""
        witness, ledger = self._cashier.chains.get(one.network), self._cashier.ledger
        if witness is None or one.changed_us < witness.since_us:
            return False
        if one.state is not State.FAILED and not one.transaction:
            return False
        return one.owner == (ledger.slot, ledger.epoch) if witness.private else leads

    async def _look_at_failed(self, row: PaymentRow, witness: Witness, one: _Watched) -> bool:
        fate = await witness.fate(row)
        if isinstance(fate, Paid) and fate.value_micros >= row.charged_micros:
            log.warning("payment %s had failed and was settled since", payment_text(row.id))
            await self._cashier.book_found(row, fate, "found on chain after it had failed")
            return True
        one.closed = fate.never_after(row.valid_before_s) if isinstance(fate, Unused) else fate.final
        return False

    async def _look_at_settled(self, row: PaymentRow, witness: Witness, one: _Watched) -> bool:
        assert row.tx is not None
        fate = await witness.fate(row)
        settled_s = row.updated_us // 1_000_000
        if isinstance(fate, Paid):
            if fate.transaction == "0x" + row.tx.hex():
                one.closed = fate.final
                return False
            gone = f"reorganised: transaction {fate.transaction} paid instead"
        elif isinstance(fate, Unused):
            final_past = fate.head.final.time_s > settled_s
            if not final_past and fate.head.latest.time_s <= settled_s + VANISHED_AFTER_S:
                return False
            gone = "reorganised: the chain has no transfer of it any more"
        else:
            gone = f"reorganised: {why_not(fate)}"
        log.error("payment %s is not settled any more: %s", payment_text(row.id), gone)
        undo = UndoSettlement(row.id, row.tx, gone, chain_id(row.network))
        return await self._cashier.ledger.submit(undo) is not None


class Worker(Protocol):
    """Background work that is done a pass at a time."""

    async def run_once(self) -> int:
        """One pass; how much there was to do."""
        ...


async def for_ever(worker: Worker | None) -> None:
    """Do a worker's passes until cancelled; never ends by an error.

    Each in a task of its own: a facilitator or a node that hangs holds up nothing else.
    """
    while worker is not None:
        try:
            await worker.run_once()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("payments could not be resolved; it is tried again in %d s", RESOLVE_EVERY_S)
        await asyncio.sleep(RESOLVE_EVERY_S)
