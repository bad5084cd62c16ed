"""What Headgate says about the story: its ledger, its report, its chain of hashes, its open payments.

Asked the way the command line asks it, and turned into the tally's terms, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from headgate.demo.stage import Stage
from headgate.demo.tally import Sold, Sum
from headgate.model.calendar import AccountingCalendar
from headgate.model.event import GENESIS, Event, first_broken
from headgate.model.report import Report, Span, to_object
from headgate.service.events import events, stored_events
from headgate.service.report import report
from headgate.store.driver import Driver
from headgate.store.reports import EventFilter


@dataclass(frozen=True, slots=True)
class Books:
    """`rows` as `headgate events` writes them, its `report`, and where its hash chain is `broken`."""

    rows: tuple[Mapping[str, Any], ...]
    report: Report
    broken: tuple[str, ...]

    @property
    def sold(self) -> list[Sold]:
        """The rows in the tally's terms."""
        return [_sold(row) for row in self.rows]

    @property
    def sums(self) -> dict[tuple[str, str], Sum]:
        """The report's lines in the tally's terms, from its JSON."""
        lines = to_object(self.report)["rows"]
        return {(line["channel"], line["action"]): _sum(line) for line in lines}

    @property
    def months(self) -> set[str]:
        """The accounting months of the report's lines."""
        return {line["month"] for line in to_object(self.report)["rows"]}


async def read_books(stage: Stage) -> Books:
    """Everything, now."""
    store = stage.gate.store
    assert store is not None
    calendar = AccountingCalendar(stage.gate.config.seller.time_zone)
    rows = [row async for row in events(store.driver, store.registry)]
    found = await report(store.driver, store.registry, calendar=calendar, span=Span.of_month(stage.month))
    return Books(tuple(rows), found, await _broken(store.driver))


async def _broken(driver: Driver) -> tuple[str, ...]:
    """Where the hash chains do not hold: each slot's rows from its first to the head that the slot names."""
    chains: dict[int, list[Event]] = {}
    async for event, _ in stored_events(driver, EventFilter()):
        chains.setdefault(event.slot, []).append(event)
    faults = []
    for slot, _, seq, head in await driver.rows("slots_all"):
        chain = chains.get(slot, [])
        broken = first_broken(chain)
        if broken is not None:
            faults.append(f"slot {slot} breaks at row {broken}")
        elif (len(chain), chain[-1].row_hash if chain else GENESIS) != (seq, bytes(head)):
            faults.append(f"slot {slot} has {len(chain)} rows and should have {seq}")
    return tuple(faults)


def _sold(row: Mapping[str, Any]) -> Sold:
    return Sold(
        channel=row["channel"]
        if row["kind"] == "usage" and row["units"] == 1
        else f"{row['kind']}×{row['units']}",
        action=row["action"],
        list_micros=_micros(row["list_amount"]),
        charged_micros=_micros(row["charged_amount"]),
        customer=row["customer"] or "",
        seat=row["seat_id"] or "",
        key=row["key_id"] or "",
        payer=(row["payer"] or "").lower(),
        transaction=row["transaction"] or "",
    )


def _sum(line: Mapping[str, Any]) -> Sum:
    return Sum(
        line["events"],
        line["units"],
        _micros(line["list_amount"]),
        _micros(line["charged_amount"]),
        _micros(line["settled_amount"]),
    )


def _micros(amount: str) -> int:
    return int(Decimal(amount) * 1_000_000)
