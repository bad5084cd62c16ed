"""Going on from where a dead process, or a lost answer, left a payment (contract §4, last row of the table).

A payment that owes nothing is released. One whose settlement was intended is settled again: a facilitator
settles an authorization once, however often it is asked. A refusal proves nothing here, since the first
attempt may have gone through; the payment stays `unknown` and is asked about with growing pauses until it is
settled, or until it can no longer be.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import msgspec

from headgate.model.errors import FacilitatorUncertain, FacilitatorUnreachable
from headgate.model.payment import PaymentRow, State, payment_text
from headgate.service.pay import Cashier
from headgate.store.operations import MovePayment
from headgate.x402.answers import Settled

log = logging.getLogger("headgate.payments")
FIRST_PAUSE_US = 1_000_000
LONGEST_PAUSE_US = 60_000_000
FINAL_AFTER_S = 3600
EXPIRED = "authorization expired unsettled"


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
        still_open = 0
        for identifier, state in await ledger.driver.rows("payments_to_resume", (ledger.slot,)):
            if self._cashier.is_working(identifier):
                continue
            still_open += 1
            if self._now_us() < self._pauses.get(identifier, (0, 0))[0]:
                continue
            if await self._resume(identifier, State(state)):
                still_open -= 1
                self._pauses.pop(identifier, None)
            else:
                pause = min(LONGEST_PAUSE_US, 2 * self._pauses.get(identifier, (0, FIRST_PAUSE_US // 2))[1])
                self._pauses[identifier] = (self._now_us() + pause, pause)
        return still_open

    async def _resume(self, identifier: bytes, state: State) -> bool:
        """One try for one payment; True once it is resolved."""
        ledger = self._cashier.ledger
        if state in (State.CLAIMED, State.VERIFIED):
            await ledger.submit(
                MovePayment(identifier, state, State.RELEASED, "its process ended before the work")
            )
            return True
        row = PaymentRow._make((await ledger.driver.rows("payment_read", (identifier,)))[0])
        if row.charged_micros == 0:
            await self._cashier.book(row, None, "nothing was used: nothing is settled")
            return True
        facilitator = self._cashier.facilitators.get(row.network)
        if facilitator is None or row.authorization_json is None or row.requirements_json is None:
            log.error(
                "payment %s cannot be resolved: its network %s is not configured any more",
                *(payment_text(identifier), row.network),
            )
            return False
        payload = msgspec.json.decode(row.authorization_json)
        requirements = msgspec.json.decode(row.requirements_json)
        try:
            outcome = await facilitator.settle(payload, requirements)
        except (FacilitatorUnreachable, FacilitatorUncertain) as error:
            log.warning("payment %s is still unknown: %s", payment_text(identifier), error)
            return False
        if isinstance(outcome, Settled):
            tx = bytes.fromhex(outcome.transaction.removeprefix("0x"))
            await self._cashier.book(row, tx, "resolved by asking the facilitator again")
            return True
        return await self._expired(row, state)

    async def _expired(self, row: PaymentRow, state: State) -> bool:
        """Final only when the authorization cannot be settled any more."""
        if self._now_us() // 1_000_000 < row.valid_before_s + FINAL_AFTER_S:
            if state is not State.UNKNOWN:
                await self._cashier.ledger.submit(
                    MovePayment(
                        row.id, state, State.UNKNOWN, "refused when asked again: it may have settled before"
                    )
                )
            return False
        await self._cashier.ledger.submit(MovePayment(row.id, state, State.FAILED, EXPIRED))
        return True
