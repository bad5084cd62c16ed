"""Forgetting what nobody can ask for any more: kept answers, and payments that came to nothing.

Payments that were settled, or could have been, stay for good, and so does every event. A released payment
owes nothing and settled nothing; strangers can make as many of them as they like, so they stay for a day,
which is long enough to see why a buyer was refused. The same payment shown again is simply new.
"""

from __future__ import annotations

import asyncio

from headgate.store.driver import Driver

RELEASED_KEPT_US = 86_400_000_000
AT_ONCE = 500
_TIMES, _PAUSE_S = 100, 0.1


async def forget_all(driver: Driver, now_us: int) -> None:
    """As much as strangers can make in a minute; a little at a time, since writers wait for each."""
    for _ in range(_TIMES):
        if await forget(driver, now_us) < AT_ONCE:
            return
        await asyncio.sleep(_PAUSE_S)


async def forget(driver: Driver, now_us: int) -> int:
    """Delete what is over, a bounded number at a time; how many payments were forgotten."""
    async with driver.write() as tx:
        await tx.run("answers_expire", (now_us,))
        before_us = now_us - RELEASED_KEPT_US
        rows = await tx.rows("payments_released", (before_us, AT_ONCE))
        for statement in ("payment_steps_forget", "payment_names_forget", "answer_forget", "payment_forget"):
            await tx.many(statement, rows)
    return len(rows)
