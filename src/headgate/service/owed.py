"""Work that was paid before it was done (`settle = "before"`): what is not done in time is to be refunded.

A refund that is due says so in the report and in the payment's timeline; it stays due until the work is done,
because the payment opens it until it was served once (contract §4).
"""

from __future__ import annotations

import logging

from headgate.model.payment import payment_text
from headgate.store.driver import Driver
from headgate.store.journal import step

log = logging.getLogger("headgate.payments")
NOTE = "refund due: the work was paid for and not done in time"


async def mark_refunds_due(driver: Driver, now_us: int) -> int:
    """Say of every payment whose work is overdue that its refund is due; how many are new."""
    if not await driver.rows("owed_overdue", (now_us,)):
        return 0
    marked = 0
    async with driver.write() as tx:
        for identifier, state in await tx.rows("owed_overdue", (now_us,)):
            if await tx.run("owed_refund", (identifier,)):
                await step(tx, identifier, state, NOTE, now_us)
                log.error("payment %s: %s", payment_text(identifier), NOTE)
                marked += 1
    return marked
