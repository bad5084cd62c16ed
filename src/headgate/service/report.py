"""The report (contract §7): numbers and the ledger's head from one snapshot, numbers into words, the memo."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from headgate.model.calendar import AccountingCalendar, format_month
from headgate.model.event import Channel
from headgate.model.public_ids import KEY, write_id
from headgate.model.report import (
    DEFAULT_BY,
    Memo,
    Report,
    Span,
    Sums,
    checked_by,
    day_text,
    label_columns,
    ledger_head,
    make_rows,
)
from headgate.model.subscription import Subscription, contract_end_us, period_at, terms_at
from headgate.store.driver import Driver, Row, Snapshot
from headgate.store.registry import RegistryReader
from headgate.store.reports import Source, first_rows, grouped, source_of

Label = Callable[[Any], str]


async def report(
    driver: Driver,
    registry: RegistryReader,
    *,
    calendar: AccountingCalendar,
    span: Span,
    by: Sequence[str] = DEFAULT_BY,
) -> Report:
    """The report over a span of the seller's days, in groups of `by`; month and channel always are columns.

    For channel, action, network and day it reads kept totals; for customer and payer, over whole months, the
    totals kept for them; for plan, key and seat, or parts of months by party, the events of those months. The
    `plan` of a row is the one whose terms were in force when the use occurred. A `seat` is written
    `customer/seat` where the customer is no column, since seats are named within their customer.

    Raises:
        InputError: a column the report does not have.
    """
    columns = label_columns(checked_by(by))
    asked = (*columns, "customer") if "seat" in columns and "customer" not in columns else columns
    start_us, end_us = span.bounds_us(calendar)
    async with driver.snapshot() as snapshot:
        slots = [(int(row[0]), int(row[2]), bytes(row[3])) for row in await snapshot.rows("slots_all")]
        source = source_of(asked, span)
        since = await first_rows(snapshot, slots, start_us) if source is Source.EVENTS else []
        raw = await grouped(snapshot, asked, span, calendar, since)
        labels = await _labels(snapshot, asked, source)
        reader = RegistryReader(snapshot, registry.known_catalogs)
        memo = await _memo(snapshot, span, start_us, end_us, await reader.subscriptions())
    return Report(
        span=span,
        time_zone=calendar.zone,
        by=columns,
        rows=make_rows(_summed(raw, asked, columns, labels)),
        memo=memo,
        ledger_head=ledger_head(slots),
    )


def _summed(
    raw: Iterable[Row], asked: Sequence[str], columns: Sequence[str], labels: dict[str, Label]
) -> dict[tuple[str, ...], Sums]:
    """Groups by their texts: two stored values with the same text (rails of one network) are one group."""
    found: dict[tuple[str, ...], Sums] = {}
    for row in raw:
        texts = {column: labels[column](value) for column, value in zip(asked, row, strict=False)}
        if "seat" in texts and texts["seat"] and "customer" not in columns:
            texts["seat"] = f"{texts['customer']}/{texts['seat']}"
        key = tuple(texts[column] for column in columns)
        found[key] = found.get(key, Sums()).plus(Sums(*map(int, row[len(asked) :])))
    return found


# --- texts -----------------------------------------------------------------------------------------------


async def _labels(snapshot: Snapshot, asked: Sequence[str], source: Source) -> dict[str, Label]:
    """For each column, how its stored value is written; what was left empty stays empty."""
    return {column: await _label(snapshot, column, source) for column in asked}


async def _label(snapshot: Snapshot, column: str, source: Source) -> Label:
    match column:
        case "month":
            return format_month
        case "day":
            return day_text
        case "channel":
            return lambda value: Channel(value).name.lower()
        case "action":
            return _named(dict(await snapshot.rows("action_names")))
        case "customer":
            return _named(dict(await snapshot.rows("customer_refs_all")))
        case "seat":
            return _named({row[0]: row[2] for row in await snapshot.rows("seats_all")})
        case "key":
            return lambda value: write_id(KEY, value) if value else ""
        case "payer":
            return lambda value: "0x" + value.hex() if value else ""
        case "network" if source is Source.EVENTS:
            return _named({row[0]: row[1] for row in await snapshot.rows("rail_names")})
        case "network":
            return lambda value: f"eip155:{value}" if value else ""
        case _:
            return lambda value: value or ""


def _named(names: dict[int, str]) -> Label:
    return lambda value: names.get(value, f"#{value}") if value else ""


# --- the memo --------------------------------------------------------------------------------------------


async def _memo(
    snapshot: Snapshot, span: Span, start_us: int, end_us: int, contracts: Iterable[Subscription]
) -> Memo:
    within, months = (start_us, end_us), span.months
    pending = (await snapshot.rows("memo_payments_pending", within))[0]
    unpaid = (await snapshot.rows("memo_unpaid_work", within))[0]
    refunds = (await snapshot.rows("memo_refunds", (*months, span.first_day, span.last_day)))[0]
    owed = (await snapshot.rows("memo_owed_work", within))[0]
    due = (await snapshot.rows("memo_refunds_owed", within))[0]
    fees = [fee for contract in contracts for fee in seat_fees(contract, start_us, end_us)]
    unassigned = await _unassigned(snapshot, span, start_us, end_us)
    beyond, unmeasured = await _written_off(snapshot, span, start_us, end_us)
    return Memo(
        seat_periods=len(fees),
        seat_seats=sum(seats for seats, _ in fees),
        seat_fees_micros=sum(micros for _, micros in fees),
        pending_payments=int(pending[0]),
        pending_micros=int(pending[1]),
        unpaid_payments=int(unpaid[0]),
        unpaid_micros=int(unpaid[1]),
        owed_payments=int(owed[0]),
        owed_micros=int(owed[1]),
        refunds_due_micros=int(refunds[0]) + int(due[0]),
        unassigned_events=unassigned[0],
        unassigned_units=unassigned[1],
        unassigned_list_micros=unassigned[2],
        beyond_events=beyond[0],
        beyond_micros=beyond[1],
        unmeasured_events=unmeasured[0],
        unmeasured_micros=unmeasured[1],
    )


async def _written_off(
    snapshot: Snapshot, span: Span, start_us: int, end_us: int
) -> tuple[tuple[int, int], tuple[int, int]]:
    """(events, amount at list price) of use beyond its ceiling or hold, and of use that was not measured."""
    within = (0, 1 << 62) if span.whole_months else (start_us, end_us)  # a month has its late rows too
    found = [[0, 0], [0, 0]]
    for price, per, unmeasured, events, units in await snapshot.rows(
        "memo_written_off", (*span.months, *within)
    ):
        found[unmeasured][0] += int(events)
        found[unmeasured][1] += -(-int(units) * int(price) // int(per))
    beyond, not_measured = found
    return (beyond[0], beyond[1]), (not_measured[0], not_measured[1])


async def _unassigned(snapshot: Snapshot, span: Span, start_us: int, end_us: int) -> tuple[int, int, int]:
    """(events, units, list amount) of customers without a contract.

    Over whole months it costs a kept total for each customer who never had one; only of those who came under
    contract are the rows themselves counted.
    """
    months = span.months
    if span.whole_months:
        parts = await snapshot.rows("memo_unassigned_kept", (*months, end_us))
        parts += await snapshot.rows("memo_unassigned_mixed", (end_us, *months))
    else:
        parts = await snapshot.rows("memo_unassigned_days", (*months, start_us, end_us))
    events, units, micros = (sum(int(part[place]) for part in parts) for place in range(3))
    return events, units, micros


def seat_fees(contract: Subscription, start_us: int, end_us: int) -> list[tuple[int, int]]:
    """(seats, fee in micro-dollars) of each billing period that begins within `[start_us, end_us)`.

    Seats and price are those of the period's beginning. A contract that is over begins no period: neither
    grace nor a cancellation does.
    """
    over_us = contract_end_us(contract)
    until_us = end_us if over_us is None else min(end_us, over_us)
    at_us = max(start_us, contract.start_us)
    found = []
    while at_us < until_us:
        period = period_at(contract, at_us)
        if period.start_us >= start_us:
            terms = terms_at(contract, period.start_us)
            if terms.plan.price_per_seat_micros:
                found.append((terms.seats, terms.seats * terms.plan.price_per_seat_micros))
        at_us = period.end_us
    return found
