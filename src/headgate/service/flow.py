"""A payment up to a ceiling whose answer flows: the intent is on disk before its first byte, and grows.

Until the stream ends the intent says what would be settled if nothing more were heard of it, so that recovery
settles a dead process's stream like any other payment that was served (contract §5). A stream leaves nothing
to serve again: an answer that was not kept whole is replaced by one that says so.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from headgate.model.booking import Billed
from headgate.model.errors import StoreError
from headgate.model.payment import PaymentRow, State
from headgate.service.pay import Cashier, tell_written_off
from headgate.service.paying import Declined, OpenPayment, Receipt, Why
from headgate.store.journal import move
from headgate.store.operations import IntendPayment, KeptAnswer, MovePayment
from headgate.x402 import offer as offers
from headgate.x402 import wire

NOTE_EVERY_US = 3_000_000
CUT_BEFORE_S = 10
_LONG_US = 366 * 86_400_000_000


class _Amounts(NamedTuple):
    """What a use comes to, within the ceiling."""

    units: int
    written_off: int
    micros: int


class Flow:
    """The payment of one running stream. `so_far` tells what to settle if it ended now."""

    def __init__(self, cashier: Cashier, payment: OpenPayment, so_far: Callable[[], Billed]) -> None:
        self._cashier = cashier
        self._payment = payment
        self._so_far = so_far
        self._noted_us = 0

    @property
    def due(self) -> bool:
        """Whether its measure should be written down anew."""
        return not 0 <= self._cashier.now_us() - self._noted_us < NOTE_EVERY_US

    @property
    def left_s(self) -> int:
        """Seconds until the payment must be settled, whatever is still to come; 0 or less: now."""
        expires_in_s = self._payment.signed.valid_before_s - self._cashier.now_us() // 1_000_000
        return expires_in_s - CUT_BEFORE_S

    def _amounts(self, billed: Billed) -> _Amounts:
        return _Amounts(*billed, self._payment.action.x402_micros(billed.units))

    async def begin(self, instead: KeptAnswer) -> bool:
        """Write the intent; `instead` is what a repeated payment gets unless the answer is kept at its end.

        Raises:
            StoreError: nothing was written; the stream must not begin.
        """
        payment, now_us = self._payment, self._cashier.now_us()
        amounts = self._amounts(self._so_far())
        intend = IntendPayment(
            payment=payment.id,
            state=State.SERVED,
            body_digest=None,
            charged_micros=amounts.micros,
            units=amounts.units,
            list_micros=amounts.micros,
            written_off=amounts.written_off,
            authorization_json=wire.encode_json(payment.payload),
            requirements_json=self._requirements(amounts),
            answer=instead._replace(kept_until_us=now_us + _LONG_US),
            steps=(*payment.steps, (now_us, State.SERVED, "its answer flows")),
        )
        written: bool = await self._cashier.ledger.submit(intend)
        return written

    async def note(self) -> None:
        """Write down what was used so far."""
        self._noted_us = self._cashier.now_us()
        async with self._cashier.ledger.driver.write() as tx:
            await tx.run("payment_flows", self._row(self._amounts(self._so_far()), None))

    async def end(
        self, billed: Billed, answer: KeptAnswer | None, body_digest: bytes | None
    ) -> Receipt | Declined:
        """Settle what was used. Goes on to its end even where the request is cancelled meanwhile.

        Raises:
            StoreError: what becomes of it is recovery's to find out.
        """
        tell_written_off(self._payment.action, billed)
        return await self._cashier.to_its_end(self._end(self._amounts(billed), answer, body_digest))

    async def _end(
        self, amounts: _Amounts, answer: KeptAnswer | None, body_digest: bytes | None
    ) -> Receipt | Declined:
        cashier, payment = self._cashier, self._payment
        state = State.SETTLING if amounts.micros else State.SERVED
        try:
            try:
                if not await self._write_end(amounts, answer, body_digest):
                    return Declined(Why.PENDING, "payment_pending")
            except StoreError:  # what stands there would be settled: often the ceiling
                cashier.unwritten[payment.id] = partial(self._write_end, amounts, answer, body_digest)
                raise
            row: PaymentRow = payment.row._replace(
                state=state.value,
                charged_micros=amounts.micros,
                units=amounts.units,
                list_micros=amounts.micros,
                written_off=amounts.written_off,
                authorization_json=wire.encode_json(payment.payload),
            )
            requirements = offers.requirements(payment.offer, amounts.micros)
            outcome = await cashier.settle(row, payment.facilitator, payment.payload, requirements)
            cashier.judge(payment, outcome)
            return outcome
        finally:
            cashier.done(payment)

    async def _write_end(
        self, amounts: _Amounts, answer: KeptAnswer | None, body_digest: bytes | None
    ) -> bool:
        """What the stream came to is on disk; False: the payment is not this process's any more."""
        cashier, payment = self._cashier, self._payment
        async with cashier.ledger.driver.write() as tx:
            if not await tx.run("payment_flows", self._row(amounts, body_digest)):
                return False
            if answer is not None:
                await tx.run("answer_write", (payment.id, *answer))
            if amounts.micros:
                settling = MovePayment(payment.id, State.SERVED, State.SETTLING, None)
                await move(tx, settling, cashier.now_us())
        return True

    def _requirements(self, amounts: _Amounts) -> bytes:
        return wire.encode_json(offers.requirements(self._payment.offer, amounts.micros))

    def _row(self, amounts: _Amounts, body_digest: bytes | None) -> tuple[object, ...]:
        ledger = self._cashier.ledger
        return (
            *(amounts.micros, amounts.units, amounts.micros, amounts.written_off),
            *(self._requirements(amounts), body_digest, self._cashier.now_us()),
            *(self._payment.id, ledger.slot, ledger.epoch),
        )
