"""Reopening a payment: who paid and did not get its answer is served once more, uncharged (contract §4).

Nothing is charged or refunded and no event is written: the payment stays settled, the next request that shows
it is served, and the timeline says who decided so and why.
"""

from __future__ import annotations

from headgate.model.errors import InputError, NotFound
from headgate.model.payment import PaymentRow, State, payment_text
from headgate.service.payments import PaymentView, read_payment_id, show_payment
from headgate.store import journal
from headgate.store.driver import Driver
from headgate.store.operations import MovePayment

_MOST_REASON = 500


async def reopen_payment(driver: Driver, payment_id: str, reason: str, *, now_us: int) -> PaymentView:
    """Let a settled payment be served once more; the payment as it is then. A reopened one stays so.

    Raises:
        NotFound: there is no such payment.
        InputError: no reason is given, or the payment is not settled.
    """
    reason = reason.strip()
    if not 0 < len(reason) <= _MOST_REASON:
        raise InputError(f"say why, in 1 to {_MOST_REASON} characters: --reason")
    identifier = read_payment_id(payment_id)
    async with driver.write() as tx:
        rows = await tx.rows("payment_read", (identifier,))
        if not rows:
            raise NotFound(
                f"there is no payment {payment_text(identifier)} here; `headgate payments list` shows them"
            )
        row = PaymentRow._make(rows[0])
        state = State(row.state)
        if state not in (State.SETTLED, State.REOPENED):
            raise InputError(
                f"payment {payment_text(identifier)} is {state.name.lower()}, not settled: {_HINTS[state]}"
            )
        if state is State.SETTLED:
            await journal.move(
                tx, MovePayment(identifier, state, State.REOPENED, f"reopened: {reason}"), now_us
            )
    return await show_payment(driver, payment_id)


_USABLE = "the same payment can be used as it is"
_OPEN = "it is being resolved, and then gets its answer"
_HINTS = {
    State.CLAIMED: "a request is at work with it",
    State.VERIFIED: "a request is at work with it",
    State.SERVED: _OPEN,
    State.SETTLING: _OPEN,
    State.UNKNOWN: _OPEN,
    State.FAILED: "nothing was paid; the payer signs a new one",
    State.RELEASED: _USABLE,
    State.REPEATING: "it is being served again at this moment",
}
