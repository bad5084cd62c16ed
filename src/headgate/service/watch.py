"""Watching the chain after a payment was closed: a transfer may vanish, and a refused one may appear.

Settled payments are looked at until their transfer is final: a chain that reorganises it away takes the
event with it (a reversal) and the payment is open again, for `headgate.service.recover` to resolve anew.
Failed ones are looked at until the chain's final time has passed their validity: whoever settles one of them
meanwhile has paid the seller, and that is booked (contract §4; failure case 10).

Settled payments are not looked up one by one: the logs of final blocks tell which transfers paid the seller,
hundreds at a time. Only what should be among them, by its transaction, payer and amount, and is not, or what
shares its transfer with another payment, is asked about by itself. A facilitator's word alone closes nothing.

A node may lag behind the facilitator's, so "unused" undoes nothing until the node has seen blocks that make
it certain. Of several processes one watches, whichever asked first; chains that are private to a process
are watched by that process alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from headgate.model.errors import ChainError
from headgate.model.offer import address_bytes
from headgate.model.payment import PaymentRow, State, payment_text
from headgate.service.facilitators import CLOCK_SKEW_S, Sweep, Witness
from headgate.service.pay import Cashier
from headgate.service.recover import why_not
from headgate.store.operations import UndoSettlement
from headgate.x402.chain import Paid, Unused, transfer_key
from headgate.x402.check import chain_id

log = logging.getLogger("headgate.payments")
WATCHED_US = {
    State.SETTLED: 86_400_000_000,
    State.REOPENED: 86_400_000_000,
    State.FAILED: 3 * 86_400_000_000,
}
"""For how long after its last change a payment is watched, at most. Chains are final sooner: the day is for
nodes that do not answer. The authorization of a failed one is valid for two days at the longest."""
FIRST_LOOK_US = 15_000_000
LONGEST_PAUSE_US = 300_000_000
VANISHED_AFTER_S = 120
"""Chain time after which a node that knows of no transfer is believed, where it calls nothing final."""
LOOKS_PER_PASS = 32
RESOLVE_EVERY_S = 2
LEADER = "watcher"
"""The fact in the store that names who watches: a slot and its epoch."""
SEEN_FINAL = "watched to"
"""The fact in the store that says until when all that was settled was seen final: a restart begins there."""
_SAY_EVERY_US = 60_000_000
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
    transfer: bytes | None
    closed: bool = False
    alone: bool = False
    """It shares its transfer with another payment, so it is asked about by itself."""


class Watcher:
    """Looks at closed payments again, for one process. Does nothing where no chain can be asked."""

    def __init__(self, cashier: Cashier, now_us: Callable[[], int]) -> None:
        self._cashier = cashier
        self._now_us = now_us
        self._watched: dict[bytes, _Watched] = {}
        self._read_to: dict[State, int] = {}
        self._sweeps: dict[str, Sweep] = {}
        self._said_us = 0
        self._led = False

    async def run_once(self) -> int:
        """Look at what is due; how many payments were undone or found to be paid."""
        if not self._cashier.chains:
            return 0
        leads = await self._leads()
        if leads != self._led:  # what another watched meanwhile, or will from now on, is not known here
            self._led, self._watched, self._read_to, self._sweeps = leads, {}, {}, {}
        if not leads and not any(witness.private for witness in self._cashier.chains.values()):
            return 0
        await self._learn()
        now_us = self._now_us()
        due = {
            identifier: one
            for identifier, one in self._watched.items()
            if one.next_us <= now_us and not one.closed
        }
        settled = {name: one for name, one in due.items() if one.state is not State.FAILED}
        to_ask: list[bytes] = []
        for network in {one.network for one in settled.values()}:
            to_ask += await self._confirm(
                network, {name: one for name, one in settled.items() if one.network == network}
            )
        # What was served and may be paid no more comes first: failed ones can be many, and cost nothing yet.
        failed = list(due.keys() - settled.keys())
        to_ask = list(dict.fromkeys(to_ask))
        to_ask = to_ask[: LOOKS_PER_PASS - min(len(failed), LOOKS_PER_PASS // 4)] + failed
        looks = (self._look(each, self._watched[each]) for each in to_ask[:LOOKS_PER_PASS])
        undone = sum(await asyncio.gather(*looks))
        if leads:
            await self._say_seen_final()
        return undone

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
            assert one.transfer is not None  # or it would not be asked about
            claimed = () if one.alone else sweep.claim(identifier, one.transfer)
            if claimed and len(claimed) <= sweep.found[one.transfer]:
                one.closed = True
            elif claimed:
                missing += self._alone(claimed)
            elif one.alone or sweep.final_s > settled_s + CLOCK_SKEW_S or self._is_late(one):
                missing.append(identifier)
            else:
                one.next_us = self._now_us() + FIRST_LOOK_US
        return missing

    def _alone(self, payments: Sequence[bytes]) -> list[bytes]:
        """Payments that stand by fewer transfers than they are: logs do not tell which of them are paid."""
        watched = [each for each in payments if each in self._watched]
        for each in watched:
            self._watched[each].alone, self._watched[each].closed = True, False
        return watched

    async def _say_seen_final(self) -> None:
        """Write down, now and then, how far everything settled was seen final."""
        now_us = self._now_us()
        if 0 <= now_us - self._said_us < _SAY_EVERY_US:
            return
        waiting = (
            one.changed_us
            for one in self._watched.values()
            if one.state is not State.FAILED and not one.closed
        )
        until_us = min(now_us, min(waiting, default=self._read_to.get(State.SETTLED, 0)))
        async with self._cashier.ledger.driver.write() as tx:
            await tx.run("meta_set", (SEEN_FINAL, str(until_us)))
        self._said_us = now_us

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
        if not self._read_to:
            seen = await self._cashier.ledger.driver.rows("meta_read", (SEEN_FINAL,))
            seen_us = int(seen[0][0]) if seen else 0
            if seen_us > now_us:  # the clock was set back: how far was seen by this one is not known
                seen_us = 0
            self._read_to = {State.SETTLED: seen_us, State.REOPENED: seen_us}
        for state, watched_us in WATCHED_US.items():
            # A clock that is set back reads on from now, not from when it will be as late again.
            self._read_to[state] = min(self._read_to.get(state, 0), now_us)
            since_us = max(now_us - watched_us, self._read_to[state] - _OVERLAP_US)
            rows = await self._cashier.ledger.driver.rows("payments_to_watch", (state.value, since_us))
            for identifier, changed_us, network, pay_to, tx, payer, micros, *owner in rows:
                self._read_to[state] = max(self._read_to.get(state, 0), min(changed_us, now_us))
                known = self._watched.get(identifier)
                new = known is None or known.changed_us < changed_us
                if new and self._is_ours(network, changed_us, (int(owner[0]), int(owner[1]))):
                    self._watched[bytes(identifier)] = _Watched(
                        *(changed_us, changed_us + FIRST_LOOK_US, FIRST_LOOK_US, state, network),
                        address_bytes(pay_to),
                        None if tx is None else transfer_key(tx, payer, micros),
                        closed=tx is None and state is not State.FAILED,  # nothing was to be transferred
                    )
        # What is closed is kept for as long as it may be read again.
        read_us = {state: read_us - 2 * _OVERLAP_US for state, read_us in self._read_to.items()}
        self._watched = {
            identifier: one
            for identifier, one in self._watched.items()
            if not one.closed or one.changed_us >= read_us[one.state]
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
        look = self._look_at_failed if row.state == State.FAILED else self._look_at_settled
        try:
            if await look(row, witness, one):
                return True
        except ChainError as error:
            log.warning("payment %s: the chain does not tell: %s", payment_text(row.id), error)
        if not one.closed and self._now_us() - row.updated_us > WATCHED_US[State(row.state)]:
            log.error("payment %s was not seen final in time, and is watched no more", payment_text(row.id))
            one.closed = True
        return False

    def _is_ours(self, network: str, changed_us: int, owner: tuple[int, int]) -> bool:
        """Whether this process looks at payments on that network, claimed by that slot and epoch."""
        witness, ledger = self._cashier.chains.get(network), self._cashier.ledger
        if witness is None or changed_us < witness.since_us:
            return False
        return owner == (ledger.slot, ledger.epoch) if witness.private else self._led

    async def _look_at_failed(self, row: PaymentRow, witness: Witness, one: _Watched) -> bool:
        fate = await witness.fate(row, self._now_us())
        if isinstance(fate, Paid) and fate.value_micros >= row.charged_micros:
            log.warning("payment %s had failed and was settled since", payment_text(row.id))
            await self._cashier.book_found(row, fate, "found on chain after it had failed")
            return True
        one.closed = fate.never_after(row.valid_before_s) if isinstance(fate, Unused) else fate.final
        return False

    async def _look_at_settled(self, row: PaymentRow, witness: Witness, one: _Watched) -> bool:
        assert row.tx is not None
        fate = await witness.fate(row, self._now_us())
        settled_s = row.updated_us // 1_000_000
        if isinstance(fate, Paid):
            if fate.transaction != "0x" + row.tx.hex():
                gone = f"reorganised: transaction {fate.transaction} paid instead"
            elif fate.value_micros != row.charged_micros:
                gone = f"transaction {fate.transaction} moved {fate.value_micros} micro-dollars of it"
            else:
                one.closed = fate.final
                return False
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
