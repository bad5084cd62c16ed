"""Where a store stands: payments by state, and among them the work that is owed."""

from __future__ import annotations

from headgate.model.payment import State
from headgate.service.status import store_status
from headgate.store.operations import MovePayment
from tests.ledgers import ALICE, BOB, Shop


async def test_work_that_is_owed_is_counted_apart(shop: Shop) -> None:
    """The money was taken, so nothing is open; and yet something is due."""
    for nonce in range(3):
        payment = (await shop.pay(ALICE, nonce)).payment
        assert payment is not None
        if nonce:
            await shop.ledger.submit(MovePayment(payment, State.SETTLED, State.REOPENED, "not done"))
    await shop.ledger.submit(MovePayment(payment, State.REOPENED, State.REPEATING, "again"))
    await shop.claim(BOB, 9)
    status = await store_status(shop.driver, shop.registry, mode="test", now_us=shop.now_us)
    assert (status.open_payments, status.owed_work) == (1, 2)
    assert [(each.state, each.payments, each.open, each.owed) for each in status.payments] == [
        ("claimed", 1, True, False),
        ("settled", 1, False, False),
        ("reopened", 1, False, True),
        ("repeating", 1, False, True),
    ]
