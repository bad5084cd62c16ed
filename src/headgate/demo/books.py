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
from headgate.model.report import Report, Span, to_object
from headgate.service.events import events
from headgate.service.report import report
from headgate.service.verify import verify


@dataclass(frozen=True, slots=True)
class Books:
    """`rows` as `headgate events` writes them, and where `headgate verify` finds them `broken`."""

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
    checked = await verify(store.driver, calendar=calendar)
    return Books(tuple(rows), found, tuple(f"{one.where}: {one.what}" for one in checked.differences))


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
