"""The report at scale: the query's time over a million events and over ten times as many, and bytes an event.

The default report reads kept totals, so its cost must depend on the number of groups and not on events.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from benchmarks import headgate_store
from benchmarks.ready import BrokenError

TIMES = 10
"""How many times as long the second ledger is."""
REPEATS = 9
"""How often the report is asked for; the median counts."""


@dataclass(frozen=True, slots=True)
class ReportSize:
    """One size of ledger."""

    events: int
    query_ms: float
    bytes_per_event: float


def query_ms(store: headgate_store.HeadgateStore) -> float:
    """The median time of the default report's queries over `ledger_filler.MONTH`, in milliseconds.

    In this process, with the product's own report: what a command line takes to start is not the report.
    """
    return asyncio.run(_query_ms(store.database))


async def _query_ms(database: Path) -> float:
    from benchmarks.ledger_filler import MONTH
    from headgate.model.calendar import AccountingCalendar, format_month
    from headgate.model.report import Span
    from headgate.service.report import report
    from headgate.store.registry import Registry
    from headgate.store.sqlite import SqliteDriver

    driver = SqliteDriver(database)
    try:
        registry, calendar, span = (
            Registry(driver),
            AccountingCalendar("UTC"),
            Span.of_month(format_month(MONTH)),
        )
        times_ms = []
        for _ in range(1 + REPEATS):
            started_ns = time.perf_counter_ns()
            found = await report(driver, registry, calendar=calendar, span=span)
            times_ms.append((time.perf_counter_ns() - started_ns) / 1e6)
            if not found.rows:
                raise BrokenError(f"the report over {database} is empty")
        return statistics.median(times_ms[1:])  # the first opens the connection
    finally:
        await driver.close()


def run(directory: Path, facilitator_url: str, events: int, step: Callable[[str], None]) -> list[ReportSize]:
    """Fills one store with `events`, measures, makes it `TIMES` as long, measures again.

    Raises:
        NotAvailableError: Headgate cannot run here.
    """
    headgate_store.require_installed()
    from benchmarks import ledger_filler

    store = headgate_store.HeadgateStore(
        directory / "report", facilitator_url, included=10**12, beyond=("overage",)
    )
    step(f"report: booking {events:,} events")
    asyncio.run(ledger_filler.fill(store.database, events))
    step("report: the first ledger")
    small = ReportSize(events, query_ms(store), _bytes_on_disk(store) / events)
    step(f"report: making it {TIMES} times as long")
    ledger_filler.multiply(store.database, TIMES)
    step("report: the second ledger")
    large = events * TIMES
    return [small, ReportSize(large, query_ms(store), _bytes_on_disk(store) / large)]


def _bytes_on_disk(store: headgate_store.HeadgateStore) -> int:
    """The database file and what SQLite keeps beside it."""
    beside = store.database.parent.glob(f"{store.database.name}*")
    return sum(path.stat().st_size for path in beside if path.is_file())
