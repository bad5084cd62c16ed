"""Going on from where a dead process, or a lost answer, left a payment (contract §4, last row of the table).

A payment that owes nothing is released. For one whose settlement was intended the chain is asked first, where
there is one to ask; what it shows is final: paid is booked with that transaction, an authorization that the
payer canceled or that paid somebody else has failed. While it is unused the facilitator is asked to settle
again, which settles once, however often it is asked. A refusal proves nothing here, since the first attempt
may have gone through; the payment is asked about with growing pauses until it is settled, or until the
chain's own final time says that it can no longer be. Without a chain to ask nothing ever says that:
facilitators answer "expired" also of what was paid before it expired, and whoever is told that it failed
signs again and pays twice. Such a payment stays unknown until `rpc_url` is set or the seller resolves it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import msgspec

from headgate.model.errors import ChainError, FacilitatorUncertain, FacilitatorUnreachable
from headgate.model.payment import RESUMED, PaymentRow, State, payment_text
from headgate.service.pay import Cashier, says_used, why_nothing
from headgate.store.operations import MovePayment
from headgate.x402.answers import Settled, Unverified
from headgate.x402.chain import Canceled, Fate, Paid, UsedElsewhere

log = logging.getLogger("headgate.payments")
FIRST_PAUSE_US = 1_000_000
LONGEST_PAUSE_US = 60_000_000
EXPIRED_PAUSE_US = 600_000_000
"""The longest pause for what expired an hour ago: a chain is final by then, or there is none to ask."""
AT_ONCE = 16
UNDERPAID = "underpaid_on_chain"
EXPIRED = "authorization_expired"


class Recovery:
    """Resumes the open payments of one process's slot. One pass at a time; passes are cheap when idle."""

    def __init__(self, cashier: Cashier, now_us: Callable[[], int]) -> None:
        self._cashier = cashier
        self._now_us = now_us
        self._pauses: dict[bytes, tuple[int, int]] = {}  # payment → (next try, pause); a restart asks at once

    async def run_once(self) -> int:
        """Resume what is due; how many payments are still open and not at work here."""
        ledger = self._cashier.ledger
        await ledger.recover_dead()
        found = await ledger.driver.rows("payments_to_resume", (ledger.slot,))
        left = [
            (bytes(identifier), State(state), int(valid_before_s))
            for identifier, state, valid_before_s in found
            if not self._cashier.is_working(identifier)
        ]
        now_us = self._now_us()
        due = [each for each in left if self._pauses.get(each[0], (0, 0))[0] <= now_us]
        still_open = len(left)
        for first in range(0, len(due), AT_ONCE):
            some = due[first : first + AT_ONCE]
            found_out = await asyncio.gather(*(self._try(*each) for each in some), return_exceptions=True)
            for outcome in found_out:
                if isinstance(outcome, Exception):  # one of them must not keep the others from being resolved
                    log.error("a payment could not be resolved; it is tried again", exc_info=outcome)
            still_open -= sum(outcome is True for outcome in found_out)
        return still_open

    async def _try(self, identifier: bytes, state: State, valid_before_s: int) -> bool:
        """One try for one payment; True once it is resolved, otherwise the next one waits longer."""
        if self._cashier.is_working(identifier):  # claimed again while this pass was at others
            return True
        if await self._resume(identifier, state):
            self._pauses.pop(identifier, None)
            return True
        expired_us = self._now_us() - 1_000_000 * valid_before_s
        longest_us = EXPIRED_PAUSE_US if expired_us > 3_600_000_000 else LONGEST_PAUSE_US
        pause = min(longest_us, 2 * self._pauses.get(identifier, (0, FIRST_PAUSE_US // 2))[1])
        self._pauses[identifier] = (self._now_us() + pause, pause)
        return False

    async def _resume(self, identifier: bytes, state: State) -> bool:
        cashier = self._cashier
        if state in (State.CLAIMED, State.VERIFIED):
            note = "its process ended before the work"
            return await self._move(identifier, state, State.RELEASED, note)
        if state is State.SERVED and identifier in cashier.unowed:
            released = await self._move(identifier, state, State.RELEASED, cashier.unowed[identifier])
            cashier.unowed.pop(identifier, None)  # only now: forgotten before, it would be settled
            return released
        cashier.unowed.pop(identifier, None)
        if state is State.REPEATING:
            return await self._move(identifier, state, State.REOPENED, "its process ended, not served again")
        if state is State.SERVED and identifier in cashier.unwritten:
            await cashier.unwritten[identifier]()
        cashier.unwritten.pop(identifier, None)
        return await self._resolve(identifier)

    async def _resolve(self, identifier: bytes) -> bool:
        """A payment whose settlement is due, or may have been asked for."""
        cashier = self._cashier
        row = PaymentRow._make((await cashier.ledger.driver.rows("payment_read", (identifier,)))[0])
        state = State(row.state)
        if state not in RESUMED:  # somebody else has resolved it, or is at it
            return True
        if row.charged_micros == 0:
            await cashier.book(row, None, why_nothing(row))
            return True
        proven = cashier.proven.get(identifier)
        if proven is not None:
            await cashier.book(row, proven, "settled before; it could not be written down then")
            return True
        fate = await self._fate(row)
        if isinstance(fate, Paid):
            if fate.value_micros < row.charged_micros:
                return await self._move(identifier, state, State.FAILED, UNDERPAID)
            await cashier.book_found(row, fate, "resolved by asking the chain")
            return True
        if isinstance(fate, Canceled | UsedElsewhere):
            return await self._move(identifier, state, State.FAILED, why_not(fate))
        if fate is not None and fate.never_after(row.valid_before_s):
            return await self._move(identifier, state, State.FAILED, EXPIRED)
        if fate is not None and fate.head.latest.time_s > row.valid_before_s:
            return await self._wait(row, state, "expired; waiting until the chain is final past that")
        return await self._settle_again(row, state)

    async def _fate(self, row: PaymentRow) -> Fate | None:
        witness = self._cashier.chains.get(row.network)
        if witness is None:
            return None
        try:
            return await witness.fate(row, self._now_us())
        except ChainError as error:
            log.warning("payment %s: the chain does not tell: %s", payment_text(row.id), error)
            return None

    async def _settle_again(self, row: PaymentRow, state: State) -> bool:
        facilitator = self._cashier.facilitators.get(row.network)
        if facilitator is None or row.authorization_json is None or row.requirements_json is None:
            log.error(
                "payment %s cannot be resolved: its network %s is not configured any more",
                *(payment_text(row.id), row.network),
            )
            return False
        payload = msgspec.json.decode(row.authorization_json)
        requirements = msgspec.json.decode(row.requirements_json)
        try:
            # Asked again and again: how that ends says nothing about payments that are new.
            outcome = await facilitator.unguarded.settle(payload, requirements)
        except (FacilitatorUnreachable, FacilitatorUncertain) as error:
            log.warning("payment %s is still unknown: %s", payment_text(row.id), error)
            return await self._wait(row, state, "the facilitator does not say what became of it")
        if isinstance(outcome, Settled):
            tx = bytes.fromhex(outcome.transaction.removeprefix("0x"))
            self._cashier.proven[row.id] = tx
            await self._cashier.book(row, tx, "resolved by asking the facilitator again")
            return True
        reason = getattr(outcome, "reason", "")
        if says_used(reason):
            log.error(
                "payment %s: the facilitator says %s and names no transfer: it may be paid; set `rpc_url` so "
                "that the chain can be asked, or tell with `headgate payments resolve`",
                *(payment_text(row.id), reason),
            )
        if isinstance(outcome, Unverified):
            log.error(
                "payment %s: the facilitator says that it is settled, and not as agreed: %s",
                *(payment_text(row.id), outcome.what),
            )
        if row.network not in self._cashier.chains and self._now_us() // 1_000_000 > row.valid_before_s:
            log.error(
                "payment %s expired and may have been paid before: set `rpc_url` for %s and restart, so that "
                "the chain can be asked, or tell with `headgate payments resolve %s`",
                *(payment_text(row.id), row.network, payment_text(row.id)),
            )
        return await self._wait(row, state, "refused when asked again: it may have settled before")

    async def _wait(self, row: PaymentRow, state: State, note: str) -> bool:
        if state is not State.UNKNOWN:
            await self._move(row.id, state, State.UNKNOWN, note)
        return False

    async def _move(self, identifier: bytes, since: State, to: State, note: str) -> bool:
        await self._cashier.ledger.submit(MovePayment(identifier, since, to, note))
        return True


def why_not(fate: Canceled | UsedElsewhere) -> str:
    """The reason on a payment whose authorization can never pay us."""
    return "authorization_canceled" if isinstance(fate, Canceled) else "authorization_used_elsewhere"
