"""Forgetting what nobody can ask for any more: kept answers, and payments that came to nothing.

Payments that were settled, or could have been, stay for good, and so does every event. A released payment
owes nothing and settled nothing; strangers can make as many of them as they like, so they stay for a day,
which is long enough to see why a buyer was refused. The same payment shown again is simply new.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from headgate.store.driver import Driver

RELEASED_KEPT_US = 86_400_000_000
AT_ONCE = 500
_PAUSE_S = 0.1
EVERY_S = 60.0
log = logging.getLogger("headgate")


async def forget_all(driver: Driver, now_us: int) -> None:
    """All that is over; a little at a time, since writers wait for each."""
    while await forget(driver, now_us) >= AT_ONCE:  # noqa: ASYNC110  it waits for nobody
        await asyncio.sleep(_PAUSE_S)


async def keep_forgetting(driver: Driver, now_us: Callable[[], int]) -> None:
    """Do so every minute, until cancelled; never ends by an error."""
    while True:
        try:
            await forget_all(driver, now_us())
        except Exception:
            log.exception("what is over could not be deleted; it is tried again in a minute")
        await asyncio.sleep(EVERY_S)


async def forget(driver: Driver, now_us: int) -> int:
    """Delete what is over, a bounded number at a time; how many payments were forgotten."""
    async with driver.write() as tx:
        await tx.run("answers_expire", (now_us,))
        before_us = now_us - RELEASED_KEPT_US
        rows = await tx.rows("payments_released", (before_us, AT_ONCE))
        for statement in ("payment_steps_forget", "payment_names_forget", "answer_forget", "payment_forget"):
            await tx.many(statement, rows)
    return len(rows)
