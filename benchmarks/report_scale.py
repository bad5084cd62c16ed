"""The report at scale: the query's time over a million events and over ten times as many, and bytes an event.

The default report reads kept totals, so its cost must depend on the number of groups and not on events.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks import headgate_store
from benchmarks.ready import NotAvailableError


@dataclass(frozen=True, slots=True)
class ReportSize:
    """One size of ledger."""

    events: int
    query_ms: float
    bytes_per_event: float


def fill_events(store: headgate_store.HeadgateStore, first: int, count: int) -> None:
    """Writes `count` events, numbered from `first`, with totals, as the product itself would have left them.

    To be written against the store. A spread that makes the report work: three channels, the days of a
    month, a handful of actions and networks, a few hundred customers.
    """
    raise NotAvailableError(f"fill_events({store.database.name}, {first}, {count}) is not written yet")


def query_ms(store: headgate_store.HeadgateStore) -> float:
    """The median time of the default report's queries, in milliseconds, without starting a process."""
    raise NotAvailableError(f"query_ms({store.database.name}) is not written yet")


def run(
    directory: Path, facilitator_url: str, sizes: Sequence[int], step: Callable[[str], None]
) -> list[ReportSize]:
    """Grows one store through `sizes` and measures at each.

    Raises:
        NotAvailableError: Headgate cannot run here.
    """
    headgate_store.require_installed()
    store = headgate_store.HeadgateStore(
        directory / "report", facilitator_url, included=10**12, beyond=("overage",)
    )
    measured: list[ReportSize] = []
    filled = 0
    for size in sizes:
        step(f"report: filling the ledger to {size:,} events")
        fill_events(store, filled, size - filled)
        filled = size
        step(f"report: {size:,} events")
        measured.append(ReportSize(size, query_ms(store), _bytes_on_disk(store) / size))
    return measured


def _bytes_on_disk(store: headgate_store.HeadgateStore) -> int:
    """The database file and what SQLite keeps beside it."""
    return sum(path.stat().st_size for path in store.database.parent.glob(f"{store.database.name}*"))
