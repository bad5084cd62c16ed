"""The readers' store: snapshots, where a month's rows begin, and which source a report reads."""

from __future__ import annotations

import asyncio

import pytest

from headgate.model.calendar import AccountingCalendar
from headgate.model.errors import StoreUnavailable
from headgate.model.report import Span
from headgate.store.driver import Driver
from headgate.store.reports import Source, first_rows, source_of
from tests.ledgers import Shop, april
from tests.registries import DAY, us


async def test_a_snapshot_does_not_see_what_is_booked_meanwhile(shop: Shop) -> None:
    await april(shop)
    async with shop.driver.snapshot() as snapshot:
        before = await snapshot.rows("slots_all")
        await shop.use("acme", 1)
        assert await snapshot.rows("slots_all") == before
        assert await snapshot.rows_sql("SELECT MAX(seq) FROM events") == [(12,)]
    async with shop.driver.snapshot() as snapshot:
        assert await snapshot.rows_sql("SELECT MAX(seq) FROM events") == [(13,)]


async def test_a_snapshot_cannot_write_and_fails_cleanly(driver: Driver) -> None:
    with pytest.raises(StoreUnavailable):
        async with driver.snapshot() as snapshot:
            await snapshot.rows_sql("UPDATE registry SET generation = 99")
    async with driver.snapshot() as snapshot:  # the next one works
        assert await snapshot.rows("registry_generation") != [(99,)]


async def test_snapshots_side_by_side_and_cancelled_ones(driver: Driver) -> None:
    async def read() -> int:
        async with driver.snapshot() as snapshot:
            await asyncio.sleep(0)
            return int((await snapshot.rows("registry_generation"))[0][0])

    assert len(set(await asyncio.gather(*(read() for _ in range(5))))) == 1

    async def endless() -> None:
        async with driver.snapshot() as snapshot:
            await snapshot.rows_sql(
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT COUNT(*) FROM n"
            )

    task = asyncio.create_task(endless())
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.wait_for(read(), 10) >= 1


async def test_a_months_rows_are_found_without_reading_those_before(shop: Shop) -> None:
    await shop.customer("acme", "team")
    start = us("2026-03-01")
    for day in range(60):
        shop.now_us = start + day * DAY
        await shop.use("acme", 1)
    slots = [(shop.ledger.slot, 60)]
    april_us, _ = AccountingCalendar("UTC").month_bounds_us(202604)
    async with shop.driver.snapshot() as snapshot:
        # 31 rows of March come first; a day's slack before the month
        assert await first_rows(snapshot, slots, april_us) == [(shop.ledger.slot, 31)]
        assert await first_rows(snapshot, slots, start) == [(shop.ledger.slot, 1)]
        assert await first_rows(snapshot, slots, start + 100 * DAY) == []


@pytest.mark.parametrize(
    ("by", "first", "last", "source"),
    [
        ("month channel", "2026-04-01", "2026-04-30", Source.TOTALS),
        ("action network day", "2026-04-03", "2026-04-05", Source.TOTALS),
        ("customer payer action", "2026-04-01", "2026-05-31", Source.PARTY_TOTALS),
        ("customer", "2026-04-01", "2026-04-29", Source.EVENTS),
        ("customer day", "2026-04-01", "2026-04-30", Source.EVENTS),
        ("plan", "2026-04-01", "2026-04-30", Source.EVENTS),
    ],
)
def test_the_narrowest_source(by: str, first: str, last: str, source: Source) -> None:
    assert source_of(by.split(), Span.of_days(first, last)) is source
